# SPDX-License-Identifier: Apache-2.0
"""Computes the registers at the start of an analysis from a symbolic state and the registers that are known there.

For example, a function has run `push ebp; mov ebp, esp; push ebx`, and the thread was stopped there with ebp = 12ff00h.
ebp is "esp at the start, minus 4": so esp was 12ff04h at the start. The word at 12ff00h is "ebp at the start" and the
one below it "ebx at the start": reading them gives both registers. Each fact found in this way can lead to the next
one, so that the search goes a few rounds.
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
    """The registers at the start of an analysis. `is_consistent` is False if two sources contradict each other."""

    gpr: tuple[int | None, ...]
    is_consistent: bool


def registers_at_start(state: SymbolicState, gpr: Sequence[int | None], memory: Memory) -> RegistersAtStart | None:
    """Return the registers at the start of the analysis that led to `state`, or None if esp there stays unknown.

    `gpr` are the registers at the place of `state`. A doubtful esp is used last, and contradicts nothing.
    """
    bases: dict[int, int] = {}
    is_consistent = True
    for number in _ANCHOR_ORDER:
        symbolic, concrete = state.registers[number], gpr[number]
        if symbolic is None or concrete is None or symbolic.is_word or symbolic.base == CONSTANT:
            continue
        if number == SP and state.doubt:
            continue
        found = (concrete - symbolic.offset) & MASK
        if bases.setdefault(symbolic.base, found) != found and number in _FRAME_POINTERS and symbolic.base == SP:
            is_consistent = False
    sp = state.sp
    if sp is not None and not sp.is_word and sp.base not in bases and gpr[SP] is not None:
        bases[sp.base] = (gpr[SP] or 0) - sp.offset & MASK
    saved = _saved(state, bases, memory)
    if SP not in bases:
        return None
    initial: list[int | None] = [None] * 8
    initial[SP] = bases[SP]
    for number in X86.nonvolatile:
        initial[number] = saved.get(number, bases.get(number))
    return RegistersAtStart(tuple(initial), is_consistent)


def evaluate(found: SymbolicValue | None, gpr: Sequence[int | None], memory: Memory) -> int | None:
    """Return the number that a value stands for, given the registers at the start, or None.

    A word is read from `memory` as it is now.
    """
    address = address_of(found, gpr)
    if found is None or address is None or not found.is_word:
        return address
    try:
        return memory.u32(address)
    except MemoryUnreadable:
        return None


def address_of(found: SymbolicValue | None, gpr: Sequence[int | None]) -> int | None:
    """Return base plus offset of a value, even if the value is the word at that address; None if it is unknown."""
    if found is None:
        return None
    if found.base == CONSTANT:
        return found.offset & MASK
    base = gpr[found.base] if found.base < CONSTANT else None
    return None if base is None else (base + found.offset) & MASK


def _saved(state: SymbolicState, bases: dict[int, int], memory: Memory) -> dict[int, int]:
    """Read the registers that were saved in stack words. Add to `bases` the bases that become known by them."""
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
            if base not in bases or held.base == CONSTANT or (held.base in bases and held.base in saved):
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
