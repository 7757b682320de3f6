# SPDX-License-Identifier: Apache-2.0
"""Callers by the layout of a frame pointer, and by that of a call that went nowhere, from words written down."""

from __future__ import annotations

import pytest

from tests.unwind.x86.assemble import Assembler
from tests.unwind.x86.machine import TEXT, code_of, words
from throwstack.core.frames import StackBounds
from throwstack.core.memory import memory_of
from throwstack.core.registers import Arch, Registers
from throwstack.unwind.x86.call_frame import Caller, Place
from throwstack.unwind.x86.callees import Callees
from throwstack.unwind.x86.fixed_layouts import after_call_only, caller_at, chain_goes_on
from throwstack.unwind.x86.function_starts import FunctionStarts
from throwstack.unwind.x86.prologue import Prologues
from throwstack.unwind.x86.return_address import ReturnAddresses

LOW = 0x12FF00
RETURN = 0x00401800
STACK = StackBounds(LOW, LOW + 0x40)
PROGRAM = Assembler(TEXT).emit("ffd0").label("after call").emit("c3")
AFTER_CALL = PROGRAM.labels["after call"]


def with_sp(sp: int, bp: int | None = None) -> tuple[int | None, ...]:
    return None, None, None, None, sp, bp, None, None


def test_the_saved_ebp_is_at_ebp_and_the_return_address_above_it():
    memory = memory_of({LOW: words(0x12FF80, RETURN)})
    assert caller_at(LOW, 8, memory) == Caller(LOW + 4, RETURN, LOW + 8, 8, with_sp(LOW + 16, 0x12FF80))
    assert caller_at(LOW, None, memory) == Caller(LOW + 4, RETURN, LOW + 8, None, with_sp(LOW + 8, 0x12FF80))
    assert caller_at(LOW + 0x1000, 8, memory) is None


def test_at_the_end_of_the_address_space_it_goes_on_at_zero():
    memory = memory_of({0xFFFFF000: bytes(0xFFC) + words(7), 0: words(RETURN)})
    assert caller_at(0xFFFFFFFC, 0, memory) == Caller(0, RETURN, 4, 0, with_sp(4, 7))


def goes_on(bp: int | None, *stack: int, slot: int = LOW + 4, stack_base: int = STACK.base) -> bool:
    """Whether the chain goes on at `bp`, on a stack with words from `LOW` on."""
    code = code_of(PROGRAM, segments={LOW: words(*stack)})
    calls = ReturnAddresses(code, Prologues(code, Callees(code)), FunctionStarts(code))
    caller = Caller(slot, RETURN, slot + 4, None, with_sp(slot + 4, bp))
    return chain_goes_on(caller, StackBounds(LOW, stack_base), code.memory, calls)


@pytest.mark.parametrize(("saved", "returns"), [(5, AFTER_CALL), (0, AFTER_CALL), (0, 0)])
def test_the_next_pair_has_a_return_address_or_is_the_last_one(saved: int, returns: int):
    assert goes_on(LOW + 8, 0, 0, saved, returns)


@pytest.mark.parametrize(("saved", "returns"), [(5, 0), (0, 5), (1, 0), (0, 1), (5, TEXT)])
def test_a_pair_without_a_return_address_is_none(saved: int, returns: int):
    assert not goes_on(LOW + 8, 0, 0, saved, returns)


@pytest.mark.parametrize(
    ("bp", "is_on"),
    [(None, False), (LOW + 4, False), (LOW + 8, True), (LOW + 10, False), (LOW + 0x38, True), (LOW + 0x3C, False)],
)
def test_the_next_pair_is_aligned_and_further_up_the_stack(bp: int | None, *, is_on: bool):
    """The return address is in the word at `LOW` + 4. All words serve, but those of the stack alone count."""
    assert goes_on(bp, *[AFTER_CALL] * 20) == is_on


def test_a_pair_is_on_the_stack_as_a_whole():
    """The base that the TEB names may be damaged: here it is 1 byte below the end of the pair."""
    assert not goes_on(LOW + 8, *[AFTER_CALL] * 8, stack_base=LOW + 0xF)
    assert goes_on(LOW + 8, *[AFTER_CALL] * 8, stack_base=LOW + 0x10)


def test_a_pair_on_the_slot_of_the_return_address_is_not_further_up():
    assert not goes_on(LOW + 4, *[AFTER_CALL] * 8, slot=LOW + 4)
    assert goes_on(LOW + 4, *[AFTER_CALL] * 8, slot=LOW)


def test_a_pair_that_cannot_be_read_is_none():
    code = code_of(PROGRAM)
    calls = ReturnAddresses(code, Prologues(code, Callees(code)), FunctionStarts(code))
    caller = Caller(LOW + 4, RETURN, LOW + 8, None, with_sp(LOW + 8, LOW + 8))
    assert not chain_goes_on(caller, STACK, code.memory, calls)


def test_a_call_that_went_nowhere_leaves_the_nonvolatile_registers():
    registers = {"eip": 0, "esp": LOW, "eax": 1, "ecx": 2, "edx": 3, "ebx": 4, "ebp": 5, "esi": 6, "edi": 7}
    place = Place(Registers.named(Arch.X86, registers))
    found = after_call_only(place, memory_of({LOW: words(RETURN)}))
    assert found == Caller(LOW, RETURN, LOW + 4, None, (None, None, None, 4, LOW + 4, 5, 6, 7))
    assert after_call_only(place, memory_of({})) is None
