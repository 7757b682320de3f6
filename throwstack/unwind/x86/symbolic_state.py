# SPDX-License-Identifier: Apache-2.0
"""Symbolic registers and stack words, which describe the effects of code when the actual values are not known.

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
"""The base of symbolic values that are plain numbers.

Bases below it are the numbers of registers. A higher base is the address of an instruction that set esp to an unknown
value (`and esp, -8`, an `alloca` of unknown size). It stands for esp after that instruction, and later values are
expressed relative to it.
"""

_HALF = 1 << 31
_ECX = 1


class SymbolicValue(NamedTuple):
    """A value that is `base` plus `offset`, or the word at that address if `is_word` is True.

    `base` is the number of a register and stands for its value at the start of the analysis, or it is `CONSTANT`
    (`offset` is the number itself), or the address of an instruction (see `CONSTANT`).
    """

    base: int
    offset: int
    is_word: bool = False

    def plus(self, delta: int) -> SymbolicValue | None:
        """Return the value plus `delta`, or None if the value is a word of memory: such sums are not tracked."""
        return None if self.is_word else value(self.base, self.offset + delta)

    @property
    def constant(self) -> int | None:
        """Return the number, or None if the value is not a constant."""
        return self.offset & MASK if self.base == CONSTANT and not self.is_word else None


def value(base: int, offset: int) -> SymbolicValue:
    """Return the symbolic value base + offset, with the offset wrapped to a signed 32-bit number."""
    return SymbolicValue(base, ((offset + _HALF) & MASK) - _HALF)


def constant(number: int) -> SymbolicValue:
    """Return a number as a symbolic value."""
    return value(CONSTANT, number)


Stack = Mapping[tuple[int, int], "SymbolicValue | None"]
INITIAL = tuple(SymbolicValue(number, 0) for number in range(8))


@dataclass(frozen=True, slots=True)
class SymbolicState:
    """The symbolic values of the registers and of the written stack words before an instruction.

    `registers` are the values of the eight registers, None if unknown. `stack` maps the address (base, offset) of each
    word that was written to its value. `pushed` is the number of pushed bytes that may be arguments of the next call.
    `doubt` is the number of calls whose stack adjustment was guessed and on which esp still depends. `is_from_entry` is
    True if the analysis began at a function's first instruction. `may_have_pushed` is True if it began at an
    instruction before which arguments of the first call may have been pushed already.
    """

    registers: tuple[SymbolicValue | None, ...] = INITIAL
    stack: Stack = field(default_factory=dict)
    pushed: int = 0
    doubt: int = 0
    is_from_entry: bool = False
    may_have_pushed: bool = False

    @property
    def sp(self) -> SymbolicValue | None:
        """Return the symbolic value of esp, or None if it is unknown."""
        return self.registers[SP]

    def with_register(self, number: int, new: SymbolicValue | None) -> SymbolicState:
        """Return the state with the register `number` set to `new`, which is None for an unknown value."""
        registers = self.registers
        return self._with((*registers[:number], new, *registers[number + 1 :]))

    def without(self, numbers: tuple[int, ...]) -> SymbolicState:
        """Return the state with the registers `numbers` unknown."""
        known = [number for number in numbers if self.registers[number] is not None]
        if not known:
            return self
        return self._with(tuple(None if number in known else old for number, old in enumerate(self.registers)))

    def _with(self, registers: tuple[SymbolicValue | None, ...]) -> SymbolicState:
        """Return the state with other `registers`; `dataclasses.replace` would take far longer."""
        return SymbolicState(registers, self.stack, self.pushed, self.doubt, self.is_from_entry, self.may_have_pushed)

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
        """Return the word at `address`, or None if it is unknown.

        If the word was written, the result is the written value. Otherwise it is the word that was there at the start.
        """
        if address is None or address.is_word:
            return None
        key = (address.base, address.offset)
        if key in self.stack:
            return self.stack[key]
        return SymbolicValue(address.base, address.offset, is_word=True)

    def store(self, address: SymbolicValue | None, new: SymbolicValue | None, size: int = 4) -> SymbolicState:
        """Return the state after `new` was written to `address` with a size of `size` bytes.

        A write to a fixed address does not change the state, and neither does a write to an unknown address. The latter
        could hit any stack word, but it is assumed to hit no saved register and no return address, because compiled
        code has no pointers to them. The assumption is needed because almost every function writes through some
        pointer.
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
        """Return the state after a push of `new`."""
        sp = self.sp.plus(-4) if self.sp is not None else None
        size = 0 if self._is_save(new) else 4
        return replace(self.with_register(SP, sp).store(sp, new), pushed=self.pushed + size)

    def _is_save(self, new: SymbolicValue | None) -> bool:
        """Say whether a push of `new` saves a register or allocates a local variable, and does not pass an argument.

        Compilers write `push ecx` for `sub esp, 4`, because it is shorter. A __thiscall or __fastcall function that
        passes ecx on as an argument contains the same instruction. The two are told apart by their order: locals are
        allocated before any register other than ebp is saved.
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
        """Return the state with esp set to `new`, which is not computed from the old esp, so that `doubt` becomes 0."""
        return replace(self.with_register(SP, new), doubt=0, pushed=0)


def register_of(operand: object) -> int | None:
    """Return the number of a register operand, or None if the operand is of another kind."""
    return operand.number if isinstance(operand, Register) else None
