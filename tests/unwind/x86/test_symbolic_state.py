# SPDX-License-Identifier: Apache-2.0
"""Symbolic registers and stack words, one change at a time."""

from __future__ import annotations

from throwstack.unwind.x86.decode import Indirect, Register
from throwstack.unwind.x86.symbolic_state import SymbolicState, SymbolicValue, constant, register_of, value

EAX, ECX, EBX, ESP, EBP = 0, 1, 3, 4, 5
EBX_AT_START = SymbolicValue(EBX, 0)


def memory(base: int | None, displacement: int, *, index: int | None = None, scale: int = 1) -> Indirect:
    return Indirect(base, index, scale, displacement, 4, has_segment=False)


def test_a_push_writes_a_word_that_a_pop_reads() -> None:
    pushed = SymbolicState().push(EBX_AT_START)
    assert pushed.sp == SymbolicValue(ESP, -4)
    assert pushed.load(pushed.sp) == EBX_AT_START
    popped, after = pushed.pop()
    assert (popped, after.sp) == (EBX_AT_START, SymbolicValue(ESP, 0))


def test_a_stack_word_not_written_has_its_value_at_function_start() -> None:
    popped, _ = SymbolicState().pop()
    assert popped == SymbolicValue(ESP, 0, is_word=True)
    assert popped.plus(4) is None  # what a word of memory plus 4 is cannot be said


def test_a_write_in_part_makes_the_word_unknown() -> None:
    saved = SymbolicState().push(EBX_AT_START)
    assert saved.store(SymbolicValue(ESP, -2), constant(0), size=1).load(saved.sp) is None
    assert saved.store(SymbolicValue(ESP, 0), constant(0), size=4).load(saved.sp) == EBX_AT_START


def test_a_write_through_an_unknown_pointer_hits_nothing_saved() -> None:
    saved = SymbolicState().push(EBX_AT_START)
    assert saved.store(None, constant(0)) == saved


def test_a_memory_operand_has_an_address_if_its_registers_are_known() -> None:
    state = SymbolicState().with_register(ECX, constant(3)).with_register(EAX, None)
    assert state.address(memory(ESP, 8)) == SymbolicValue(ESP, 8)
    assert state.address(memory(ESP, 8, index=ECX, scale=4)) == SymbolicValue(ESP, 20)
    assert state.address(memory(ESP, 8, index=EAX)) is None
    assert state.address(memory(ESP, 0, index=EBP)) is None  # a sum of two unknown addresses
    assert state.address(Indirect(None, None, 1, 0, 4, has_segment=True)) is None


def test_offsets_wrap_around_at_32_bits() -> None:
    assert value(ESP, 0xFFFFFFFC) == SymbolicValue(ESP, -4)
    assert constant(-1).constant == 0xFFFFFFFF
    assert value(ESP, 0).constant is None


def test_pushes_of_a_prologue_save_and_others_pass_arguments() -> None:
    entered = SymbolicState(is_from_entry=True)
    assert entered.push(EBX_AT_START).pushed == 0
    assert entered.push(constant(1)).pushed == 4
    assert entered.push(SymbolicValue(EAX, 0)).pushed == 4  # eax is volatile: nobody saves it
    assert SymbolicState().push(EBX_AT_START).pushed == 4  # in the middle of a function nothing is known to be a save


def test_push_ecx_makes_room_for_a_local_only_before_registers_are_saved() -> None:
    entered = SymbolicState(is_from_entry=True)
    ecx = SymbolicValue(ECX, 0)
    assert entered.push(ecx).pushed == 0
    assert entered.push(EBX_AT_START).push(ecx).pushed == 4


def test_esp_set_from_elsewhere_ends_doubts() -> None:
    doubtful = SymbolicState(doubt=2, pushed=8)
    restored = doubtful.set_sp(SymbolicValue(EBP, 0))
    assert (restored.doubt, restored.pushed, restored.sp) == (0, 0, SymbolicValue(EBP, 0))


def test_the_number_of_a_register_operand() -> None:
    assert register_of(Register(EBP)) == EBP
    assert register_of(memory(EBP, 0)) is None
