# SPDX-License-Identifier: Apache-2.0
"""Symbolic registers and stack words, one change at a time."""

from __future__ import annotations

import pytest

from throwstack.unwind.x86.decode import Indirect, Register
from throwstack.unwind.x86.symbolic_state import INITIAL, SymbolicState, SymbolicValue, constant, register_of, value

EAX, ECX, EDX, EBX, ESP, EBP = 0, 1, 2, 3, 4, 5
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


def test_an_address_takes_constants_in_either_place_and_scaled() -> None:
    state = SymbolicState().with_register(ECX, constant(3)).with_register(EAX, SymbolicValue(ESP, 4, is_word=True))
    assert state.address(memory(ECX, 8)) == constant(11)
    assert state.address(memory(ECX, 8, index=ESP)) == SymbolicValue(ESP, 11)
    assert state.address(memory(ECX, 8, index=ECX, scale=4)) == constant(23)
    assert state.address(memory(None, 0x402000)) == constant(0x402000)
    assert state.address(memory(None, 0, index=EBX, scale=2)) is None  # twice an address that is not known
    assert state.address(memory(EBX, 8, index=ESP)) is None
    assert state.address(memory(EAX, 0)) is None  # a word of memory plus nothing: not tracked
    assert state.address(memory(EBX, 8)) == SymbolicValue(EBX, 8)


def test_fixed_addresses_and_words_at_unknown_addresses_are_not_tracked() -> None:
    state, word = SymbolicState(), SymbolicValue(EBX, 4, is_word=True)
    assert state.store(constant(0x402000), EBX_AT_START) is state
    assert state.store(word, EBX_AT_START) is state
    assert state.load(word) is None
    assert state.load(None) is None
    assert state.load(SymbolicValue(EBX, 4)) == word


@pytest.mark.parametrize(("offset", "size"), [(-7, 4), (-6, 4), (-5, 4), (-3, 1), (-2, 2), (-1, 1), (-6, 8), (-7, 8)])
def test_a_write_that_overlaps_a_word_makes_it_unknown(offset: int, size: int) -> None:
    saved = SymbolicState().push(EBX_AT_START)
    assert saved.store(SymbolicValue(ESP, offset), constant(0), size).load(saved.sp) is None


@pytest.mark.parametrize(("offset", "size"), [(-8, 4), (0, 4), (-6, 2), (-5, 1), (-12, 8), (1, 1)])
def test_a_write_beside_a_word_leaves_it(offset: int, size: int) -> None:
    saved = SymbolicState().push(EBX_AT_START)
    assert saved.store(SymbolicValue(ESP, offset), constant(0), size).load(saved.sp) == EBX_AT_START


def test_a_write_through_another_base_leaves_a_word_and_of_other_sizes_nothing_is_kept() -> None:
    saved = SymbolicState().push(EBX_AT_START)
    assert saved.store(SymbolicValue(EBP, -2), constant(0)).load(saved.sp) == EBX_AT_START
    assert saved.store(SymbolicValue(ESP, -4), constant(1), 8).load(saved.sp) is None
    assert saved.store(SymbolicValue(ESP, -4), constant(1)).load(saved.sp) == constant(1)


@pytest.mark.parametrize(
    ("number", "expected"),
    [(0x7FFFFFFF, 0x7FFFFFFF), (0x80000000, -0x80000000), (0xFFFFFFFF, -1), (1 << 32, 0), (-0x80000001, 0x7FFFFFFF)],
)
def test_offsets_are_signed_numbers_of_32_bits(number: int, expected: int) -> None:
    assert value(ESP, number).offset == expected
    assert constant(number).constant == number & 0xFFFFFFFF
    assert SymbolicValue(8, 5, is_word=True).constant is None


def test_only_what_is_pushed_whole_from_a_nonvolatile_register_is_a_save() -> None:
    entered = SymbolicState(is_from_entry=True)
    assert entered.push(None).pushed == 4
    assert entered.push(SymbolicValue(EBX, 4)).pushed == 4
    assert entered.push(SymbolicValue(EBX, 0, is_word=True)).pushed == 4
    assert entered.push(SymbolicValue(EBP, 0)).pushed == 0
    assert entered.push(EBX_AT_START).push(EBX_AT_START).pushed == 0
    assert entered.push(SymbolicValue(EDX, 0)).pushed == 4


def test_push_ecx_passes_an_argument_after_another_one_or_after_a_save() -> None:
    entered, ecx = SymbolicState(is_from_entry=True), SymbolicValue(ECX, 0)
    assert entered.push(SymbolicValue(EBP, 0)).push(ecx).push(ecx).pushed == 0  # ebp, and two locals
    assert entered.push(constant(1)).push(ecx).pushed == 8
    assert entered.store(SymbolicValue(ESP, -8), None).push(ecx).pushed == 0
    assert entered.store(SymbolicValue(ESP, -8), EBX_AT_START).push(ecx).pushed == 4


def test_arguments_are_counted_in_words_and_never_below_none() -> None:
    state = SymbolicState(pushed=8)
    assert state.push(constant(1)).pushed == 12
    assert state.pop()[1].pushed == 4
    assert SymbolicState().pop()[1].pushed == 0
    unknown = SymbolicState().with_register(ESP, None)
    assert unknown.push(constant(1)).sp is None
    popped, after = unknown.pop()
    assert (popped, after.sp) == (None, None)


def test_a_register_is_set_alone_and_several_are_forgotten_together() -> None:
    state = SymbolicState().with_register(EBX, constant(1))
    assert state.registers == (*(SymbolicValue(n, 0) for n in range(3)), constant(1), *INITIAL[4:])
    assert tuple(SymbolicValue(number, 0) for number in range(8)) == INITIAL
    assert SymbolicState().without((EAX, ECX)).registers == (None, None, *INITIAL[2:])
    fresh = SymbolicState()
    assert (fresh.pushed, fresh.doubt, fresh.is_from_entry, fresh.may_have_pushed) == (0, 0, False, False)
    assert not SymbolicValue(EBX, 0).is_word
