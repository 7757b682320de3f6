# SPDX-License-Identifier: Apache-2.0
"""The exceptions in flight on a thread: every route to a saved CONTEXT, asked in order of how telling it is.

Frames that the walk confirmed come first: the argument of UnhandledExceptionFilter (x86), the dispatcher's and
RtlRaiseException's frames (x64). Pointers on the stack confirm those; alone they count only where no frame told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from throwstack.dispatch import x64, x86
from throwstack.dispatch.saved import SavedException, merge
from throwstack.frames import Frame, StackBounds
from throwstack.naming import symbol_of
from throwstack.registers import Arch
from throwstack.target import Target

FILTER = "UnhandledExceptionFilter"


def exceptions_in_flight(
    target: Target, stack: StackBounds, frames: Sequence[Frame], low: int
) -> tuple[SavedException, ...]:
    """Return the exceptions being dispatched on a thread, innermost first.

    `frames` are those of the thread's walk from the blocking function outwards (none, if the walk did not get
    there), `low` is the stack address from which pointers count.
    """
    by_frame = list(_by_frame(target, stack, frames))
    from_stack = x86.from_stack if target.arch is Arch.X86 else x64.from_stack
    by_pointers = list(from_stack(target, stack, low))
    known = {found.context.address for found in by_frame}
    if by_frame:
        by_pointers = [found for found in by_pointers if found.context.address in known]
    return merge([*by_frame, *by_pointers])


def _by_frame(target: Target, stack: StackBounds, frames: Sequence[Frame]) -> Iterator[SavedException]:
    for index, frame in enumerate(frames):
        symbol = symbol_of(target.symbols, frame)
        found = None
        if target.arch is Arch.X86:
            if symbol == FILTER:
                found = x86.from_filter_frame(target, stack, frame)
        elif symbol in x64.DISPATCHERS:
            found = x64.from_dispatcher_frame(target, stack, frame)
        elif symbol in x64.RAISERS and index + 1 < len(frames):
            found = x64.from_raise_frame(target, stack, frame, frames[index + 1])
        if found is not None:
            yield found
