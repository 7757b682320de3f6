# SPDX-License-Identifier: Apache-2.0
"""The word above the kernel's copy that tells of the interrupted system call: which it is, and where it can be."""

from __future__ import annotations

import pytest

from tests.unwind.x86.assemble import EAX, EBX, ECX, EDX, ESP, Assembler, mov_value, ret
from tests.unwind.x86.machine import TEXT, code_of, words
from throwstack.core.frames import StackBounds
from throwstack.core.registers import Arch, Registers
from throwstack.unwind.x86.call_frame import Caller, Place
from throwstack.unwind.x86.callback import interrupted_system_call
from throwstack.unwind.x86.callees import Callees
from throwstack.unwind.x86.function_starts import FunctionStarts
from throwstack.unwind.x86.prologue import Prologues
from throwstack.unwind.x86.return_address import ReturnAddresses

LOW = 0x12FF00
AT_ENTRY = (1, 2, 3, 4, None, 6, 7, 8)
STUB = (mov_value(EAX, 0x11EE), mov_value(EDX, 0x7FFE0300), "ff12")


def program() -> Assembler:
    asm = Assembler(TEXT)
    asm.call("stub").label("after stub").call("other").label("after other").emit("ffd1").label("after register")
    asm.emit(ret()).align().label("stub").emit(*STUB).label("in stub").emit(ret(8)).align()
    asm.label("other").emit(ret())
    return asm


def interrupted(*stack: int | str, base: int | None = None) -> Caller | None:
    """What is found on a stack that begins at `LOW` with the dispatcher's two arguments. Words can be labels."""
    asm = program()
    held = [asm.labels[word] if isinstance(word, str) else word for word in stack]
    code = code_of(asm, segments={LOW: words(*held)})
    calls = ReturnAddresses(code, Prologues(code, Callees(code)), FunctionStarts(code))
    place = Place(Registers.named(Arch.X86, {"eip": TEXT, "esp": LOW + 8}), call_sp=LOW)
    bounds = StackBounds(LOW - 0x100, LOW + 4 * len(stack) if base is None else base)
    return interrupted_system_call(place, AT_ENTRY, bounds, code, calls)


def found_at(slot: int, *, sp: int) -> Caller:
    """The stub's frame, with the registers at the dispatcher's entry."""
    gpr = tuple(sp if number == ESP else value for number, value in enumerate(AT_ENTRY))
    return Caller(slot, program().labels["in stub"], sp, 0, gpr)


def test_the_word_above_the_copy_is_the_return_address_in_the_stub():
    """Its caller called it through ecx, so that the next word tells nothing of the stub."""
    found = interrupted(LOW + 8, 8, 0, 0, "in stub", "after register")
    assert found == found_at(LOW + 16, sp=LOW + 20)
    assert (found.gpr[EBX], found.gpr[ECX]) == (4, 2)


def test_the_word_above_the_copy_is_the_return_address_of_the_stub():
    assert interrupted(LOW + 8, 8, 0, 0, "after stub") == found_at(LOW + 12, sp=LOW + 16)


def test_words_that_earlier_calls_have_left_are_passed_over():
    stack = (LOW + 8, 4, 0, "after other", "after register", 7, "after stub")
    assert interrupted(*stack) == found_at(LOW + 20, sp=LOW + 24)
    assert interrupted(LOW + 8, 4, 0, "after other", "after register") is None


@pytest.mark.parametrize("size", [5, 6, 7, 8])
def test_the_copy_ends_at_a_whole_word(size):
    """Its last word holds a return address too: it was copied."""
    assert interrupted(LOW + 8, size, 0, "in stub", "in stub") == found_at(LOW + 16, sp=LOW + 20)
    assert interrupted(LOW + 8, size, 0, "in stub", 0) is None


def test_eight_words_above_the_copy_are_looked_at():
    assert interrupted(LOW + 8, 4, 0, *[0] * 7, "in stub") == found_at(LOW + 40, sp=LOW + 44)
    assert interrupted(LOW + 8, 4, 0, *[0] * 8, "in stub") is None


def test_a_copy_is_on_the_stack_above_its_address():
    assert interrupted(LOW, 8, "in stub") is None
    assert interrupted(LOW - 4, 12, "in stub") is None
    assert interrupted(LOW + 8, 4, 0, "in stub", base=LOW + 12) is None
    assert interrupted(LOW + 8, 0x100, 0, "in stub") is None


def test_a_copy_of_no_bytes_and_words_that_are_not_there_are_no_failure():
    assert interrupted(LOW + 8, 0, "in stub") == found_at(LOW + 8, sp=LOW + 12)
    assert interrupted(LOW + 8, 4, 0, 0, base=LOW + 0x100) is None
    assert interrupted(LOW + 8) is None
