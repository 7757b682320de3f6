# SPDX-License-Identifier: Apache-2.0
"""What instructions do to a symbolic state: assembled bytes, and the registers and words after them."""

from __future__ import annotations

import pytest

from tests.unwind.x86.assemble import (
    EAX,
    EBP,
    EBX,
    ECX,
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
from throwstack.unwind.x86.decode import Decoder
from throwstack.unwind.x86.symbolic_execution import execute
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
