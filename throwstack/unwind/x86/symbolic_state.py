# SPDX-License-Identifier: Apache-2.0
"""Symbolic registers and stack words, which show the effects of code on them without knowing their values.

An analysis starts at a function's first instruction, or at the instruction at which a thread was stopped. The values of
the eight registers there are its symbols. Every later value is one of four: a symbol plus a constant, the word of
memory at such an address, a constant, or unknown. For example, after `push ebx; mov ebx, [esp+8]` esp is "esp at the
start, minus 4", the word there is "ebx at the start", and ebx is "the word at: esp at the start, plus 4".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from throwstack.core.registers import BP, SP, X86
from throwstack.unwind.x86.decode import MASK, Indirect, Register

CONSTANT = 8
"""The base of values that are plain numbers.

A higher base is the address of an instruction that made esp uncertain (`and esp, -8`, an `alloca` of unknown size):
values after it are known relative to esp after that instruction.
"""

_HALF = 1 << 31
_ECX = 1


class SymbolicValue(NamedTuple):
    """`base` plus `offset`, or the word at that address; `base` is a register's number, `CONSTANT` or more."""

    base: int
    offset: int
    is_word: bool = False

    def plus(self, delta: int) -> SymbolicValue | None:
        """Return the value plus `delta`; None for a word of memory, whose sums are not followed."""
        return None if self.is_word else value(self.base, self.offset + delta)

    @property
    def constant(self) -> int | None:
        """Return the number, or None if the value is not a constant."""
        return self.offset & MASK if self.base == CONSTANT and not self.is_word else None


def value(base: int, offset: int) -> SymbolicValue:
    """Return base + offset, the offset kept as a signed 32-bit number."""
    return SymbolicValue(base, ((offset + _HALF) & MASK) - _HALF)


def constant(number: int) -> SymbolicValue:
    """Return a number as a value."""
    return value(CONSTANT, number)


Stack = Mapping[tuple[int, int], "SymbolicValue | None"]
INITIAL = tuple(SymbolicValue(number, 0) for number in range(8))


@dataclass(frozen=True, slots=True)
class SymbolicState:
    """Registers and written stack words before an instruction.

    `stack` maps (base, offset) of a word that was written to its value. `pushed` counts the bytes that may be arguments
    of the next call. `doubt` counts the calls whose stack adjustment was guessed and on which esp still depends.
    `is_from_entry` says that the analysis began at a function's first instruction, `may_have_pushed` that it began
    where arguments of the first call may have been pushed already.
    """

    registers: tuple[SymbolicValue | None, ...] = INITIAL
    stack: Stack = field(default_factory=dict)
    pushed: int = 0
    doubt: int = 0
    is_from_entry: bool = False
    may_have_pushed: bool = False

    @property
    def sp(self) -> SymbolicValue | None:
        """Return esp."""
        return self.registers[SP]

    def with_register(self, number: int, new: SymbolicValue | None) -> SymbolicState:
        """Return the state with one register changed."""
        registers = self.registers
        return replace(self, registers=(*registers[:number], new, *registers[number + 1 :]))

    def without(self, numbers: tuple[int, ...]) -> SymbolicState:
        """Return the state with some registers unknown."""
        registers = tuple(None if number in numbers else old for number, old in enumerate(self.registers))
        return replace(self, registers=registers)

    def address(self, operand: Indirect) -> SymbolicValue | None:
        """Return the address of a memory operand, or None if it is unknown."""
        if operand.has_segment:
            return None
        total = constant(operand.displacement)
        for number, scale in ((operand.base, 1), (operand.index, operand.scale)):
            if number is None:
                continue
            part = self.registers[number]
            if part is None or part.is_word:
                return None
            if part.base == CONSTANT:
                total = value(total.base, total.offset + part.offset * scale)
            elif scale == 1 and total.base == CONSTANT:
                total = value(part.base, part.offset + total.offset)
            else:
                return None
        return total

    def load(self, address: SymbolicValue | None) -> SymbolicValue | None:
        """Return the word at an address: the value that was written there, or else the word at the start."""
        if address is None or address.is_word:
            return None
        key = (address.base, address.offset)
        if key in self.stack:
            return self.stack[key]
        return SymbolicValue(address.base, address.offset, is_word=True)

    def store(self, address: SymbolicValue | None, new: SymbolicValue | None, size: int = 4) -> SymbolicState:
        """Return the state after a write of `size` bytes.

        A write through an unknown pointer could hit anything. It is taken to hit no saved register and no return
        address: compiled code has no pointers to them, and almost every function writes through some pointer.
        """
        if address is None or address.is_word or address.base == CONSTANT:
            return self
        stack = dict(self.stack)
        for offset in range(address.offset - 3, address.offset + size):
            if offset != address.offset and (address.base, offset) in stack:
                stack[(address.base, offset)] = None
        stack[(address.base, address.offset)] = new if size == 4 else None
        return replace(self, stack=stack)

    def push(self, new: SymbolicValue | None) -> SymbolicState:
        """Return the state after a push."""
        sp = self.sp.plus(-4) if self.sp is not None else None
        size = 0 if self._is_save(new) else 4
        return replace(self.with_register(SP, sp).store(sp, new), pushed=self.pushed + size)

    def _is_save(self, new: SymbolicValue | None) -> bool:
        """Say whether a push saves a register or makes room for a local variable, and does not pass an argument.

        Compilers write `push ecx` for `sub esp, 4`, because it is shorter. A __thiscall or __fastcall function passes
        ecx on with the same instruction. Room for locals is made before registers other than ebp are saved.
        """
        if not self.is_from_entry or new is None or new.is_word or new.offset:
            return False
        if new.base != _ECX or self.pushed:
            return new.base in X86.nonvolatile
        return all(held is None or held.base in {BP, _ECX} for held in self.stack.values())

    def pop(self) -> tuple[SymbolicValue | None, SymbolicState]:
        """Return the word on top of the stack, and the state after it was popped."""
        sp = self.sp
        popped = self.with_register(SP, sp.plus(4) if sp is not None else None)
        return self.load(sp), replace(popped, pushed=max(self.pushed - 4, 0))

    def set_sp(self, new: SymbolicValue | None) -> SymbolicState:
        """Return the state with esp set from a value other than esp, which removes all doubts about it."""
        return replace(self.with_register(SP, new), doubt=0, pushed=0)


def register_of(operand: object) -> int | None:
    """Return the number of a register operand, or None."""
    return operand.number if isinstance(operand, Register) else None
