# SPDX-License-Identifier: Apache-2.0
"""Return addresses that were overwritten, and threads that run where no code is: the walk says that frames are lost."""

from __future__ import annotations

import pytest

from tests.unwind.x86.assemble import EBP, EBX, ESI, ESP, LEAVE, Assembler, mov, pop, push, ret, sub
from tests.unwind.x86.machine import TEXT
from tests.unwind.x86.written_stack import Stack, slots, walk
from throwstack.core.frames import End, Trust, Walk
from throwstack.core.regions import Region, RegionKind
from throwstack.names.symbols import Name

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


def test_an_overwritten_return_address_whose_place_is_a_guess_is_not_reported():
    """The bytes that a call of an unknown function removes are not known: what seems a lost word may be a local."""
    asm = program()
    asm.label("calls").emit(push(EBP), mov(EBP, ESP), push(ESI), push(ESI), "ff15f0ffffff").label("back in calls")
    asm.emit(pop(ESI), "ffe0").align()
    stack = Stack("esp", 7, 0, 0, "ebp", 0, "returns", asm.labels["back in outer"], 0x51, "outer's", 0)
    stack.words += [asm.labels["back in start"], 0]
    stack.words[3] = stack["outer's"]
    registers = {"eip": asm.labels["back in calls"], "esp": stack["esp"], "ebp": stack["ebp"]}
    assert walk(asm, stack, registers, has_symbols=False).is_complete


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
