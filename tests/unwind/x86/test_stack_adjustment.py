# SPDX-License-Identifier: Apache-2.0
"""How many bytes of arguments a callee removes: its `ret n`, or what the caller does after the call."""

from __future__ import annotations

import pytest

from tests.unwind.x86.assemble import EAX, EBX, ECX, ESP, JE, Assembler, add, mov, pop, push, ret, sub
from tests.unwind.x86.machine import DATA, TEXT, code_of, words
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
    assert reallocated_bytes(code(sub(ESP, 0x400), push(EAX)), TEXT) == 0x400
    assert reallocated_bytes(code(sub(ESP, 0x401), push(EAX)), TEXT) == 0  # more than arguments can be


def test_add_esp_4_is_recognized() -> None:
    assert is_add_esp_4(code(add(ESP, 4)).at(TEXT))
    assert not is_add_esp_4(code(add(ESP, 8)).at(TEXT))
    assert not is_add_esp_4(code(add(EBX, 4)).at(TEXT))


def test_a_search_for_the_return_follows_jumps_tables_and_branches_but_no_other_function() -> None:
    asm = Assembler(TEXT)
    asm.jump("far").emit(ret(4)).label("far").emit("90", ret(8))
    assert popped_bytes(code_of(asm), TEXT) == 8
    asm = Assembler(TEXT)
    asm.emit("ff2485", DATA.to_bytes(4, "little"), ret(4)).align().label("case").emit(ret(8))
    assert popped_bytes(code_of(asm, segments={DATA: words(asm.labels["case"])}), TEXT) == 8
    assert popped_bytes(code_of(Assembler(TEXT).emit("ffe0", ret(4))), TEXT) is None  # jmp eax
    assert popped_bytes(code_of(Assembler(TEXT).emit("cc", ret(4))), TEXT) is None
    assert popped_bytes(code_of(Assembler(TEXT).emit("0f0a", ret(4))), TEXT) is None  # no instruction
    asm = Assembler(TEXT)
    asm.label("function").call("throw").label("next").emit(ret(4)).align().label("throw").emit("cc")
    assert popped_bytes(code_of(asm, functions=("function", "next")), TEXT) is None
    assert popped_bytes(code_of(asm, functions=("function",)), TEXT) == 4
    assert popped_bytes(code_of(asm), DATA) is None


def test_of_ways_with_equally_many_calls_the_shorter_one_is_taken() -> None:
    asm = Assembler(TEXT)
    asm.branch(JE, "short").emit("90", "90", ret(8)).label("short").emit(ret(4))
    assert popped_bytes(code_of(asm), TEXT) == 4
    asm = Assembler(TEXT)
    asm.branch(JE, "twice").call("f").emit(ret(8)).label("twice").call("f").call("f").emit(ret(4)).label("f").emit("cc")
    assert popped_bytes(code_of(asm), TEXT) == 8
    asm = Assembler(TEXT)
    asm.branch(JE, "long").call("f").emit(ret(4)).label("long").emit("90" * 9, ret(8)).label("f").emit("cc")
    assert popped_bytes(code_of(asm), TEXT) == 8


@pytest.mark.parametrize(("count", "size"), [(1999, 8), (2000, None)])
def test_a_return_is_searched_for_in_two_thousand_instructions(count: int, size: int | None) -> None:
    assert popped_bytes(code("90" * count, ret(8)), TEXT) == size


def test_each_instruction_is_followed_once() -> None:
    found = code_of(Assembler(TEXT).label("loop").emit("90").branch(JE, "loop").branch(JE, "loop").emit("cc"))
    assert popped_bytes(found, TEXT) is None
    assert found.work_done == 6  # four instructions, and the two ways back


def test_many_places_of_a_function_cost_no_more_than_its_code() -> None:
    """A function that calls itself at 100 places: the search from each goes on to where another one has begun."""
    asm = Assembler(TEXT)
    for number in range(100):
        asm.emit("90" * 8).call("other").label(f"after {number}")
    asm.emit(ret(8)).align().label("other").emit("cc")
    found, known = code_of(asm), {}
    for number in reversed(range(100)):
        assert popped_bytes(found, asm.labels[f"after {number}"], known) == 8
    # Of each nine instructions, the place that is known, and the `ret` that is known beyond calls.
    assert found.work_done == 1 + 10 + 98 * 11
    assert popped_bytes(found, TEXT, {}) == 8
    assert known[asm.labels["after 99"]] == (0, 8)
    assert known[asm.labels["after 0"]] == (99, 8)


def test_a_way_that_is_known_is_taken_only_if_it_has_the_fewest_calls() -> None:
    """The code of the branch ends with a call that never returns, and another function follows."""
    asm = Assembler(TEXT)
    asm.branch(JE, "fails").call("f").emit(ret(4)).align()
    asm.label("fails").emit("90").label("known").call("f").call("f").emit(ret(8)).align().label("f").emit("cc")
    known = {}
    assert popped_bytes(code_of(asm), asm.labels["known"], known) == 8
    assert known[asm.labels["known"]] == (2, 8)
    assert popped_bytes(code_of(asm), TEXT, known) == 4
    assert popped_bytes(code_of(asm), asm.labels["fails"], known) == 8
    assert known[TEXT] == (1, 4)
    assert known[asm.labels["fails"]] == (2, 8)
    assert asm.labels["f"] not in known


def test_a_way_that_is_known_is_taken_in_its_turn() -> None:
    """Both ways have one call: the branch is looked at first, whether the other way is known or not."""
    asm = Assembler(TEXT)
    asm.branch(JE, "branch").label("straight").call("f").emit(ret(8)).label("branch").call("f").emit(ret(4))
    found, known = code_of(asm.align().label("f").emit("cc")), {}
    assert popped_bytes(found, TEXT) == 4
    assert popped_bytes(found, asm.labels["straight"], known) == 8
    assert popped_bytes(found, TEXT, known) == 4


def test_no_search_goes_on_from_a_place_that_is_known_to_lead_to_a_return_without_a_call() -> None:
    asm = Assembler(TEXT).emit("90" * 3).label("epilogue").emit("90" * 3, ret(4))
    found, known = code_of(asm), {}
    assert popped_bytes(found, asm.labels["epilogue"], known) == 4
    before = found.work_done
    assert popped_bytes(found, TEXT, known) == 4
    assert found.work_done - before == 4
    assert known[TEXT] == (0, 4)


@pytest.mark.parametrize(
    ("after_call", "size"),
    [
        (("90", "90", sub(ESP, 8), push(EAX)), 8),  # the third instruction
        (("90", "90", "90", sub(ESP, 8), push(EAX)), 0),
        ((sub(ESP, 0x400), push(EAX)), 0x400),
        ((sub(ESP, 0x404), push(EAX)), 0),
        ((sub(EBX, 8), "cc"), 0),
        ((add(ESP, 8), "cc"), 0),
        (("2be0", "cc"), 0),  # sub esp, eax
        (("0f0a",), 0),
        ((sub(ESP, 8), "dd1b"), 8),  # fstp qword [ebx]
        ((sub(ESP, 8), "890424"), 8),  # mov [esp], eax: stored as GCC does it
        ((sub(ESP, 8), "0f0a"), 8),
        ((sub(ESP, 8), "d9ee"), 8),  # fldz
    ],
)
def test_what_gcc_allocates_again_is_near_and_no_more_than_arguments(after_call: tuple[bytes | str, ...], size) -> None:
    assert reallocated_bytes(code(*after_call), TEXT) == size


@pytest.mark.parametrize("end", ["e800000000", "eb00", "7400", "c3", "cc", "c9", "50", "c8000000", "60", "9c"])
def test_where_an_argument_of_another_call_can_begin_nothing_more_is_looked_at(end: str) -> None:
    assert reallocated_bytes(code(end, sub(ESP, 8), push(EAX)), TEXT) == 0
    assert dropped_bytes(code(end, add(ESP, 8), push(EAX)), TEXT) == (0, end != "c3")


@pytest.mark.parametrize(
    ("after_call", "size", "is_certain"),
    [
        (("90" * 6, add(ESP, 8), push(EAX)), 8, True),
        (("90" * 7, add(ESP, 8), ret()), 8, True),  # the eighth instruction is the last one
        (("90" * 8, add(ESP, 8), push(EAX)), 0, True),
        ((pop(ECX), pop(EBX), ret()), 4, False),  # an argument, then a saved register
        ((pop(ECX), add(ESP, 4), push(EAX)), 4, True),
        ((add(EBX, 8), push(EAX)), 0, True),
        (("03e0", push(EAX)), 0, True),  # add esp, eax
        ((sub(ESP, 8), push(EAX)), 0, True),
        (("0f0a",), 0, False),
    ],
)
def test_what_is_dropped_after_a_call_is_near(after_call: tuple[bytes | str, ...], size: int, *, is_certain) -> None:
    assert dropped_bytes(code(*after_call), TEXT) == (size, is_certain)


def test_only_add_esp_4_is_add_esp_4() -> None:
    assert not is_add_esp_4(code(sub(ESP, 4)).at(TEXT))
