# SPDX-License-Identifier: Apache-2.0
"""Saved contexts on x86: the argument of UnhandledExceptionFilter, and the arguments of the dispatchers.

Everything on x86 is passed on the stack. UnhandledExceptionFilter's only argument points to EXCEPTION_POINTERS;
KiUserExceptionDispatcher starts with the two pointers at esp; ExecuteHandler passes record, registration frame,
CONTEXT and dispatcher context; RtlRaiseException builds both in its own frame and passes them on.
"""

from __future__ import annotations

from collections.abc import Iterator

from throwstack.dispatch.pointers import scan_pointers
from throwstack.dispatch.saved import Route, SavedException, saved_exception
from throwstack.frames import Frame, StackBounds
from throwstack.memory import MemoryUnreadable
from throwstack.target import Target

_ARGUMENT = 8
"""Distance of the first argument from ChildEBP: saved ebp (or its place), return address, argument."""


def from_filter_frame(target: Target, stack: StackBounds, frame: Frame) -> SavedException | None:
    """Return what the first argument of the UnhandledExceptionFilter frame `frame` points to, or None."""
    try:
        pointers = target.memory.u32(frame.child_sp + _ARGUMENT)
        record, context = target.memory.u32(pointers), target.memory.u32(pointers + 4)
    except MemoryUnreadable:
        return None
    return saved_exception(target, stack, record, context, route=Route.FILTER_ARGUMENT, frame_sp=frame.child_sp)


def from_stack(target: Target, stack: StackBounds, low: int) -> Iterator[SavedException]:
    """Yield what the stack from `low` outwards holds pointers to."""
    return scan_pointers(target, stack, low, stack.base)
