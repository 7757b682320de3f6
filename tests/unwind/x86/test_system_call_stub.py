# SPDX-License-Identifier: Apache-2.0
"""System call stubs by their instructions, and the return addresses that system calls leave on a stack."""

from __future__ import annotations

import pytest

from tests.unwind.x86.assemble import EBP, ESI, ESP, LEAVE, Assembler, mov, pop, push, ret
from tests.unwind.x86.machine import TEXT, code_of
from tests.unwind.x86.written_stack import Stack, walk
from throwstack.unwind.x86.system_call_stub import return_in_stub, return_in_stub_before

NUMBER = "b807010000"
KERNEL_GATE = {
    "XP": ("ba0003fe7f", "ffd2"),
    "XP SP2": ("ba0003fe7f", "ff12"),
    "WoW64, Windows 7": ("33c9", "8d542404", "64ff15c0000000"),
    "WoW64, Windows 10": ("ba00100077", "ffd2"),
    "int 2Eh": ("8d542404", "cd2e"),
}


@pytest.mark.parametrize("gate", KERNEL_GATE)
def test_a_stub_is_known_by_its_number_its_gate_and_its_return(gate):
    asm = Assembler(TEXT).label("stub").emit(NUMBER, *KERNEL_GATE[gate]).label("back").emit(ret(8))
    code = code_of(asm)
    assert return_in_stub(code, asm.labels["stub"]) == asm.labels["back"]
    assert return_in_stub_before(code, asm.labels["back"])
    assert not return_in_stub_before(code, asm.labels["back"] + 1)


def test_a_stub_of_windows_8_and_later_calls_the_gate_within_it():
    asm = Assembler(TEXT).label("stub").emit(NUMBER).call("gate").label("back").emit(ret(8))
    asm.label("gate").emit("8bd4", "0f34", ret())  # mov edx, esp; sysenter
    assert return_in_stub(code_of(asm), asm.labels["stub"]) == asm.labels["back"]


def test_a_stub_may_remove_a_word_before_it_returns():
    """Stubs of WoW64 on Windows Vista and 7: `add esp, 4; ret 8`."""
    asm = Assembler(TEXT).label("stub").emit(NUMBER, *KERNEL_GATE["WoW64, Windows 7"]).label("back")
    code = code_of(asm.emit("83c404", ret(8)))
    assert return_in_stub(code, asm.labels["stub"]) == asm.labels["back"]
    assert return_in_stub_before(code, asm.labels["back"])


@pytest.mark.parametrize(("last", "is_found"), [("ba00100077", True), ("8b9200000000", False)], ids=["31", "32"])
def test_up_to_its_return_address_a_stub_is_shorter_than_thirty_two_bytes(last, is_found):
    """mov eax, number; three instructions that set edx; call fs:[0C0h]."""
    asm = Assembler(TEXT).label("stub").emit(NUMBER, *["8d942404000000"] * 2, last, "64ff15c0000000").label("back")
    code = code_of(asm.emit(ret(8)))
    assert return_in_stub(code, asm.labels["stub"]) == asm.labels["back"]
    assert return_in_stub_before(code, asm.labels["back"]) is is_found


@pytest.mark.parametrize(
    "code",
    [
        (NUMBER, "ba0003fe7f", "ff12", "8bc1"),
        (NUMBER, "ba0003fe7f", "ff12", "83c408", ret(8)),
        (NUMBER, "ba0003fe7f", "ff13", ret(8)),
        (NUMBER, "ff1500104000", ret(8)),
        (NUMBER, "e8f6ffffff", ret(8)),
        (NUMBER, "50", "ff12", ret(8)),
        (NUMBER, "90" * 4, "ff12", ret(8)),
        (NUMBER, "33c9", "33c9", "33c9", "33c9", "ff12", ret(8)),
        ("8bc1", "ba0003fe7f", "ff12", ret(8)),
        ("b907010000", "ba0003fe7f", "ff12", ret(8)),
    ],
)
def test_other_functions_are_no_stubs(code):
    text = code_of(Assembler(TEXT).label("stub").emit(*code))
    assert return_in_stub(text, TEXT) is None
    assert not any(return_in_stub_before(text, TEXT + at) for at in range(0x20))


def test_what_an_earlier_system_call_has_left_is_not_the_caller_of_a_frame_that_has_made_a_call():
    """A function whose frame cannot be followed has called another. Below its frame is a stub's return address."""
    asm = Assembler(TEXT)
    asm.label("BaseThreadStart").emit("33ed").call("outer").label("back in start").emit("cc").align()
    asm.label("outer").emit(push(EBP), mov(EBP, ESP), push(ESI), "ffd0").label("back in outer").emit(
        pop(ESI), LEAVE, ret()
    )
    asm.align().label("lost").emit("ffe0", "ffd3").label("back in lost").emit("ebfe").align()
    asm.label("inner").emit(push(ESI)).label("in inner").emit("8bc1", pop(ESI), ret()).align()
    asm.label("stub").emit(NUMBER, *KERNEL_GATE["XP SP2"]).label("back in stub").emit(ret(8)).align()
    stack = Stack(
        *("esp", 5, "inner returns", asm.labels["back in lost"], 0, asm.labels["back in stub"], 1, 2),
        *("lost returns", asm.labels["back in outer"], 0x51, 0, asm.labels["back in start"], 0),
    )
    found = walk(asm, stack, {"eip": asm.labels["in inner"], "esp": stack["esp"], "ebp": 0})
    assert [frame.return_slot for frame in found.frames[:2]] == [stack["inner returns"], stack["lost returns"]]
