# SPDX-License-Identifier: Apache-2.0
"""Which functions are helpers and stack probes, and where the search for that ends."""

from __future__ import annotations

import pytest

from tests.unwind.x86.assemble import EAX, EBP, EBX, ECX, EDI, EDX, ESP, LEAVE, Assembler, lea, mov, pop, push, ret
from tests.unwind.x86.machine import TEXT, code_of
from throwstack.unwind.x86.callees import CalleeKind, Callees
from throwstack.unwind.x86.symbolic_state import SymbolicState, SymbolicValue, constant

TAIL = bytes.fromhex("595b51c3")
"""pop ecx; pop ebx; push ecx; ret: takes a word of its caller's frame, as helpers do."""
CHKSTK = ("51", lea(ECX, ESP, 8), "2bc8", mov(ESP, ECX), ret())
NOP = b"\x90"


def kind(*parts: bytes | str, **others: tuple[bytes | str, ...]) -> CalleeKind:
    """The kind of the function that `parts` are; `others` follow it."""
    asm = Assembler(TEXT)
    asm.emit(*parts).align()
    for name, code in others.items():
        asm.label(name).emit(*code).align()
    return Callees(code_of(asm)).at(TEXT).kind


def calling(called: tuple[bytes | str, ...], *, before: bytes = b"") -> CalleeKind:
    """The kind of a function that calls another one and then does what helpers do."""
    asm = Assembler(TEXT)
    asm.emit(before).call("called").emit(TAIL).align().label("called").emit(*called)
    return Callees(code_of(asm)).at(TEXT).kind


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (TAIL, CalleeKind.HELPER),
        (pop(ECX) + push(ECX) + ret(), CalleeKind.ORDINARY),
        (bytes.fromhex("bb05000000c3"), CalleeKind.HELPER),  # mov ebx, 5; ret: ebx is changed for the caller
        (bytes.fromhex("0f45d8c3"), CalleeKind.ORDINARY),  # cmovne ebx, eax; ret: it is not known that it is changed
        (bytes.fromhex("890424c3"), CalleeKind.HELPER),  # mov [esp], eax; ret: returns elsewhere
        (bytes.fromhex("59c3"), CalleeKind.HELPER),  # pop ecx; ret: returns to its caller's caller
        (bytes.fromhex("8b0c24890c2483c4f8ff742408c3"), CalleeKind.HELPER),  # esp is lower afterwards
        (bytes.fromhex("9cc3"), CalleeKind.ORDINARY),  # pushfd; ret: nobody knows where to
        (bytes.fromhex("0f45e0c3"), CalleeKind.ORDINARY),  # cmovne esp, eax
        (push(EBP) + mov(EBP, ESP) + mov(ESP, EBP) + pop(EBP) + ret(), CalleeKind.ORDINARY),
        (NOP * 60 + TAIL, CalleeKind.HELPER),  # 64 instructions
        (NOP * 61 + TAIL, CalleeKind.ORDINARY),
    ],
)
def test_a_helper_is_told_by_what_it_does_to_its_caller(code: bytes, expected: CalleeKind) -> None:
    assert kind(code) is expected


def test_a_helper_may_call_functions_that_are_known_and_take_no_arguments() -> None:
    """`__SEH_epilog4_GS` calls `__security_check_cookie`."""
    assert calling((ret(),)) is CalleeKind.HELPER
    assert calling((ret(4),), before=bytes.fromhex("6a01")) is CalleeKind.ORDINARY  # an argument
    assert calling(("cc",)) is CalleeKind.ORDINARY  # what it does to esp is not known
    assert calling((TAIL,)) is CalleeKind.ORDINARY  # a helper's helper
    assert calling((ret(),), before=bytes.fromhex("0f45e0")) is CalleeKind.ORDINARY  # where esp is, is not known
    assert kind("ffd0", TAIL) is CalleeKind.ORDINARY  # call eax


def test_a_call_in_a_helper_changes_volatile_registers_and_removes_arguments() -> None:
    """pop edi; call f; ...; push edi; ret, where f removes 4 bytes: the helper leaves esp 4 bytes higher."""
    asm = Assembler(TEXT)
    asm.call("helper").label("after").emit("cc").align()
    asm.label("helper").emit("5f").call("called").emit("57", ret()).align().label("called").emit(ret(4))
    code = code_of(asm)
    state = Callees(code).after_call(SymbolicState(is_from_entry=True), code.at(TEXT))
    assert (state.sp, state.pushed, state.doubt) == (SymbolicValue(ESP, 4), 0, 0)
    assert [state.registers[number] for number in (EAX, ECX, EDX, EBX)] == [None, None, None, SymbolicValue(EBX, 0)]


def test_the_arguments_of_a_helper_are_not_those_of_the_functions_that_it_calls() -> None:
    """push 8; call helper; the helper calls f, and returns its argument in edi: pop ecx; pop edi; push ecx; ret."""
    asm = Assembler(TEXT)
    asm.emit("6a08").label("call").call("helper").emit("cc").align()
    asm.label("helper").call("f").emit("595f51", ret()).align().label("f").emit(ret())
    code = code_of(asm)
    callees = Callees(code)
    assert callees.at(asm.labels["helper"]).kind is CalleeKind.HELPER
    before = SymbolicState(is_from_entry=True).push(constant(8))
    state = callees.after_call(before, code.at(asm.labels["call"]))
    assert before.pushed == 4
    assert (state.sp, state.registers[EDI], state.pushed, state.doubt) == (SymbolicValue(ESP, 0), constant(8), 0, 0)


def test_calls_of_calls_are_looked_at_three_deep() -> None:
    """Each function calls the next one and then does what helpers do.

    A function that calls a helper is none, and of one that is too deep it is not known. So the kinds alternate from
    the fourth one outwards, and the first one is a helper.
    """
    asm = Assembler(TEXT)
    for number in range(8):
        asm.label(str(number)).call(str(number + 1)).emit(TAIL).align()
    asm.label("8").emit(TAIL)
    callees = Callees(code_of(asm))
    assert callees.at(asm.labels["0"]).kind is CalleeKind.HELPER
    assert callees.at(asm.labels["1"]).kind is CalleeKind.HELPER  # what was found on the way is not kept
    assert callees.at(asm.labels["7"]).kind is CalleeKind.ORDINARY
    assert callees.at(asm.labels["6"]).kind is CalleeKind.HELPER


def test_each_callee_is_looked_at_once() -> None:
    asm = Assembler(TEXT)
    asm.emit(NOP * 30, ret(4))
    code = code_of(asm)
    callees = Callees(code)
    assert (callees.at(TEXT).popped, callees.popped_bytes(TEXT)) == (4, 4)
    work = code.work_done
    assert (callees.at(TEXT).popped, callees.popped_bytes(TEXT), code.work_done) == (4, 4, work)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (CHKSTK, CalleeKind.PROBE),
        (("8be0",), CalleeKind.PROBE),  # mov esp, eax
        (("8be2",), CalleeKind.PROBE),  # mov esp, edx
        ((NOP * 39, "94"), CalleeKind.PROBE),  # the fortieth instruction
        ((NOP * 40, "94", ret()), CalleeKind.HELPER),
        ((ret(), "94"), CalleeKind.ORDINARY),
        (("cc94",), CalleeKind.ORDINARY),
        ((LEAVE, mov(ESP, ECX), ret()), CalleeKind.HELPER),
        (("e80000000094",), CalleeKind.ORDINARY),  # after a call
        (("ffe094",), CalleeKind.ORDINARY),  # after a jump to nowhere
        (("06" * 3, "0f"), CalleeKind.ORDINARY),  # no code
        (("93", "93", ret()), CalleeKind.ORDINARY),  # xchg eax, ebx
        (("8bc1", ret()), CalleeKind.ORDINARY),  # mov eax, ecx
        (("8be3", ret()), CalleeKind.HELPER),  # mov esp, ebx
        (("03e1", ret()), CalleeKind.HELPER),  # add esp, ecx
        ((lea(ESP, ECX, 0), ret()), CalleeKind.HELPER),
    ],
)
def test_a_stack_probe_is_told_by_how_it_sets_esp(code: tuple[bytes | str, ...], expected: CalleeKind) -> None:
    assert kind(*code) is expected


@pytest.mark.parametrize(
    ("first", "popped"),
    [
        ("83e10f", None),  # and ecx, 15, as in _alloca_probe_16
        ("81e1ff0f0000", None),  # and ecx, 0FFFh: to whole pages
        ("81e100100000", 0),  # and ecx, 1000h: a bit is asked
        ("2500f0ffff", 0),  # and eax, 0FFFFF000h, as in _chkstk
        ("23ca", 0),  # and ecx, edx
        ("83e80f", 0),  # sub eax, 15
    ],
)
def test_a_probe_that_rounds_the_size_up_allocates_an_unknown_size(first: str, popped: int | None) -> None:
    asm = Assembler(TEXT)
    asm.emit("51", lea(ECX, ESP, 8), first, "59").jump("chkstk").align().label("chkstk").emit(*CHKSTK)
    found = Callees(code_of(asm)).at(TEXT)
    assert (found.kind, found.popped) == (CalleeKind.PROBE, popped)


@pytest.mark.parametrize("rounds", [True, False])
def test_after_a_probe_no_argument_is_pushed(rounds: bool) -> None:
    asm = Assembler(TEXT)
    asm.call("probe").emit("cc").align().label("probe").emit("83e10f" if rounds else "", *CHKSTK)
    code = code_of(asm)
    state = SymbolicState(is_from_entry=True, pushed=8, doubt=1).with_register(EAX, constant(0x20))
    after = Callees(code).after_call(state, code.at(TEXT))
    assert (after.sp, after.pushed) == (SymbolicValue(TEXT, 0) if rounds else SymbolicValue(ESP, -0x20), 0)
    assert [after.registers[number] for number in (EAX, ECX, EDX)] == [None] * 3
    nowhere = Callees(code).after_call(state.with_register(ESP, None), code.at(TEXT))
    assert nowhere.sp == SymbolicValue(TEXT, 0)
