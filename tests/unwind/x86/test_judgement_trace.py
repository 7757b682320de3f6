# SPDX-License-Identifier: Apache-2.0
"""The lines that say why a caller was taken."""

from __future__ import annotations

import struct

import pytest

from tests.support.context_records import x86_context
from tests.unwind.x86.assemble import EBP, ESP, LEAVE, Assembler, mov, push, ret, sub
from tests.unwind.x86.machine import BASE, TEXT, header_page, images_of, symbols_of
from tests.unwind.x86.written_stack import STACK, Stack, walk
from throwstack.core.memory import SegmentSource, memory_of
from throwstack.core.registers import X86, Arch, Registers
from throwstack.images.image import ImageMap
from throwstack.images.modules import ModuleMap
from throwstack.names.symbols import Symbols
from throwstack.unwind import trace
from throwstack.unwind.x86.call_frame import Caller, Place
from throwstack.unwind.x86.candidates import Candidate, Rule
from throwstack.unwind.x86.judgement_trace import lines
from throwstack.unwind.x86.return_address import Fit


@pytest.fixture
def said(monkeypatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(trace, "is_on", lambda: True)
    monkeypatch.setattr(trace, "say", lines.extend)
    return lines


def walked(*, returns_to: str = "back in start", is_lost: bool = False):
    asm = Assembler(TEXT)
    asm.label("BaseThreadStart").emit("33ed").call("outer").label("back in start").emit("ffd3").label("after").emit(
        "cc"
    )
    asm.align().label("outer").emit(push(EBP), mov(EBP, ESP), sub(ESP, 8), "ffd0").label("back in outer")
    asm.emit("837d0800").branch(0x85, "out").label("out").emit(LEAVE, ret()).align()
    stack = Stack("esp", 0, asm.labels["after"], "ebp", 0, "returns", asm.labels[returns_to], "last", 0)
    if is_lost:
        stack.words[3] = 0
        stack.words += [asm.labels["after"], 0]
    registers = {"eip": asm.labels["back in outer"], "esp": stack["esp"], "ebp": stack["ebp"]}
    return stack, walk(asm, stack, registers)


def test_each_frame_has_its_candidates_and_what_was_taken(said):
    stack, _ = walked()
    slot = f"slot {stack['returns']:#x}"
    assert said == [
        f"frame test!outer+0x8 at 0x401018, esp {stack['esp']:#x}",
        f"  FORWARD: {slot} -> test!BaseThreadStart+0x7, fit CONFIRMED, tier CERTAIN",
        f"  FUNCTION: {slot} -> test!BaseThreadStart+0x7, fit CONFIRMED, tier CERTAIN",
        f"  FRAME_POINTER: {slot} -> test!BaseThreadStart+0x7, fit CONFIRMED, tier CERTAIN",
        f"  taken: FUNCTION, {slot}, label prologue; no other slot is believed",
        f"frame test!BaseThreadStart+0x7 at 0x401007, esp {stack['last']:#x}",
        f"  FUNCTION: slot {stack['last']:#x} -> 0x0, fit OUTERMOST, tier OUTERMOST",
        f"  taken: FUNCTION, slot {stack['last']:#x}, label prologue; no other slot is believed",
    ]


def test_an_overwritten_return_address_is_what_decided(said):
    stack, _ = walked(is_lost=True)
    assert f"  FUNCTION: slot {stack['returns']:#x} -> 0x0, fit ZERO, tier ZERO" in said
    taken = next(line for line in said if "taken" in line)
    assert taken.endswith(f"label scan; the return address at {stack['returns']:#x} was overwritten: it is 0x0")


@pytest.mark.parametrize(
    ("better", "worse", "question"),
    [
        ((Rule.FUNCTION, Fit.POSSIBLE, {}), (Rule.SCAN, Fit.POSSIBLE, {}), "its tier"),
        ((Rule.FUNCTION, Fit.CALLS_FUNCTION, {}), (Rule.EPILOGUE, Fit.POSSIBLE, {}), "its fit"),
        ((Rule.FORWARD, Fit.POSSIBLE, {}), (Rule.FUNCTION, Fit.POSSIBLE, {"doubt": 1}), "fewer guesses"),
        ((Rule.FUNCTION, Fit.POSSIBLE, {}), (Rule.FORWARD, Fit.POSSIBLE, {}), "its rule"),
    ],
)
def test_the_first_question_that_tells_two_slots_apart_is_named(better, worse, question):
    near, far = (
        Candidate(rule, Caller(slot, 0x401000, slot + 4, 0, (None,) * 8, **caller), fit)
        for slot, (rule, fit, caller) in ((0x1000, better), (0x1010, worse))
    )
    symbols = Symbols(ImageMap(memory_of({}), ModuleMap([])))
    place = Place(Registers.named(Arch.X86, {"eip": 0x402000, "esp": 0xFF0}), 0xFF0, is_sp_exact=False)
    said = list(lines(place, [far, near], near, symbols))
    assert said[0] == "frame 0x402000 at 0x402000, esp 0xff0 or higher"
    assert said[-1] == f"  taken: {better[0].name}, slot 0x1000, label scan; decided by {question}"
    agreeing = Candidate(Rule.GUESSED_START, near.caller, better[1])
    if question == "its rule":
        assert list(lines(place, [far, near, agreeing], near, symbols))[-1].endswith("another rule that agrees")
    assert list(lines(place, [], None, symbols))[-1] == "  taken: none, because no candidate is believed"


def test_nothing_is_made_where_nobody_listens(monkeypatch):
    monkeypatch.setattr(trace, "is_on", lambda: False)
    monkeypatch.setattr(trace, "say", lambda _: pytest.fail("said something"))
    assert walked()[1].is_complete


NOBODY = Symbols(ImageMap(memory_of({}), ModuleMap([])))
CALLED = Place(Registers.named(Arch.X86, {"eip": 0x402000, "esp": 0xFF0}), 0xFF0)


def candidate(rule: Rule, fit: Fit, slot: int = 0x1000, note: str = "", **caller) -> Candidate:
    return Candidate(rule, Caller(slot, 0x401000, slot + 4, 0, (None,) * 8, **caller), fit, note)


def test_a_candidate_is_described_by_what_speaks_against_it():
    helped = candidate(Rule.FORWARD, Fit.POSSIBLE, doubt=2, is_consistent=False, is_past_helper=True)
    data = candidate(Rule.FUNCTION, Fit.NOT_CODE)
    said = list(lines(CALLED, [helped, data], helped, NOBODY))
    assert said[0] == "frame 0x402000 at 0x402000, esp 0xff0"
    assert said[1].startswith("  FORWARD: slot 0x1000 -> 0x401000, fit POSSIBLE, tier ")
    assert said[1].endswith(", doubt 2, inconsistent, past a helper")
    assert said[2] == "  FUNCTION: slot 0x1000 -> 0x401000, fit NOT_CODE, not believed"
    plain = list(lines(CALLED, [candidate(Rule.FORWARD, Fit.POSSIBLE)], None, NOBODY))[1]
    assert plain.startswith("  FORWARD: slot 0x1000 -> 0x401000, fit POSSIBLE, tier ")
    assert plain.count(",") == 2


def test_the_note_of_a_scan_says_why_it_was_taken_and_those_of_other_rules_do_not():
    scan = candidate(Rule.SCAN, Fit.POSSIBLE, note="a note")
    assert list(lines(CALLED, [scan], scan, NOBODY))[-1].endswith("; a note")
    data = candidate(Rule.FRAME_DATA_SEARCH, Fit.POSSIBLE, note="2 words above the recorded place")
    assert list(lines(CALLED, [data], data, NOBODY))[-1].endswith("; no other slot is believed")


def test_of_equal_callers_the_first_one_is_taken():
    first, second = (candidate(Rule.FUNCTION, Fit.POSSIBLE, slot) for slot in (0x1000, 0x1010))
    assert list(lines(CALLED, [first, second], first, NOBODY))[-1].endswith("; found first")
    unbelieved = candidate(Rule.FUNCTION, Fit.NOT_CODE, 0x1010)
    assert list(lines(CALLED, [first, unbelieved], first, NOBODY))[-1].endswith("; no other slot is believed")
    assert list(lines(CALLED, [first, unbelieved], unbelieved, NOBODY))[-1].endswith("; no other slot is believed")


def test_names_of_return_addresses_are_those_of_the_call_before_them():
    asm = Assembler(TEXT).label("first").emit("90" * 4).label("second").emit("90" * 4)
    images = images_of(SegmentSource({BASE: header_page(), TEXT: asm.finish()}))
    symbols = symbols_of(images, asm.labels)
    place = Place(Registers.named(Arch.X86, {"eip": asm.labels["second"], "esp": 0xFF0}))
    returned = Caller(0x1000, asm.labels["second"], 0x1004, 0, (None,) * 8)
    said = list(lines(place, [Candidate(Rule.SCAN, returned, Fit.POSSIBLE)], None, symbols))
    assert said[0].startswith("frame test!second at ")
    assert "-> test!first+0x4," in said[1]
    assert next(iter(lines(Place(place.registers, 0xFF0), [], None, symbols))).startswith("frame test!first+0x4 at ")


def test_the_dispatcher_has_a_line_with_the_context_of_the_interrupted_code(said):
    asm = Assembler(TEXT).label("KiUserApcDispatcher").emit("58", "ffd0").label("here").emit("cc").align()
    asm.label("interrupted").emit(ret())
    context = bytearray(x86_context())
    base = STACK.base - 0x800
    struct.pack_into("<I", context, X86.context_ip_at, asm.labels["interrupted"])
    struct.pack_into("<I", context, X86.context_ip_at + 12, STACK.base - 0x40)
    saved = struct.unpack(f"<{len(context) // 4}I", context)
    stack = Stack(asm.labels["here"], 1, 2, 3, *saved, base=base)
    asm.label("routine").emit(ret(12))
    walk(asm, stack, {"eip": asm.labels["routine"], "esp": base}, module="ntdll.dll", exports=())
    dispatcher = f"{asm.labels['here']:#x}: dispatcher KiUserApcDispatcher"
    assert f"{dispatcher}: has interrupted code, CONTEXT at {base + 16:#x}" in said
