# SPDX-License-Identifier: Apache-2.0
"""Whether a saved exception is in flight, or what one that was handled long ago has left on the stack.

A CONTEXT belongs to a dispatch that is going on only where it lies in a frame that holds one: the dispatchers',
RtlRaiseException's, or that of a function that fills one in itself and calls UnhandledExceptionFilter. One that lies
below the stack pointer, or among the locals of a live function of another kind, is debris: the function has never
written there.
"""

from __future__ import annotations

from collections.abc import Sequence

from throwstack.core.frames import Frame, StackBounds, Trust
from throwstack.dispatch import x64, x86
from throwstack.dispatch.saved_exception import SavedException
from throwstack.names.blockers import BlockerKind, blocker_named
from throwstack.names.frame_names import name_of
from throwstack.names.symbols import Name
from throwstack.unwind.target import Target

_HOLDERS = x64.DISPATCHERS | x64.RAISERS | x86.DISPATCHERS | x86.RAISERS | {"RtlDispatchException"}
_OWN_CONTEXT = frozenset({BlockerKind.GS_FAILURE, BlockerKind.INVALID_PARAMETER, BlockerKind.FAIL_FAST})
_GUESSES = frozenset({Trust.SCAN})


def is_stale(
    target: Target, stack: StackBounds, frames: Sequence[Frame], saved: SavedException, *, is_complete: bool
) -> bool:
    """Say whether the walk `frames` shows that `saved` is debris. False where the walk does not tell.

    `is_complete`: the walk reached the start of the thread.
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
    return not _may_hold_context(target, frames[index], frames[index - 1] if index else None)


def _may_hold_context(target: Target, frame: Frame, inner: Frame | None) -> bool:
    """Say whether `frame`, which called `inner`, is one that a CONTEXT of an exception in flight lies in."""
    name = name_of(target.symbols, frame)
    if not name.symbol or name.is_doubtful:
        return name.module.lower() == "ntdll"
    if name.symbol in _HOLDERS or _kind(name) in _OWN_CONTEXT:
        return True
    return inner is not None and _kind(name_of(target.symbols, inner)) is BlockerKind.UNHANDLED_FILTER


def _kind(name: Name) -> BlockerKind | None:
    blocker = blocker_named(name.module, name.symbol)
    return None if blocker is None else blocker.kind
