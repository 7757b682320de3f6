# SPDX-License-Identifier: Apache-2.0
"""A recorded stack in lines of text, as the runtime prints it (System.Diagnostics.StackTrace.ToString).

Hidden frames are left out, but never the outermost one. A method that a compiler made from an async method is printed
as that method. A line between two stacks says that the exception was thrown anew, as .NET 5 and later word it.
"""

from __future__ import annotations

from collections.abc import Sequence

from throwstack.managed.managed_exception import ManagedFrame

END_OF_EARLIER_STACK = "--- End of stack trace from previous location ---"


def stack_lines(frames: Sequence[ManagedFrame]) -> list[str]:
    """Return the lines of a recorded stack, innermost frame first: `Shop.Orders.Add(String name)`.

    A frame without a name is `0x…`, the address of its code, with the reason.
    """
    lines = []
    for index, frame in enumerate(frames):
        if frame.method.is_hidden and index < len(frames) - 1:
            continue
        lines.append(_line(frame))
        if frame.is_end_of_earlier_stack and not frame.method.original:
            lines.append(END_OF_EARLIER_STACK)
    return lines


def _line(frame: ManagedFrame) -> str:
    method = frame.method
    if method.original:
        return method.original
    return method.name + method.parameters if method.name else f"{frame.ip:#x} ({method.reason})"
