# SPDX-License-Identifier: Apache-2.0
"""Guesses the caller of code that no unwind data covers: code generated at run time, hand-written code, a wild jump.

Such frames are labelled as guesses. Of a guessed caller's registers only rip, rsp and, if it was read, rbp are known.
Where the code that it called has saved the other registers is not known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from throwstack.core.frames import StackBounds
from throwstack.core.memory import Memory, MemoryUnreadable
from throwstack.core.registers import BP, SP, Registers

_LARGEST_FRAME = 1 << 20
_SCANNED_WORDS = 512


@dataclass(frozen=True, slots=True)
class GuessedCaller:
    """The registers of a caller, and `slot`, the stack address of the return address that leads to it."""

    registers: Registers
    slot: int


def by_frame_pointer(
    registers: Registers, stack: StackBounds, memory: Memory, is_return_address: Callable[[int], bool]
) -> GuessedCaller | None:
    """Return the caller under the assumption that the function began with `push rbp; mov rbp, rsp`.

    Then rbp points at the saved rbp, and the return address is the word above. `registers` are those of the function,
    and `is_return_address` says whether a value can be a return address. None if rbp does not point into `stack` or the
    word above cannot be a return address.
    """
    bp = registers.bp
    if bp is None or bp % 8 or not registers.sp <= bp <= registers.sp + _LARGEST_FRAME or not stack.contains(bp, 16):
        return None
    try:
        saved, address = memory.u64(bp), memory.u64(bp + 8)
    except MemoryUnreadable:
        return None
    if not is_return_address(address):
        return None
    return GuessedCaller(_registers(address, bp + 16, saved), bp + 8)


def by_scan(
    start: int, stack: StackBounds, memory: Memory, is_return_address: Callable[[int], bool]
) -> GuessedCaller | None:
    """Return the caller under the assumption that the next possible return address on the stack is the return address.

    The 512 words from the stack address `start` on are searched with `is_return_address`; None if none of them can be a
    return address.
    """
    for slot in range(start, start + 8 * _SCANNED_WORDS, 8):
        if not stack.contains(slot, 8):
            break
        try:
            address = memory.u64(slot)
        except MemoryUnreadable:
            break
        if is_return_address(address):
            return GuessedCaller(_registers(address, slot + 8, None), slot)
    return None


def _registers(ip: int, sp: int, bp: int | None) -> Registers:
    gpr: list[int | None] = [None] * 16
    gpr[SP], gpr[BP] = sp, bp
    return Registers(ip, tuple(gpr))
