# SPDX-License-Identifier: Apache-2.0
"""Return addresses that were overwritten, and threads that run where no code is: the walk says that frames are lost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unwind.x86.assemble import EBP, EBX, ESI, ESP, LEAVE, Assembler, mov, pop, push, ret, sub
from tests.unwind.x86.machine import TEXT
from tests.unwind.x86.written_stack import Stack, slots, walk
from throwstack.core.frames import End, Trust, Walk
from throwstack.core.regions import Region, RegionKind
from throwstack.names.symbols import Name
from throwstack.unwind.x86.call_frame import Caller
from throwstack.unwind.x86.candidates import Candidate, Rule
from throwstack.unwind.x86.lost_return_address import lost, with_gap
from throwstack.unwind.x86.return_address import Fit

GARBAGE = 0x41414141
GONE = 0x6B0010AA
HEAP = 0x5000000


class NoCode:
    """The regions of a process whose private memory cannot be run."""

    def find(self, address: int) -> Region | None:
        is_heap = HEAP <= address < HEAP + 0x1000
        return Region(HEAP, HEAP + 0x1000, RegionKind.PRIVATE, is_executable=False) if is_heap else None


def program() -> Assembler:
    """start calls outer, outer calls middle, both with frame pointers; middle calls smasher, which has none."""
    asm = Assembler(TEXT)
    asm.label("BaseThreadStart").emit("33ed").call("outer").label("back in start").emit("cc").align()
    asm.label("outer").emit(push(EBP), mov(EBP, ESP), push(ESI), "ffd0").label("back in outer")
    asm.emit(pop(ESI), LEAVE, ret()).align()
    asm.label("middle").emit(push(EBX)).call("smasher").label("back in middle").emit(pop(EBX), ret()).align()
    asm.label("smasher").emit(sub(ESP, 8)).label("here").emit("8bc1", "83c408", ret())
    return asm.align()


def smashed(asm: Assembler, word: int, *, is_outer_gone: bool = False) -> Stack:
    """smasher's locals and return address, middle's frame, then outer's, to which ebp belongs all along."""
    outer = (0, 0) if is_outer_gone else (0, asm.labels["back in start"])
    return Stack(
        *("esp", 7, 7, "smasher returns", word, 0xB, "middle returns", asm.labels["back in outer"] * (word != 0)),
        *(0x51, "ebp", outer[0], "outer returns", outer[1], 0),
    )


def check_lost(found: Walk, stack: Stack, value: int) -> None:
    assert found.end is End.LOST_RETURN_ADDRESS
    assert found.detail == f"the return address at {stack['smasher returns']:#x} was overwritten: it is {value:#x}"
    assert all(frame.trust is Trust.SCAN for frame in found.frames[1:2])
    assert all(frame.note for frame in found.frames[1:2])


@pytest.mark.parametrize("has_symbols", [True, False], ids=["symbols", "exports"])
@pytest.mark.parametrize("value", [0, GARBAGE])
def test_where_ebp_leads_past_an_overwritten_return_address_frames_are_lost(value, has_symbols):
    """ebp is outer's. By it the walk would go on to start, as if outer had no callees and everything were known."""
    asm = program()
    stack = smashed(asm, value)
    stack.words[4] = 7  # middle's return address is gone as well
    registers = {"eip": asm.labels["here"], "esp": stack["esp"], "ebp": stack["ebp"]}
    found = walk(asm, stack, registers, has_symbols=has_symbols)
    assert found.frames[1].ip == asm.labels["back in start"]
    check_lost(found, stack, value)


@pytest.mark.parametrize("has_symbols", [True, False], ids=["symbols", "exports"])
def test_a_scan_past_an_overwritten_return_address_skips_frames(has_symbols):
    asm = program()
    stack = smashed(asm, GARBAGE)
    registers = {"eip": asm.labels["here"], "esp": stack["esp"], "ebp": 0}
    found = walk(asm, stack, registers, has_symbols=has_symbols)
    assert found.frames[1].ip == asm.labels["back in outer"]
    check_lost(found, stack, GARBAGE)


def test_a_return_address_below_the_overwritten_one_was_left_by_an_earlier_call():
    asm = program()
    stack = smashed(asm, 0)
    stack.words[1] = stack.words[4] = asm.labels["back in outer"]  # one of smasher's locals, and what middle returns to
    found = walk(asm, stack, {"eip": asm.labels["here"], "esp": stack["esp"], "ebp": 0})
    assert slots(found)[0] == stack["middle returns"]


@pytest.mark.parametrize("ebp", ["outer's", "zero"])
def test_what_an_earlier_call_left_among_the_locals_does_not_hide_that_the_return_address_was_overwritten(ebp):
    """The word at the slot that smasher's epilogue returns by is in no code, and a scan finds the one below it."""
    asm = program()
    stack = smashed(asm, GARBAGE)
    stack.words[1] = asm.labels["back in outer"]
    registers = {"eip": asm.labels["here"], "esp": stack["esp"], "ebp": stack["ebp"] if ebp == "outer's" else 0}
    found = walk(asm, stack, registers, has_symbols=False)
    check_lost(found, stack, GARBAGE)
    assert found.frames[1].note == "below a return address that was overwritten"


@pytest.mark.parametrize("rule", [Rule.FUNCTION, Rule.EPILOGUE, Rule.FORWARD, Rule.GUESSED_START])
def test_a_guess_below_the_overwritten_word_says_so_if_the_function_s_own_code_led_there(rule):
    gone, guess = found_by(rule, 0x1010, Fit.NOT_CODE), found_by(Rule.SCAN, 0x1000, Fit.POSSIBLE)
    told = with_gap(guess, [gone, guess])
    if rule in {Rule.FUNCTION, Rule.EPILOGUE}:
        assert told.gap == f"the return address at 0x1010 was overwritten: it is {GARBAGE:#x}"
        assert told.note == "below a return address that was overwritten"
    else:
        assert told is guess


def test_the_stack_of_a_program_with_3_gb_of_addresses_may_be_above_2_gb():
    gone = found_by(Rule.FUNCTION, 0x90000000, Fit.NOT_CODE)
    assert lost(None, [gone]) is gone


@pytest.mark.parametrize("value", [0, GARBAGE])
def test_ebp_at_the_base_of_the_stack_does_not_make_the_frame_the_outermost_one(value):
    """Two zeros at ebp are the end of the thread, but the code of smasher says that it had a caller."""
    asm = program()
    stack = smashed(asm, value, is_outer_gone=True)
    registers = {"eip": asm.labels["here"], "esp": stack["esp"], "ebp": stack["ebp"]}
    check_lost(walk(asm, stack, registers), stack, value)
    stack.words[4] = 7
    found = walk(asm, stack, registers)
    check_lost(found, stack, value)
    assert len(found.frames) == 1
    assert slots(found) == [stack["smasher returns"]]


def found_by(rule: Rule, slot: int, fit: Fit, trust: Trust = Trust.SCAN, **more: Any) -> Candidate:
    """A candidate as a rule finds it, with the return address in `slot`."""
    word = {Fit.ZERO: 0, Fit.OUTERMOST: 0, Fit.NOT_CODE: GARBAGE}.get(fit, TEXT)
    return Candidate(rule, Caller(slot, word, slot + 4, 0, (None,) * 8, **more), fit, trust=trust)


@pytest.mark.parametrize("fit", [Fit.ZERO, Fit.NOT_CODE])
@pytest.mark.parametrize("rule", [Rule.FUNCTION, Rule.EPILOGUE, Rule.FORWARD, Rule.GUESSED_START])
def test_the_code_of_a_function_leads_to_the_word_that_was_overwritten(rule, fit):
    gone, guess = found_by(rule, 0x1000, fit), found_by(Rule.SCAN, 0x1010, Fit.POSSIBLE)
    assert lost(None, [gone]) is gone
    with_note = with_gap(guess, [gone, guess])
    assert with_note.gap == f"the return address at 0x1000 was overwritten: it is {gone.caller.return_address:#x}"
    assert with_note.note == "after a return address that was overwritten"
    assert with_gap(replace(guess, note="a search"), [gone, guess]).note == "a search"


@pytest.mark.parametrize(
    "other",
    [
        found_by(Rule.FRAME_POINTER, 0x1000, Fit.NOT_CODE),
        found_by(Rule.FPO, 0x1000, Fit.ZERO),
        found_by(Rule.FUNCTION, 0x1000, Fit.NOT_A_RETURN),
        found_by(Rule.FUNCTION, 0x1000, Fit.CONTRADICTED),
        found_by(Rule.FUNCTION, 0x1000, Fit.NOT_CODE, is_consistent=False),
        found_by(Rule.FUNCTION, 0x1000, Fit.NOT_CODE, doubt=1),
        found_by(Rule.FUNCTION, 0x1000, Fit.NOT_CODE, is_in_register=True),
    ],
)
def test_what_is_less_certain_shows_no_overwritten_word(other):
    guess = found_by(Rule.SCAN, 0x1010, Fit.POSSIBLE)
    assert lost(None, [other]) is None
    assert with_gap(guess, [other, guess]) is guess


@pytest.mark.parametrize(
    "found",
    [
        found_by(Rule.SCAN, 0x1010, Fit.CONFIRMED),
        found_by(Rule.SCAN, 0x1010, Fit.CALLS_FUNCTION),
        found_by(Rule.FRAME_POINTER, 0x1000, Fit.POSSIBLE),
        found_by(Rule.FUNCTION, 0x1010, Fit.POSSIBLE, Trust.PROLOGUE),
        replace(found_by(Rule.SCAN, 0x1010, Fit.POSSIBLE), gap="another"),
    ],
)
def test_what_is_more_than_a_guess_or_nearer_has_no_gap(found):
    assert with_gap(found, [found_by(Rule.EPILOGUE, 0x1000, Fit.NOT_CODE), found]) is found


def test_a_weak_rule_does_not_say_that_a_frame_is_the_outermost_one():
    gone, behind = found_by(Rule.EPILOGUE, 0x1000, Fit.NOT_CODE), found_by(Rule.EPILOGUE, 0x1020, Fit.NOT_CODE)
    for rule in (Rule.FRAME_POINTER, Rule.FRAME_DATA_SEARCH):
        outermost = found_by(rule, 0x1010, Fit.OUTERMOST)
        assert lost(outermost, [gone, outermost]) is gone
        assert lost(outermost, [outermost, behind]) is None
    outermost = found_by(Rule.FUNCTION, 0x1010, Fit.OUTERMOST)
    assert lost(outermost, [gone, outermost]) is None
    for fit in (Fit.POSSIBLE, Fit.CONTRADICTED):
        assert lost(found_by(Rule.FRAME_POINTER, 0x1010, fit), [gone]) is None
    zero = found_by(Rule.FPO, 0x1010, Fit.ZERO)
    assert lost(zero, [gone, zero]) is zero


@pytest.mark.parametrize("has_symbols", [True, False], ids=["symbols", "exports"])
@pytest.mark.parametrize("follows", ["ebp", "scan"])
@pytest.mark.parametrize("eip", [GONE, HEAP + 0x20], ids=["nothing", "data"])
def test_nothing_tells_who_led_a_thread_to_where_no_code_is(eip, follows, has_symbols):
    """The thread returned through a word that was overwritten. ebp or a scan gives a frame further out."""
    asm = program()
    stack = Stack("esp", 7, 7, 7, 7, "ebp", 0, asm.labels["back in outer"], 0x51, "outer's", 0)
    stack.words += [asm.labels["back in start"], 0]
    stack.words[4] = stack["outer's"]
    registers = {"eip": eip, "esp": stack["esp"], "ebp": stack["ebp"] if follows == "ebp" else 0}
    segments = {HEAP: bytes(0x1000)}
    found = walk(asm, stack, registers, has_symbols=has_symbols, segments=segments, regions=NoCode())
    assert [frame.ip for frame in found.frames[1:]] == [asm.labels["back in outer"], asm.labels["back in start"]]
    assert found.frames[1].trust is Trust.SCAN
    assert found.end is End.LOST_RETURN_ADDRESS
    assert found.detail == f"{eip:#x} is not code, and the return address of the frame that led there is not known"


def test_the_call_before_a_return_address_may_tell_it():
    """outer has called a function of a DLL that was unloaded meanwhile; its frame has a frame pointer."""
    asm = Assembler(TEXT)
    asm.label("BaseThreadStart").emit("33ed").call("outer").label("back in start").emit("cc").align()
    asm.label("outer").emit(push(EBP), mov(EBP, ESP)).absolute("ff15", "import").label("back in outer")
    asm.emit(LEAVE, ret()).align().label("import").emit((GONE - 0x10).to_bytes(4, "little"))
    stack = Stack("esp", 7, 7, "ebp", 0, asm.labels["back in outer"], "outer's", 0, asm.labels["back in start"], 0)
    stack.words[2] = stack["outer's"]
    registers = {"eip": GONE, "esp": stack["esp"], "ebp": stack["ebp"]}
    name_outside = {"name_outside": lambda at: Name(at, "<Unloaded_gone.dll>") if at >> 16 == GONE >> 16 else None}
    assert walk(asm, stack, registers, **name_outside).is_complete
    assert walk(asm, stack, registers).end is End.LOST_RETURN_ADDRESS
