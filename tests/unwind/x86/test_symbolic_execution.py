# SPDX-License-Identifier: Apache-2.0
"""What instructions do to a symbolic state: assembled bytes, and the registers and words after them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unwind.x86.assemble import (
    EAX,
    EBP,
    EBX,
    ECX,
    EDI,
    EDX,
    ESI,
    ESP,
    LEAVE,
    add,
    and_,
    lea,
    load,
    mov,
    mov_value,
    pop,
    push,
    store,
    sub,
)
from throwstack.core.memory import memory_of
from throwstack.unwind.x86.decode import Decoder, Indirect
from throwstack.unwind.x86.symbolic_execution import execute, operand_value
from throwstack.unwind.x86.symbolic_state import SymbolicState, SymbolicValue, constant

AT = 0x401000


def after(*parts: bytes | str, state: SymbolicState | None = None) -> SymbolicState:
    """The state after all instructions of `parts`."""
    code = b"".join(bytes.fromhex(part) if isinstance(part, str) else part for part in parts)
    decoder = Decoder(memory_of({AT: code}))
    state = SymbolicState() if state is None else state
    address = AT
    while address < AT + len(code):
        instruction = decoder.at(address)
        assert instruction is not None
        state, address = execute(state, instruction), instruction.end
    return state


def at_start(register: int, offset: int = 0) -> SymbolicValue:
    return SymbolicValue(register, offset)


def test_a_prologue_with_a_frame_pointer_saves_ebp_and_sets_it() -> None:
    state = after(push(EBP), mov(EBP, ESP), sub(ESP, 0x10), push(ESI))
    assert state.registers[EBP] == at_start(ESP, -4)
    assert state.sp == at_start(ESP, -0x18)
    assert state.stack[ESP, -4] == at_start(EBP)
    assert state.stack[ESP, -0x18] == at_start(ESI)


def test_leave_undoes_a_prologue_with_a_frame_pointer() -> None:
    state = after(push(EBP), mov(EBP, ESP), sub(ESP, 0x10), LEAVE)
    assert (state.registers[EBP], state.sp) == (at_start(EBP), at_start(ESP))


def test_enter_is_push_mov_and_sub() -> None:
    assert after("c8100000") == after(push(EBP), mov(EBP, ESP), sub(ESP, 0x10))


def test_an_alignment_makes_a_new_base_for_esp() -> None:
    state = after(push(EBP), mov(EBP, ESP), and_(ESP, -8), sub(ESP, 0x10))
    assert state.sp == SymbolicValue(AT + 3, -0x10)  # counted from the `and`
    assert state.registers[EBP] == at_start(ESP, -4)


@pytest.mark.parametrize(
    ("code", "register", "expected"),
    [
        (mov_value(EAX, 5), EAX, constant(5)),
        (mov_value(EAX, 5) + sub(EAX, 2), EAX, constant(3)),
        ("33c0", EAX, constant(0)),  # xor eax, eax
        ("33c1", EAX, None),  # xor eax, ecx
        ("83c8ff", EAX, constant(0xFFFFFFFF)),  # or eax, -1
        ("83c801", EAX, None),  # or eax, 1
        ("83e000", EAX, constant(0)),  # and eax, 0
        ("93", EBX, SymbolicValue(EAX, 0)),  # xchg eax, ebx
        ("8ac1", EAX, None),  # mov al, cl
        (lea(EDX, ESP, 8), EDX, SymbolicValue(ESP, 8)),
        (load(ECX, ESP, 4), ECX, SymbolicValue(ESP, 4, is_word=True)),
        (load(ECX, EDX, 4) + load(EBX, ECX, 0), EBX, None),  # through a word that is not known
    ],
)
def test_an_instruction_gives_a_register_its_symbolic_value(
    code: bytes | str, register: int, expected: SymbolicValue | None
) -> None:
    assert after(code).registers[register] == expected


def test_a_store_with_mov_saves_a_register_as_a_push_does() -> None:
    state = after(sub(ESP, 8), store(ESP, 4, EBX), mov_value(EBX, 1), load(EBX, ESP, 4), add(ESP, 8))
    assert state.registers[EBX] == at_start(EBX)
    assert state.sp == at_start(ESP)


def test_popad_restores_what_pushad_saved() -> None:
    state = after("60", mov_value(EBX, 1), "61")
    assert state.registers[EBX] == at_start(EBX)
    assert state.sp == at_start(ESP)


def test_a_pop_under_a_doubtful_esp_restores_nothing() -> None:
    doubtful = SymbolicState(doubt=1)
    assert after(push(EBX), pop(ESI)).registers[ESI] == at_start(EBX)
    assert after(push(EBX), pop(ESI), state=doubtful).registers[ESI] is None


def test_a_doubt_about_esp_ends_where_esp_comes_from_ebp() -> None:
    doubtful = SymbolicState(doubt=1)
    assert after(lea(ESP, EBP, -8), state=doubtful).doubt == 0
    assert after(lea(ESP, ESP, 8), state=doubtful).doubt == 1


def test_arguments_that_the_caller_drops_are_no_longer_pushed() -> None:
    assert after("6a01", "6a02").pushed == 8
    assert after("6a01", "6a02", add(ESP, 4)).pushed == 4


def test_a_word_of_another_size_than_four_bytes_has_no_value() -> None:
    word, byte = (Indirect(ESP, None, 1, 0, size, has_segment=False) for size in (4, 1))
    assert operand_value(SymbolicState(), word) == SymbolicValue(ESP, 0, is_word=True)
    assert operand_value(SymbolicState(), byte) is None


@pytest.mark.parametrize(
    ("code", "register", "expected"),
    [
        ("21c0", EAX, at_start(EAX)),  # and eax, eax
        ("21c8", EAX, None),  # and eax, ecx
        (mov_value(EAX, 0xF0F) + bytes.fromhex("25ff000000"), EAX, constant(0xF)),  # and eax, 0FFh
        ("25ff000000", EAX, None),
        ("83e001", EAX, None),  # and eax, 1
        (mov_value(ECX, 8) + bytes.fromhex("03c1"), EAX, at_start(EAX, 8)),  # add eax, ecx
        ("03c1", EAX, None),  # add eax, ecx: a sum of two unknown numbers
        ("2bc1", EAX, None),
        ("83042408", EAX, at_start(EAX)),  # add dword [esp], 8
        ("678d07", EAX, None),  # lea eax, [bx]: nobody addresses by half a register
        ("870424", EAX, SymbolicValue(ESP, 0, is_word=True)),  # xchg [esp], eax
        ("31c0", EAX, constant(0)),  # xor eax, eax the other way
        (mov_value(ECX, -1) + bytes.fromhex("0bc1"), EAX, constant(-1)),  # or eax, ecx
    ],
)
def test_arithmetic_gives_a_register_its_symbolic_value(
    code: bytes | str, register: int, expected: SymbolicValue | None
) -> None:
    assert after(code).registers[register] == expected


def test_an_addition_to_a_value_that_is_not_known_is_not_known() -> None:
    unknown = SymbolicState().with_register(EAX, None)
    assert after(add(EAX, 4), state=unknown).registers[EAX] is None
    assert after("83e0ff", state=unknown).registers[EAX] is None  # and eax, -1
    assert after("83e000", state=unknown).registers[EAX] == constant(0)
    assert after("83c8ff", state=unknown).registers[EAX] == constant(-1)
    assert after(mov(ECX, EAX), "0bd1", state=unknown).registers[EDX] is None  # or edx, ecx


@pytest.mark.parametrize("code", ["832424f8", "830c2401", "ff0424", "870c24", "310424"])
def test_an_operation_on_a_saved_word_makes_it_unknown(code: str) -> None:
    """`and`, `or`, `inc`, `xchg` and `xor` with the word at esp, which held ebx."""
    saved = SymbolicState().push(at_start(EBX)).with_register(ECX, None)
    assert after(code, state=saved).stack[ESP, -4] is None


def test_a_comparison_with_a_saved_word_leaves_it_as_it_was() -> None:
    state = after(push(EBX), "391c24")  # cmp [esp], ebx
    assert state.stack[ESP, -4] == at_start(EBX)
    state = after(push(EBX), "67ff07")  # inc dword [bx]
    assert state.stack[ESP, -4] == at_start(EBX)


def test_a_word_on_the_stack_is_counted_up() -> None:
    state = after(push(EBX), "83042408")  # add dword [esp], 8
    assert state.stack[ESP, -4] == at_start(EBX, 8)
    state = after("6a00", "834c2400ff")  # push 0; or dword [esp+0], -1
    assert state.stack[ESP, -4] == constant(-1)


def test_an_exchange_swaps_a_register_and_a_word() -> None:
    state = after(push(EBX), "870c24")  # xchg [esp], ecx
    assert (state.registers[ECX], state.stack[ESP, -4]) == (at_start(EBX), at_start(ECX))


def test_esp_from_a_register_that_is_not_known_counts_from_there() -> None:
    state = after(mov(ESP, EAX), push(EBX), state=SymbolicState(pushed=8, doubt=1).with_register(EAX, None))
    assert state.sp == SymbolicValue(AT, -4)
    assert (state.doubt, state.pushed) == (0, 4)
    state = after(mov(EBX, EAX), state=SymbolicState(pushed=8, doubt=1).with_register(EAX, None))
    assert (state.registers[EBX], state.doubt, state.pushed) == (None, 1, 8)


def test_esp_that_is_computed_from_esp_is_as_doubtful_as_before() -> None:
    doubtful = SymbolicState(doubt=1)
    for code in (add(ESP, 8), sub(ESP, 8), and_(ESP, -8)):
        assert after(code, state=doubtful).doubt == 1
    assert after(mov(ESP, EBP), state=doubtful).doubt == 0
    conditional = after("0f45e0", state=SymbolicState(doubt=1, pushed=8))  # cmovne esp, eax
    assert (conditional.sp, conditional.doubt, conditional.pushed) == (None, 0, 0)
    other = after("0f45d8", state=SymbolicState(doubt=1, pushed=8))  # cmovne ebx, eax
    assert (other.sp, other.doubt, other.pushed, other.registers[EBX]) == (at_start(ESP), 1, 8, None)


def test_pushad_saves_all_registers_with_esp_as_it_was_before() -> None:
    state = after("60")
    assert state.stack == {(ESP, -4 - 4 * number): at_start(number) for number in range(8)}
    assert state.sp == at_start(ESP, -32)


def test_popad_restores_all_registers_but_esp() -> None:
    changed = after("60", *(mov_value(register, 1) for register in (EAX, ECX, EDX, EBX, EBP, ESI, EDI)))
    assert after("61", state=changed) == replace(SymbolicState(), stack=changed.stack)
    wrong = changed.store(at_start(ESP, -20), constant(5))  # the word of esp, which popad leaves out
    assert after("61", state=wrong).sp == at_start(ESP)


def test_popad_under_a_doubtful_esp_restores_nothing() -> None:
    state = after("60", "61", state=SymbolicState(doubt=1))
    assert [state.registers[number] for number in (EAX, ECX, EDX, EBX, EBP, ESI, EDI)] == [None] * 7


def test_only_a_helper_s_return_address_is_popped_for_certain_under_a_doubtful_esp() -> None:
    doubtful = SymbolicState(doubt=1)
    assert after("6805104000", pop(ECX), state=doubtful).registers[ECX] == constant(0x401005)
    assert after("6805104000", pop(EDX), state=doubtful).registers[EDX] is None
    assert after(push(EBX), pop(ECX), state=doubtful).registers[ECX] is None
    assert after(pop(ECX), state=doubtful.push(None)).registers[ECX] is None
    assert after("6805104000", pop(EDX)).registers[EDX] == constant(0x401005)


def test_flags_take_a_word_on_the_stack() -> None:
    state = after("9c")
    assert (state.sp, state.stack) == (at_start(ESP, -4), {(ESP, -4): None})
    assert after("9c", "9d").sp == at_start(ESP)


def test_arguments_end_where_locals_are_allocated_and_count_down_as_they_are_dropped() -> None:
    pushed = after("6a01", "6a02")
    assert after(add(ESP, 8), state=pushed).pushed == 0
    assert after(add(ESP, 12), state=pushed).pushed == 0  # and a local
    assert after(add(ESP, 0), state=pushed).pushed == 8
    assert after(sub(ESP, 8), state=pushed).pushed == 0
    assert after(add(EAX, 8), state=pushed).pushed == 8
    assert after("c8100000", state=pushed).pushed == 0  # enter


def test_enter_of_a_nested_level_is_not_followed() -> None:
    state = after("c8100001")  # enter 10h, 1: pushes ebp once more
    assert (state.sp, state.registers[EBP]) == (None, at_start(ESP, -4))


def test_without_esp_a_frame_is_entered_and_left_without_it() -> None:
    unknown = SymbolicState().with_register(ESP, None)
    for code in ("c8100000", push(EBX), pop(EBX), "60", "61", "9c", "9d"):
        assert after(code, state=unknown).sp is None
