# SPDX-License-Identifier: Apache-2.0
"""The caller of a frame, from the start of its function up to its place."""

from __future__ import annotations

import pytest

from tests.unwind.x86.assemble import EAX, EBP, EBX, ECX, ESI, ESP, JE, LEAVE, Assembler, add, mov, pop, push, ret, sub
from tests.unwind.x86.machine import TEXT, code_of, words
from throwstack.core.registers import Arch, Registers
from throwstack.unwind.x86.call_frame import Place
from throwstack.unwind.x86.callees import Callees
from throwstack.unwind.x86.prologue import Prologues

LOW = 0x12FF00
RETURN = 0x00401800


def program() -> Assembler:
    asm = Assembler(TEXT)
    asm.label("function").emit(push(EBP), mov(EBP, ESP)).label("in prologue").emit(push(ESI), sub(ESP, 8), "6a01")
    asm.call("callee").label("after call").emit(add(ESP, 8), pop(ESI)).label("in epilogue").emit(LEAVE)
    asm.label("at return").emit(ret(8)).align().label("callee").emit(ret(4)).align()
    asm.label("other").emit(ret())
    return asm


def rules(asm: Assembler, *stack: int) -> Prologues:
    code = code_of(asm, segments={LOW: words(*stack)})
    return Prologues(code, Callees(code))


def place(ip: int, sp: int, call_sp: int | None = None, **registers: int) -> Place:
    return Place(Registers.named(Arch.X86, {"eip": ip, "esp": sp, **registers}), call_sp)


def test_the_caller_of_a_frame_that_has_called() -> None:
    asm = program()
    # the argument of the call, two locals, esi, ebp, return address
    found = rules(asm, 1, 0, 0, 0x51, 0x12FF80, RETURN).caller(
        asm.labels["function"], place(asm.labels["after call"], LOW + 4, LOW, ebp=LOW + 16)
    )
    assert (found.slot, found.return_address) == (LOW + 20, RETURN)
    assert (found.call_sp, found.popped) == (LOW + 24, 8)
    assert (found.gpr[ESP], found.gpr[EBP], found.gpr[ESI]) == (LOW + 32, 0x12FF80, 0x51)
    assert found.is_consistent
    assert found.gpr[EAX] is None


def test_the_caller_of_a_frame_that_was_stopped_in_its_prologue_or_epilogue() -> None:
    asm = program()
    expected = {
        "function": ((RETURN,), 0),
        "in prologue": ((0x12FF80, RETURN), 4),
        "at return": ((RETURN,), 0),
    }
    for label, (stack, offset) in expected.items():
        found = rules(asm, *stack).caller(asm.labels["function"], place(asm.labels[label], LOW, ebp=LOW))
        assert (found.slot, found.return_address) == (LOW + offset, RETURN), label


def test_a_place_that_the_function_does_not_reach_has_no_caller() -> None:
    asm = program()
    prologues = rules(asm, RETURN)
    elsewhere = place(asm.labels["other"], LOW)
    assert prologues.caller(asm.labels["function"], elsewhere) is None
    assert prologues.reaches(asm.labels["function"], elsewhere) is False
    assert prologues.reaches(asm.labels["other"], elsewhere) is True


def test_after_a_jump_to_an_unknown_target_it_is_open_what_a_function_contains() -> None:
    asm = Assembler(TEXT)
    asm.label("function").emit("ffe0").align().label("other").emit(ret())
    assert rules(asm).reaches(asm.labels["function"], place(asm.labels["other"], LOW)) is None


def test_a_return_address_that_a_helper_has_popped_is_in_a_register() -> None:
    """`__SEH_epilog` begins with `pop ecx`."""
    asm = Assembler(TEXT)
    asm.label("helper").emit("59").label("here").emit(LEAVE, "51", ret())
    found = rules(asm).caller(asm.labels["helper"], place(asm.labels["here"], LOW + 4, ecx=RETURN, ebp=LOW + 8))
    assert found.is_in_register
    assert found.return_address == RETURN


def test_a_call_that_never_returns_is_told_by_the_depth_of_jumps_to_its_return_address() -> None:
    """`cmp; je next; push 1; push 2; call throw; next: ...`: jumps come to `next` with esp two words higher."""
    asm = Assembler(TEXT)
    asm.label("function").emit(sub(ESP, 8)).branch(JE, "next").emit("6a01", "6a02").call("throw").label("next")
    asm.emit(add(ESP, 8), ret()).align().label("throw").emit("cc")
    prologues = rules(asm)
    here = place(asm.labels["next"], LOW, LOW)
    assert not prologues.comes_back(asm.labels["function"], here)
    cdecl = Assembler(TEXT)
    cdecl.label("function").emit(sub(ESP, 8)).branch(JE, "next").call("callee").label("next")
    cdecl.emit(add(ESP, 8), ret()).align().label("callee").emit(ret())
    assert rules(cdecl).comes_back(cdecl.labels["function"], place(cdecl.labels["next"], LOW, LOW))


def test_registers_at_the_entry_of_a_function() -> None:
    asm = program()
    prologues = rules(asm, 1, 0, 0, 0x51, 0x12FF80, RETURN)
    inside = place(asm.labels["after call"], LOW + 4, LOW, ebx=7)
    gpr = prologues.at_entry(asm.labels["function"], inside)
    assert (gpr[ESP], gpr[EBP], gpr[EBX]) == (LOW + 20, 0x12FF80, 7)
    assert prologues.at_entry(asm.labels["other"], inside) is None


@pytest.mark.parametrize(("code", "name"), [("8bc4", "eax"), ("8bcc", "ecx"), ("8bd4", "edx")])
def test_after_a_call_volatile_registers_tell_nothing(code: str, name: str) -> None:
    """`mov eax, esp` before a call: eax now has what the call returned. Where esp is, is a guess since another call."""
    asm = Assembler(TEXT)
    asm.emit(push(EBX), "6a01", "ff16", code).call("callee").label("after call").emit(LEAVE, ret()).align()
    asm.label("callee").emit(ret())
    here = place(asm.labels["after call"], LOW, LOW, **{name: 0x1234})
    found = rules(asm, 0x77, RETURN).caller(TEXT, here)
    assert (found.slot, found.return_address, found.doubt) == (LOW + 4, RETURN, 1)
    assert found.gpr[EBX] == 0x77


def test_a_return_address_that_is_nowhere_gives_no_caller() -> None:
    asm = Assembler(TEXT)
    asm.label("function").emit("890424").label("here").emit(ret())  # mov [esp], eax
    assert rules(asm, RETURN).caller(TEXT, place(asm.labels["here"], LOW)) is None
    asm = Assembler(TEXT)
    asm.label("helper").emit("59").label("here").emit(push(ECX), ret())  # pop ecx, which is not known
    assert rules(asm, RETURN).caller(TEXT, place(asm.labels["here"], LOW + 4)) is None
    assert rules(program()).caller(TEXT, place(TEXT, 0x500000)) is None  # a stack that cannot be read
    assert rules(asm, RETURN).caller(TEXT, Place(Registers.named(Arch.X86, {"eip": TEXT + 0x100, "esp": LOW}))) is None


COPY = ("ff3424", "c744240400000000")
"""push [esp]; mov dword [esp+4], 0: the return address is a word further down than the call has put it."""


def test_a_helper_has_its_return_address_in_a_second_slot() -> None:
    asm = Assembler(TEXT)
    asm.emit(*COPY).label("here").emit(ret())
    found = rules(asm, RETURN, 0).caller(TEXT, place(asm.labels["here"], LOW))
    assert (found.slot, found.return_address, found.is_in_register) == (LOW, RETURN, False)
    assert (found.call_sp, found.popped) == (LOW + 8, 0)


def test_a_second_slot_below_esp_has_been_popped() -> None:
    asm = Assembler(TEXT)
    asm.emit(*COPY, pop(ECX)).label("here").emit(push(ECX), ret())
    found = rules(asm, 0, 0).caller(TEXT, place(asm.labels["here"], LOW, ecx=RETURN))
    assert (found.slot, found.return_address, found.is_in_register) == (LOW, RETURN, True)


def test_a_copy_through_another_pointer_is_no_slot() -> None:
    asm = Assembler(TEXT)
    asm.emit("8b0424", "8903", "c7042400000000").label("here").emit(ret())  # mov eax, [esp]; mov [ebx], eax
    found = rules(asm, 0).caller(TEXT, place(asm.labels["here"], LOW, eax=RETURN, ebx=LOW + 16))
    assert (found.slot, found.return_address, found.is_in_register) == (LOW, RETURN, True)


def test_a_function_without_a_return_removes_an_unknown_number_of_bytes() -> None:
    asm = Assembler(TEXT).emit("90").label("here").emit("ebfe")
    found = rules(asm, RETURN).caller(TEXT, place(asm.labels["here"], LOW))
    assert (found.popped, found.gpr[ESP], found.call_sp) == (None, LOW + 4, LOW + 4)


@pytest.mark.parametrize(("count", "reaches"), [(8191, True), (8192, None)])
def test_a_function_is_followed_for_8192_instructions(count: int, reaches: bool | None) -> None:
    asm = Assembler(TEXT).emit("90" * count).label("here").emit(ret())
    assert rules(asm).reaches(TEXT, place(asm.labels["here"], LOW)) is reaches


def test_a_function_is_followed_once() -> None:
    prologues = rules(program())
    assert prologues.flow(TEXT) is prologues.flow(TEXT)
    assert prologues.flow(TEXT) is not prologues.flow(TEXT + 1)


def throwing(before: str = "", *, jump: str = "next") -> Assembler:
    """A block that ends with a call, and another one to whose start jumps lead from two words higher."""
    asm = Assembler(TEXT)
    asm.emit(sub(ESP, 8)).branch(JE, jump).emit(before, "6a01", "6a02").call("throw").label("next")
    return asm.emit(add(ESP, 8), ret()).align().label("throw").emit("cc").label("elsewhere").emit("cc")


def comes_back(asm: Assembler, sp: int = LOW, call_sp: int | None = LOW, **options) -> bool:
    here = Place(Registers.named(Arch.X86, {"eip": asm.labels["next"], "esp": sp}), call_sp, **options)
    return rules(asm).comes_back(TEXT, here)


def test_only_jumps_that_certainly_come_from_another_depth_tell_that_a_call_does_not_return() -> None:
    assert not comes_back(throwing())
    assert comes_back(throwing(), LOW + 8)  # the callee has removed its two arguments: the depth is that of the jumps
    assert not comes_back(throwing(), LOW + 4)
    assert comes_back(throwing(), is_sp_exact=False)
    assert comes_back(throwing(), call_sp=None)
    assert comes_back(throwing(jump="elsewhere"))  # no jump leads there
    assert comes_back(throwing("6a00ff16"))  # esp is a guess since another call
    assert comes_back(throwing("83e4f8"))  # and esp, -8: depths that cannot be compared
    assert comes_back(throwing("0f45e0"))  # cmovne esp, eax
    assert rules(throwing()).comes_back(TEXT, place(throwing().labels["elsewhere"], LOW, LOW))


def test_without_esp_nothing_is_known_of_a_caller() -> None:
    asm = Assembler(TEXT).emit("0f45e0").label("here").emit(ret())  # cmovne esp, eax
    here = place(asm.labels["here"], LOW)
    assert rules(asm, RETURN).at_entry(TEXT, here) is None
    assert rules(asm, RETURN).caller(TEXT, here) is None


def test_after_a_helper_esp_is_what_the_helper_has_left() -> None:
    """push 5; call helper, which takes that word of its caller's frame: pop ecx; pop ebx; push ecx; ret."""
    asm = Assembler(TEXT)
    asm.emit("6a05").call("helper").label("after").emit(ret()).align().label("helper").emit("595b51c3")
    registers = Registers.named(Arch.X86, {"eip": asm.labels["after"], "esp": LOW + 4})
    found = rules(asm, 5, RETURN).caller(TEXT, Place(registers, LOW, is_past_helper=True))
    assert (found.slot, found.return_address) == (LOW + 4, RETURN)
