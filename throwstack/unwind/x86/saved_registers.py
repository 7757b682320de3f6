# SPDX-License-Identifier: Apache-2.0
"""Computes the registers at a function's start from those at a later instruction and the symbolic state there.

For example, a function has run `push ebp; mov ebp, esp; push ebx`, and the thread was stopped there with ebp = 12ff00h.
The symbolic state says that ebp is "esp at the start, minus 4", so that esp was 12ff04h at the start. The state also
says that the word at 12ff00h is "ebp at the start", and the word below it "ebx at the start". Reading both words gives
these two registers. A register that is found in this way can make further words readable, so that a few rounds are
made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from throwstack.core.memory import Memory, MemoryUnreadable
from throwstack.core.registers import BP, SP, X86
from throwstack.unwind.x86.decode import MASK
from throwstack.unwind.x86.symbolic_state import CONSTANT, SymbolicState, SymbolicValue

_MAX_ROUNDS = 4
_FRAME_POINTERS = (BP, 3)
# Which register to believe first. The state was found on one path to this place, and on the path that was really taken
# a register may hold something else. For example, on one branch esi is "esp at the start, minus 20h", the address of a
# local, and on the other branch it is a count. esp and frame pointers do not change like that: they come first, and
# only frame pointers can contradict esp. ebx is the frame pointer of functions whose stack Visual C++ realigns.
_ANCHOR_ORDER = (SP, *_FRAME_POINTERS, 6, 7, 0, 1, 2)


@dataclass(frozen=True, slots=True)
class RegistersAtStart:
    """The registers at the instruction at which an analysis of code started, mostly a function's first one.

    A register in `gpr` is None if it is not known. `is_consistent` is False if esp and a frame pointer give different
    values of esp at the start.
    """

    gpr: tuple[int | None, ...]
    is_consistent: bool


def registers_at_start(state: SymbolicState, gpr: Sequence[int | None], memory: Memory) -> RegistersAtStart | None:
    """Return the registers at the start of the analysis that produced `state`, or None if esp there stays unknown.

    `gpr` are the known register values at the instruction to which `state` belongs, and saved registers are read from
    `memory`. If esp in `state` depends on a guess, it is used only if no other register gives esp at the start.
    """
    bases: dict[int, int] = {}
    is_consistent = True
    for number in _ANCHOR_ORDER:
        symbolic, concrete = state.registers[number], gpr[number]
        if symbolic is None or concrete is None or symbolic.is_word:
            continue
        if number == SP and state.doubt:
            continue
        found = (concrete - symbolic.offset) & MASK
        if bases.setdefault(symbolic.base, found) != found and number in _FRAME_POINTERS and symbolic.base == SP:
            is_consistent = False
    sp, pointer = state.sp, gpr[SP]
    if sp is not None and not sp.is_word and sp.base not in bases and pointer is not None:
        bases[sp.base] = (pointer - sp.offset) & MASK
    saved = _saved(state, bases, memory)
    if SP not in bases:
        return None
    initial: list[int | None] = [None] * 8
    initial[SP] = bases[SP]
    for number in X86.nonvolatile:
        initial[number] = saved.get(number, bases.get(number))
    return RegistersAtStart(tuple(initial), is_consistent)


def evaluate(found: SymbolicValue | None, gpr: Sequence[int | None], memory: Memory) -> int | None:
    """Return the number that the symbolic value `found` stands for, or None if it is unknown.

    `gpr` are the registers at the start of the analysis. If `found` is a word of memory, the word is read from `memory`
    with its present contents.
    """
    if found is None:
        return None
    address = address_of(found, gpr)
    if address is None or not found.is_word:
        return address
    try:
        return memory.u32(address)
    except MemoryUnreadable:
        return None


def address_of(found: SymbolicValue | None, gpr: Sequence[int | None]) -> int | None:
    """Return base plus offset of the symbolic value `found`, or None if it is unknown.

    `gpr` are the registers at the start of the analysis. If the value is a word of memory, the result is its address.
    """
    if found is None:
        return None
    if found.base == CONSTANT:
        return found.offset & MASK
    base = gpr[found.base] if found.base < CONSTANT else None
    return None if base is None else (base + found.offset) & MASK


def _saved(state: SymbolicState, bases: dict[int, int], memory: Memory) -> dict[int, int]:
    """Read the registers that were saved in stack words, and return their values at the start by register number.

    `bases` maps the symbolic bases that are known to their values. Those that become known are added to it.
    """
    saved: dict[int, int] = {}
    sp = state.sp
    # Two words can hold "esi at the start": `push esi` in the prologue, and `push esi` again to pass it to a function,
    # which may have changed that argument. The word nearest to the caller was pushed first: it is the saved register.
    entries = sorted(
        ((key, held) for key, held in state.stack.items() if held is not None and not held.is_word),
        key=lambda entry: -entry[0][1],
    )
    for _ in range(_MAX_ROUNDS):
        size = len(bases)
        for (base, offset), held in entries:
            if base not in bases or held.base == CONSTANT or held.base in saved:
                continue
            # Below esp is a word that has been popped again; a later call may have overwritten it.
            if sp is not None and sp.base == base and not state.doubt and offset < sp.offset:
                continue
            try:
                found = (memory.u32((bases[base] + offset) & MASK) - held.offset) & MASK
            except MemoryUnreadable:
                continue
            bases.setdefault(held.base, found)
            if held.offset == 0:
                saved.setdefault(held.base, found)
        if len(bases) == size:
            break
    return saved
