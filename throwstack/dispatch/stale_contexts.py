# SPDX-License-Identifier: Apache-2.0
"""Recognizes stale CONTEXTs, which exceptions that were handled long ago left on the stack.

Nobody clears a stack. Example: a program handles an access violation and goes on. The CONTEXT stays in memory below the
stack pointer. Later the program calls a function with a large buffer and waits in it; the buffer, which the function
has not written to, now covers the old CONTEXT.

So a CONTEXT belongs to an exception in flight only if it is in the frame of a function that keeps one: a dispatcher,
RtlRaiseException, or a function that fills in a CONTEXT itself and calls UnhandledExceptionFilter. The same is so of
the function of .NET's runtime that ends the process, whose own state the CONTEXT has. A CONTEXT below the stack pointer
or in the frame of any other function is stale.
"""

from __future__ import annotations

from collections.abc import Sequence

from throwstack.core.frames import Frame, StackBounds, Trust
from throwstack.dispatch.raisers import is_fail_fast_of_clr
from throwstack.dispatch.saved_exception import SavedException
from throwstack.names.blockers import BlockerKind, blocker_named
from throwstack.names.dispatch_functions import DispatchRole, role_of
from throwstack.names.frame_names import name_of
from throwstack.names.symbols import Name
from throwstack.unwind.target import Target

_HOLDERS = frozenset({DispatchRole.DISPATCHER, DispatchRole.RAISER, DispatchRole.SEARCHER})
_OWN_CONTEXT = frozenset({BlockerKind.GS_FAILURE, BlockerKind.INVALID_PARAMETER, BlockerKind.FAIL_FAST})
_GUESSES = frozenset({Trust.SCAN})


def is_stale(
    target: Target, stack: StackBounds, frames: Sequence[Frame], saved: SavedException, *, is_complete: bool
) -> bool:
    """Say whether the CONTEXT of `saved` is stale, according to a walk of the stack.

    `frames` are the frames of the walk, innermost first. `is_complete`: the walk reached the start of the thread. The
    result is False if the walk does not decide it: there are no frames, the CONTEXT is not on the stack, or the frame
    that it is in was found by a scan.
    """
    address = saved.context.address
    if not frames or not stack.contains(address):
        return False
    if address < frames[0].sp:
        return True
    index = max(i for i, frame in enumerate(frames) if frame.sp <= address)
    if index + 1 == len(frames):
        return is_complete
    if frames[index].trust in _GUESSES or frames[index + 1].trust in _GUESSES:
        return False
    ip, sp = saved.context.registers.ip, saved.context.registers.sp
    if frames[index].sp == sp and is_fail_fast_of_clr(target, saved.record, ip):
        return False
    return not _may_hold_context(target, frames[index], frames[index - 1] if index else None)


def _may_hold_context(target: Target, frame: Frame, inner: Frame | None) -> bool:
    """Say whether `frame` may hold the CONTEXT of an exception in flight.

    `inner` is the frame that `frame` called, or None.
    """
    name = name_of(target.symbols, frame)
    if not name.is_likely:
        return name.module.lower() == "ntdll"
    if role_of(name.symbol) in _HOLDERS or _kind(name) in _OWN_CONTEXT:
        return True
    return inner is not None and _kind(name_of(target.symbols, inner)) is BlockerKind.UNHANDLED_FILTER


def _kind(name: Name) -> BlockerKind | None:
    blocker = blocker_named(name.module, name.symbol)
    return None if blocker is None else blocker.kind
