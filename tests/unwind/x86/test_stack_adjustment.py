# SPDX-License-Identifier: Apache-2.0
"""How many bytes of arguments a callee removes: its `ret n`, or what the caller does after the call."""

from __future__ import annotations

import pytest

from tests.unwind.x86.assemble import EAX, EBX, ECX, ESP, JE, Assembler, add, mov, pop, push, ret, sub
from tests.unwind.x86.machine import TEXT, code_of
from throwstack.unwind.x86.stack_adjustment import dropped_bytes, is_add_esp_4, popped_bytes, reallocated_bytes


def code(*parts: bytes | str):
    return code_of(Assembler(TEXT).emit(*parts))


def test_a_function_removes_as_many_bytes_as_its_return_says() -> None:
    assert popped_bytes(code(push(EBX), pop(EBX), ret(12)), TEXT) == 12
    assert popped_bytes(code(push(EBX), pop(EBX), ret()), TEXT) == 0


def test_the_return_past_the_fewest_calls_is_taken() -> None:
    """Straight on there is a call before the return of another function; the branch leads to this one's own."""
    asm = Assembler(TEXT)
    asm.branch(JE, "own").call("other").emit(ret(8)).label("own").emit(ret(4)).align().label("other").emit(ret())
    assert popped_bytes(code_of(asm), TEXT) == 4


def test_code_without_a_return_says_nothing() -> None:
    assert popped_bytes(code("ebfe"), TEXT) is None  # jumps to itself
    assert popped_bytes(code("cc"), TEXT) is None


@pytest.mark.parametrize(
    ("after_call", "size", "is_certain"),
    [
        (add(ESP, 8) + push(EAX), 8, True),  # cdecl: the caller drops its two arguments
        (mov(EAX, EBX) + add(ESP, 8) + push(EAX), 8, True),  # after another instruction
        (pop(ECX) + pop(ECX) + push(EAX), 8, True),  # the short form
        (add(ESP, 8) + ret(), 8, False),  # as likely the function's own locals
        (pop(EBX) + ret(), 0, False),  # a saved register
        (add(ESP, 8) + add(ESP, 0x10) + ret(), 8, True),  # arguments, then locals
        (push(EAX), 0, True),  # stdcall: nothing is left to drop
    ],
)
def test_what_a_caller_drops_after_a_call(after_call: bytes, size: int, *, is_certain: bool) -> None:
    assert dropped_bytes(code(after_call), TEXT) == (size, is_certain)


def test_gcc_allocates_again_what_the_callee_removed() -> None:
    assert reallocated_bytes(code(sub(ESP, 8), push(EAX)), TEXT) == 8
    assert reallocated_bytes(code(mov(EBX, EAX), sub(ESP, 8), push(EAX)), TEXT) == 8


def test_room_for_the_next_argument_is_not_allocated_again() -> None:
    assert reallocated_bytes(code(sub(ESP, 8), "dd1c24"), TEXT) == 0  # fstp qword [esp]
    assert reallocated_bytes(code(push(EAX), sub(ESP, 8)), TEXT) == 0
    assert reallocated_bytes(code(sub(ESP, 0x1000), push(EAX)), TEXT) == 0  # more than arguments can be


def test_add_esp_4_is_recognized() -> None:
    assert is_add_esp_4(code(add(ESP, 4)).at(TEXT))
    assert not is_add_esp_4(code(add(ESP, 8)).at(TEXT))
    assert not is_add_esp_4(code(add(EBX, 4)).at(TEXT))
