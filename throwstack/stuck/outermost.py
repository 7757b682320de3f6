# SPDX-License-Identifier: Apache-2.0
"""What is near the base of a stack: the outermost frame of its thread, and no return address above that."""

from __future__ import annotations

from throwstack.core.frames import End, Frame, Walk
from throwstack.unwind.after_call import is_after_call
from throwstack.unwind.target import Target, ThreadStack
from throwstack.unwind.thread_start import overwritten

NEAR_BASE = 0x3000
"""How far, at most, the outermost frame of a thread is from the base of the stack.

Between the two are the frame of the thread's start routine and, since Vista, a random gap of up to half a page."""


def ends_at_base(walk: Walk, stack: ThreadStack) -> bool:
    """Say whether a walk ends near the base of the stack, at a word that is no return address, and found none above.

    A library or an emulator may begin a stack so. Example: Wine starts threads of WoW64 as if 0xc had called. If the
    word was a return address before, it was the last one: those of the start routines outside it would still be there.
    """
    if not walk.frames or walk.gap or walk.end is not End.LOST_RETURN_ADDRESS:
        return False
    last = walk.frames[-1]
    is_last = last.return_slot is not None and walk.detail == overwritten(last.return_slot, last.return_address or 0)
    return is_last and 0 <= stack.bounds.base - last.sp <= NEAR_BASE


def return_address_above(target: Target, outermost: Frame, stack: ThreadStack) -> int:
    """Return where the first return address above the frame `outermost` is, or 0 if there is none."""
    size = target.arch.pointer_size
    low = (outermost.sp if outermost.return_slot is None else outermost.return_slot + size) & -size
    data = target.memory.read_available(low, max(min(stack.bounds.base - low, NEAR_BASE), 0))
    for at in range(0, len(data) - size + 1, size):
        word = int.from_bytes(data[at : at + size], "little")
        if word and target.is_code(word - 1) and is_after_call(target.memory, word):
            return low + at
    return 0
