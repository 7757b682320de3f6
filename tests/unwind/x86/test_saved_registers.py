# SPDX-License-Identifier: Apache-2.0
"""From a symbolic state and the registers that are known, back to the registers at the start."""

from __future__ import annotations

from tests.unwind.x86.machine import words
from throwstack.core.memory import memory_of
from throwstack.unwind.x86.saved_registers import address_of, evaluate, registers_at_start
from throwstack.unwind.x86.symbolic_state import SymbolicState, SymbolicValue, constant

EAX, EBX, ESP, EBP, ESI = 0, 3, 4, 5, 6
LOW = 0x12FF00
UNKNOWN: list[int | None] = [None] * 8


def known(**registers: int) -> list[int | None]:
    names = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
    return [registers.get(name) for name in names]


def frame() -> SymbolicState:
    """push ebp; mov ebp, esp; push esi; sub esp, 8."""
    state = SymbolicState(is_from_entry=True).push(SymbolicValue(EBP, 0))
    state = state.with_register(EBP, state.sp).push(SymbolicValue(ESI, 0))
    return state.with_register(ESP, SymbolicValue(ESP, -16)).with_register(ESI, None)


MEMORY = memory_of({LOW: words(0, 0, 0x51, 0x12FF80)})  # two locals, esi, ebp
AT_START = LOW + 16


def test_esp_leads_to_the_saved_registers() -> None:
    found = registers_at_start(frame(), known(esp=LOW, ebp=LOW + 12), MEMORY)
    assert (found.gpr[ESP], found.gpr[ESI], found.gpr[EBP]) == (AT_START, 0x51, 0x12FF80)
    assert found.is_consistent


def test_ebp_alone_gives_the_registers_at_the_start() -> None:
    found = registers_at_start(frame(), known(ebp=LOW + 12), MEMORY)
    assert (found.gpr[ESP], found.gpr[ESI]) == (AT_START, 0x51)


def test_esp_and_ebp_that_contradict_each_other_are_noted() -> None:
    assert not registers_at_start(frame(), known(esp=LOW, ebp=LOW + 40), MEMORY).is_consistent


def test_a_doubtful_esp_yields_to_ebp() -> None:
    doubtful = SymbolicState(frame().registers, frame().stack, doubt=1)
    found = registers_at_start(doubtful, known(esp=LOW + 4, ebp=LOW + 12), MEMORY)
    assert found.gpr[ESP] == AT_START
    assert found.is_consistent
    assert registers_at_start(doubtful, known(esp=LOW), MEMORY).gpr[ESP] == AT_START  # it is better than nothing


def test_without_esp_and_ebp_nothing_is_known() -> None:
    assert registers_at_start(frame(), UNKNOWN, MEMORY) is None


def test_a_register_that_nobody_changed_is_still_that_of_the_start() -> None:
    assert registers_at_start(frame(), known(esp=LOW, ebx=7), MEMORY).gpr[EBX] == 7
    assert registers_at_start(frame(), known(esp=LOW), MEMORY).gpr[EBX] is None
    assert registers_at_start(frame(), known(esp=LOW, eax=7), MEMORY).gpr[EAX] is None  # volatile


def test_what_was_saved_below_esp_has_been_popped_again() -> None:
    popped = SymbolicState(is_from_entry=True).push(SymbolicValue(ESI, 0)).pop()[1].with_register(ESI, None)
    assert registers_at_start(popped, known(esp=LOW + 12), MEMORY).gpr[ESI] is None


def test_of_two_words_the_one_nearest_to_the_caller_is_the_saved_register() -> None:
    """push esi; push esi: the second one passes esi as an argument, and the callee may have changed it."""
    state = SymbolicState().push(SymbolicValue(ESI, 0)).push(SymbolicValue(ESI, 0)).with_register(ESI, None)
    memory = memory_of({LOW: words(0xBAD, 0x51)})
    assert registers_at_start(state, known(esp=LOW), memory).gpr[ESI] == 0x51


def test_one_fact_leads_to_the_next() -> None:
    """A realigned frame: ebx points to the arguments, ebp is saved relative to it, esp counts from an `and`."""
    aligned = 0x401003
    state = SymbolicState().with_register(EBX, SymbolicValue(ESP, 4)).with_register(ESP, SymbolicValue(aligned, -8))
    state = state.store(SymbolicValue(ESP, -4), SymbolicValue(EBP, 0)).with_register(EBP, None)
    found = registers_at_start(state, known(ebx=LOW + 20, esp=LOW), MEMORY)
    assert (found.gpr[ESP], found.gpr[EBP]) == (LOW + 16, 0x12FF80)


def test_a_page_that_is_not_there_leaves_the_register_unknown() -> None:
    found = registers_at_start(frame(), known(esp=LOW), memory_of({}))
    assert (found.gpr[ESP], found.gpr[ESI]) == (AT_START, None)


def test_a_value_is_a_number_a_sum_or_a_word() -> None:
    gpr = known(esp=LOW)
    assert evaluate(constant(5), gpr, MEMORY) == 5
    assert evaluate(SymbolicValue(ESP, 8), gpr, MEMORY) == LOW + 8
    assert evaluate(SymbolicValue(ESP, 8, is_word=True), gpr, MEMORY) == 0x51
    assert address_of(SymbolicValue(ESP, 8, is_word=True), gpr) == LOW + 8
    assert evaluate(SymbolicValue(EBP, 0), gpr, MEMORY) is None
    assert evaluate(SymbolicValue(0x401003, 0), gpr, MEMORY) is None  # counted from an instruction
    assert evaluate(SymbolicValue(ESP, 0x10000, is_word=True), gpr, MEMORY) is None
    assert evaluate(None, gpr, MEMORY) is None
