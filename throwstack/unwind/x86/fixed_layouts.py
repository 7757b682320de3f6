# SPDX-License-Identifier: Apache-2.0
"""Finds callers by fixed layouts of the stack: that of a frame pointer, and that of a call that went nowhere.

`push ebp; mov ebp, esp` makes the layout of a frame pointer.

The word at ebp is the saved ebp of the caller, and the word above it is the return address. For code in images this is
a weak rule, because ebp may be a general register there. Code that was generated at run time is mostly written with a
frame pointer in every function, so that its debugger can walk the stack. In such code the rule is believed if the chain
goes on: the saved ebp points to another such pair further up the stack.
"""

from __future__ import annotations

from throwstack.core.frames import StackBounds
from throwstack.core.memory import Memory, MemoryUnreadable
from throwstack.core.registers import BP, SP, X86
from throwstack.unwind.x86.call_frame import Caller, Place
from throwstack.unwind.x86.decode import MASK
from throwstack.unwind.x86.return_address import ReturnAddresses


def caller_at(bp: int, popped: int | None, memory: Memory) -> Caller | None:
    """Return the caller if the saved ebp is at `bp` and the return address is in the word above it.

    `popped` is how many bytes of arguments the frame's function removes, or None if that is not known. The result is
    None if the two words cannot be read.
    """
    try:
        saved, return_address = memory.u32(bp), memory.u32((bp + 4) & MASK)
    except MemoryUnreadable:
        return None
    gpr: list[int | None] = [None] * 8
    gpr[BP], gpr[SP] = saved, (bp + 8 + (popped or 0)) & MASK
    return Caller((bp + 4) & MASK, return_address, (bp + 8) & MASK, popped, tuple(gpr))


def chain_goes_on(caller: Caller, stack: StackBounds, memory: Memory, calls: ReturnAddresses) -> bool:
    """Say whether the saved ebp of `caller`, found by `caller_at`, points to the next pair of the chain.

    The pair is aligned and further up `stack`, and its return address is after a call. A pair of two zeros is the last
    one. `calls` finds the call instructions before an address.
    """
    bp = caller.gpr[BP]
    if bp is None or bp % 4 or bp <= caller.slot or not stack.contains(bp, 8):
        return False
    try:
        saved, return_address = memory.u32(bp), memory.u32(bp + 4)
    except MemoryUnreadable:
        return False
    return bool(calls.calls_before(return_address)) or (saved, return_address) == (0, 0)


def after_call_only(place: Place, memory: Memory) -> Caller | None:
    """Return the caller whose return address is the word on top of the stack, or None if that cannot be read.

    A call through a null or wild pointer pushes its return address, and then the thread faults. No instruction has run
    in between, so that all nonvolatile registers still have the caller's values.
    """
    sp = place.registers.sp
    try:
        return_address = memory.u32(sp)
    except MemoryUnreadable:
        return None
    gpr = [value if number in X86.nonvolatile else None for number, value in enumerate(place.registers.gpr)]
    gpr[SP] = (sp + 4) & MASK
    return Caller(sp, return_address, (sp + 4) & MASK, None, tuple(gpr))
