# SPDX-License-Identifier: Apache-2.0
"""From a symbolic state and the registers that are known, back to the registers at the start."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unwind.x86.machine import words
from throwstack.core.memory import memory_of
from throwstack.unwind.x86.saved_registers import address_of, evaluate, registers_at_start
from throwstack.unwind.x86.symbolic_state import SymbolicState, SymbolicValue, constant

EAX, EBX, ESP, EBP, ESI, EDI = 0, 3, 4, 5, 6, 7
NAMES = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
LOW = 0x12FF00
UNKNOWN: list[int | None] = [None] * 8


def known(**registers: int) -> list[int | None]:
    return [registers.get(name) for name in NAMES]


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
    assert address_of(None, gpr) is None


def at_start_from(state: SymbolicState, memory=MEMORY, **registers: int):
    return registers_at_start(state, known(**registers), memory)


@pytest.mark.parametrize("name", ["ebp", "ebx", "esi", "edi", "eax", "ecx", "edx"])
def test_any_register_that_points_into_the_frame_tells_where_it_began(name: str) -> None:
    """`mov esi, esp` in the prologue: esi is "esp at the start, minus 8"."""
    number = NAMES.index(name)
    state = SymbolicState().with_register(ESP, None).with_register(number, SymbolicValue(ESP, -8))
    found = at_start_from(state, **{name: LOW})
    assert found.gpr == tuple(LOW + 8 if each == ESP else None for each in range(8))


def test_frame_pointers_are_believed_before_the_other_registers() -> None:
    """On another path esi was a count: it is no longer what the state says."""
    state = SymbolicState().with_register(ESP, None).with_register(ESI, SymbolicValue(ESP, -8))
    for number, name in ((EBP, "ebp"), (EBX, "ebx")):
        both = state.with_register(number, SymbolicValue(ESP, -4))
        found = at_start_from(both, **{name: LOW, "esi": 3})
        assert found.gpr[ESP] == LOW + 4
        assert found.is_consistent


def test_esp_is_believed_before_frame_pointers_and_these_can_contradict_it() -> None:
    for number, name in ((EBP, "ebp"), (EBX, "ebx"), (ESI, "esi")):
        state = SymbolicState().with_register(number, SymbolicValue(ESP, -8))
        found = at_start_from(state, esp=LOW, **{name: LOW + 40})
        assert found.gpr[ESP] == LOW
        assert found.is_consistent == (number == ESI)  # esi may have been something else on another path


def test_registers_that_contradict_each_other_about_another_register_than_esp_are_no_contradiction() -> None:
    state = SymbolicState().with_register(EBP, SymbolicValue(EBX, 4))
    assert at_start_from(state, esp=LOW, ebp=LOW + 4, ebx=7).is_consistent


def test_a_register_with_a_word_of_memory_tells_nothing_of_the_start() -> None:
    """`mov ebp, [esp+4]` and `mov esp, [esp+4]`."""
    word = SymbolicValue(ESP, 4, is_word=True)
    state = SymbolicState().with_register(ESP, None).with_register(EBP, word)
    assert at_start_from(state, esp=LOW, ebp=LOW) is None
    assert at_start_from(SymbolicState().with_register(ESP, word), esp=LOW) is None
    assert at_start_from(SymbolicState().with_register(EBP, constant(5)), esp=LOW, ebp=9).gpr[ESP] == LOW


def test_a_word_at_esp_itself_is_still_there() -> None:
    state = SymbolicState().push(SymbolicValue(ESI, 0)).with_register(ESI, None)
    assert at_start_from(state, memory_of({LOW: words(0x51)}), esp=LOW).gpr[ESI] == 0x51


def test_below_a_doubtful_esp_a_saved_register_may_be_there_all_the_same() -> None:
    """The guess says that `push esi` was popped again. ebp, which is certain, leads to its word."""
    doubtful = replace(frame().with_register(ESP, SymbolicValue(ESP, -4)), doubt=1)
    assert at_start_from(doubtful, ebp=LOW + 12).gpr[ESI] == 0x51
    assert at_start_from(replace(doubtful, doubt=0), ebp=LOW + 12).gpr[ESI] is None
    unknown = frame().with_register(ESP, None)
    assert at_start_from(unknown, ebp=LOW + 12).gpr[ESI] == 0x51


def test_only_words_below_esp_of_the_same_base_are_gone() -> None:
    """A realigned frame: esp counts from the `and`, the saved registers from esp at the start."""
    state = SymbolicState().with_register(EBX, SymbolicValue(ESP, 4)).with_register(ESP, SymbolicValue(0x401003, -8))
    state = state.store(SymbolicValue(ESP, -12), SymbolicValue(EBP, 0)).with_register(EBP, None)
    assert at_start_from(state, ebx=LOW + 28, esp=LOW).gpr[EBP] == 0x12FF80


def test_of_two_stores_the_one_nearest_to_the_caller_is_the_saved_register() -> None:
    """The argument was stored first: `mov [esp], esi; mov [esp+4], esi`."""
    state = SymbolicState().with_register(ESP, SymbolicValue(ESP, -8)).with_register(ESI, None)
    for offset in (-8, -4):
        state = state.store(SymbolicValue(ESP, offset), SymbolicValue(ESI, 0))
    assert at_start_from(state, memory_of({LOW: words(0xBAD, 0x51)}), esp=LOW).gpr[ESI] == 0x51


def test_a_register_that_was_saved_as_it_was_goes_before_a_sum_with_it() -> None:
    """`lea eax, [esi+4]; push eax; push esi`: the first word is an argument, the second one the saved register."""
    state = SymbolicState().push(SymbolicValue(ESI, 4)).push(SymbolicValue(ESI, 0)).with_register(ESI, None)
    memory = memory_of({LOW: words(0x51, 0xBAD)})
    assert at_start_from(state, memory, esp=LOW).gpr[ESI] == 0x51
    alone = SymbolicState().push(SymbolicValue(ESI, 4)).with_register(ESI, None)
    assert at_start_from(alone, memory_of({LOW: words(0x55)}), esp=LOW).gpr[ESI] == 0x51


def test_a_word_that_was_copied_from_memory_is_no_saved_register() -> None:
    """`push [esp+8]` in a function of which only ebx is known: an argument is passed on."""
    state = SymbolicState().with_register(ESP, None)
    state = state.store(SymbolicValue(EBX, 4), SymbolicValue(ESP, 8, is_word=True))
    assert at_start_from(state, ebx=LOW) is None
    unknown = SymbolicState().push(None)
    assert at_start_from(unknown, esp=LOW).gpr[ESP] == LOW + 4


def test_facts_lead_to_facts_in_four_rounds() -> None:
    """Each register was saved below an address that the one before it holds, and the words are read top down."""
    chain = ((ESP, EBP), (EBP, 0x401003), (0x401003, EBX), (EBX, ESI), (ESI, EDI))
    state, memory, at = SymbolicState(), {}, LOW + 0x100
    for index, (base, held) in enumerate(chain):
        state = state.store(SymbolicValue(base, 4 * index), SymbolicValue(held, 0))
        memory[at + 4 * index], at = words(at + 0x100), at + 0x100
    for number in (EBX, EBP, ESI, EDI):
        state = state.with_register(number, None)
    found = at_start_from(state, memory_of(memory), esp=LOW + 0x100)
    assert (found.gpr[EBP], found.gpr[EBX], found.gpr[ESI]) == (LOW + 0x200, LOW + 0x400, LOW + 0x500)
    assert found.gpr[EDI] is None
