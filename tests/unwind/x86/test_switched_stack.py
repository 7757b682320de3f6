# SPDX-License-Identifier: Apache-2.0
"""A function that runs a routine on another stack, and keeps the way back in ebp."""

from __future__ import annotations

import struct

import pytest

from tests.unwind.x86.assemble import EBP, EBX, ESP, LEAVE, Assembler, load, mov, pop, push, ret
from tests.unwind.x86.machine import STACK_BASE, TEXT
from tests.unwind.x86.written_stack import Stack, slots, walk
from throwstack.core.frames import End, StackBounds, Trust
from throwstack.core.memory import memory_of
from throwstack.core.regions import Region, RegionKind
from throwstack.core.registers import Registers
from throwstack.images.image import ImageMap
from throwstack.images.modules import ModuleMap
from throwstack.unwind.code_outside import CodeOutside
from throwstack.unwind.thread_start import StackEnds
from throwstack.unwind.x86.call_frame import Caller, Place
from throwstack.unwind.x86.candidates import Rule
from throwstack.unwind.x86.switched_stack import is_on_another_stack

OTHER, SIZE = 0x30000, 0x2000
ABOVE = 0x900000


class TwoStacks:
    """The thread's stack and the other one, which begins at `other`."""

    def __init__(self, other: int) -> None:
        self.bounds = (StackBounds(STACK_BASE - 0x10000, STACK_BASE), StackBounds(other, other + SIZE))

    def find(self, address: int) -> Region | None:
        found = next((bounds for bounds in self.bounds if bounds.contains(address)), None)
        return found and Region(found.limit, found.base, RegionKind.PRIVATE, is_executable=False)


def program() -> Assembler:
    """start calls outer, outer calls switched, and that calls routine on another stack."""
    asm = Assembler(TEXT)
    asm.label("BaseThreadStart").emit("33ed").call("outer").label("back in start").emit("cc").align()
    asm.label("outer").emit(push(EBX), push(EBX)).call("switched").label("back in outer").emit(pop(EBX), pop(EBX))
    asm.emit(ret()).align().label("switched").emit(push(EBP), mov(EBP, ESP), load(ESP, EBP, 8), "ffd2")
    asm.label("back in switched").emit(LEAVE, ret()).align()
    return asm.label("routine").emit(push(EBX)).label("here").emit("8bc1", pop(EBX), ret()).align()


def scene(other: int):
    """The thread's stack; the other one, with routine's frame at its base; and the registers in routine."""
    asm = program()
    first = Stack("ebp", 0, "switched returns", asm.labels["back in outer"], 0, 0xB)
    first.words += [asm.labels["back in start"], 0]
    esp = other + SIZE - 8
    words = struct.pack("<2I", 5, asm.labels["back in switched"]).rjust(SIZE, b"\0")
    return asm, first, {other: words}, {"eip": asm.labels["here"], "esp": esp, "ebp": first["ebp"]}


def check(asm: Assembler, found, inner: int, returns: int) -> None:
    names = ("here", "back in switched", "back in outer", "back in start")
    assert [frame.ip for frame in found.frames] == [asm.labels[name] for name in names]
    assert slots(found) == [inner, returns, returns + 12, returns + 16]
    assert {frame.trust for frame in found.frames[1:]} == {Trust.PROLOGUE}
    assert found.frames[2].note == "the function had switched to another stack"
    assert found.frames[3].registers.gpr[EBX] == 0xB
    assert found.is_complete


@pytest.mark.parametrize("has_symbols", [True, False], ids=["symbols", "exports"])
@pytest.mark.parametrize("other", [OTHER, ABOVE], ids=["below", "above"])
def test_the_walk_goes_on_where_the_function_was_called(other, has_symbols):
    asm, first, segments, registers = scene(other)
    options = {"bounds": around(other), "regions": TwoStacks(other), "has_symbols": has_symbols}
    found = walk(asm, first, registers, segments=segments, **options)
    check(asm, found, other + SIZE - 4, first["switched returns"])


@pytest.mark.parametrize("knows_regions", [False, True])
@pytest.mark.parametrize("other", [OTHER, ABOVE], ids=["below", "above"])
def test_a_routine_on_the_thread_s_own_stack_leads_back_to_another(other, knows_regions):
    """A goroutine has called a system routine on the stack of its thread, whose bounds the TEB records."""
    asm, outer, _, registers = scene(other)
    routine = Stack("esp", 5, "routine returns", asm.labels["back in switched"])
    ebp = other + SIZE - len(outer.data)
    registers |= {"esp": routine["esp"], "ebp": ebp}
    regions = TwoStacks(other) if knows_regions else None
    found = walk(asm, routine, registers, segments={other: outer.data.rjust(SIZE, b"\0")}, regions=regions)
    check(asm, found, routine["routine returns"], ebp + 4)


def around(other: int) -> StackBounds:
    """The bounds of a stack that no TEB records, from the page of its stack pointer on."""
    return StackBounds(other + SIZE - 0x1000, other + SIZE, is_recorded=False)


@pytest.mark.parametrize("spoilt", ["no call", "same region"])
def test_a_frame_pointer_that_leads_down_or_away_is_wrong_without_a_proof(spoilt):
    asm, first, segments, registers = scene(OTHER)
    if spoilt == "no call":
        first.words[1] += 1
    regions = TwoStacks(OTHER)
    if spoilt == "same region":
        regions.bounds = (StackBounds(OTHER, STACK_BASE),)
    found = walk(asm, first, registers, segments=segments, bounds=around(OTHER), regions=regions)
    assert [frame.ip for frame in found.frames] == [asm.labels[name] for name in ("here", "back in switched")]


AFTER_CALL = 0x401005
THREAD = StackBounds(STACK_BASE - 0x1000, STACK_BASE)


def is_switched(
    sp: int,
    slot: int,
    *,
    rule: Rule = Rule.FUNCTION,
    stack: StackBounds = THREAD,
    regions: TwoStacks | None = None,
    return_address: int = AFTER_CALL,
    **caller: object,
) -> bool:
    """Ask of a frame with the stack pointer `sp` whose return address was found at `slot`."""
    place = Place(Registers(0x402000, (None,) * 4 + (sp,) + (None,) * 3), call_sp=sp)
    found = Caller(slot, return_address, slot + 4, 0, (None,) * 8, **caller)  # type: ignore[arg-type]
    memory = memory_of({})
    outside = CodeOutside(ImageMap(memory, ModuleMap([])), regions)
    ends = StackEnds(memory, outside, 4, lambda word: word == AFTER_CALL)
    return is_on_another_stack(place, rule, found, stack, ends)


LEAVES, COMES_BACK = (STACK_BASE - 0x40, OTHER + 0x100), (ABOVE + 0x100, STACK_BASE - 4)
"""From the thread's stack to another one, and from another one to the last word of the thread's."""


@pytest.mark.parametrize("way", [LEAVES, COMES_BACK], ids=["leaves", "comes back"])
def test_a_way_between_the_recorded_stack_and_another_one_is_believed_if_code_shows_it(way):
    assert is_switched(*way)
    assert is_switched(*way, rule=Rule.FRAME_DATA)
    assert not is_switched(*way, rule=Rule.FRAME_POINTER)
    assert not is_switched(*way, rule=Rule.SCAN)
    assert not is_switched(*way, doubt=1)
    assert not is_switched(*way, is_consistent=False)
    assert not is_switched(*way, return_address=AFTER_CALL + 1)
    assert not is_switched(way[0], way[1] + 1)
    assert not is_switched(way[0], way[1] - 2)


@pytest.mark.parametrize("way", [LEAVES, COMES_BACK], ids=["leaves", "comes back"])
def test_the_bounds_of_a_stack_that_nobody_records_prove_nothing(way):
    """They are a guess. Where the regions of memory are known, these tell that there are two stacks."""
    guessed = StackBounds(THREAD.limit, THREAD.base, is_recorded=False)
    assert not is_switched(*way, stack=guessed)
    other = OTHER if way is LEAVES else ABOVE
    assert is_switched(*way, stack=guessed, regions=TwoStacks(other))


def test_a_return_address_on_the_frame_s_own_stack_is_no_switch():
    assert not is_switched(STACK_BASE - 0x40, STACK_BASE - 0x20)
    assert not is_switched(STACK_BASE - 0x40, STACK_BASE - 0x80)
    assert not is_switched(STACK_BASE - 0x40, STACK_BASE - 0x40)


def test_a_helper_that_has_popped_the_last_return_address_of_a_stack_has_not_switched():
    """`pop ecx`: the return address was in the highest word of the stack, and esp is its base now."""
    assert not is_switched(STACK_BASE, STACK_BASE - 4, is_in_register=True)
    assert not is_switched(STACK_BASE - 0x3C, STACK_BASE - 0x40, is_in_register=True)


def test_back_on_its_first_stack_a_walk_ends_where_that_does():
    """The thread runs a goroutine by `switched`. The goroutine has called a routine on the thread's stack again.

    Memory after the thread's stack is in use, and has a copy of the frames that the thread's stack has lost.
    """
    asm, _, _, registers = scene(ABOVE)
    pair = STACK_BASE - 8
    routine = Stack("esp", 5, "routine returns", asm.labels["back in switched"])
    top = [pair, asm.labels["back in outer"], 0, 0xB, asm.labels["back in switched"]]
    goroutine = struct.pack("<5I", *top).rjust(SIZE, b"\0")
    routine.words += [0] * ((pair - routine.base) // 4 - len(routine.words)) + [0, asm.labels["back in outer"]]
    after = struct.pack("<4I", 0, 0xB, asm.labels["back in start"], 0).ljust(0x1000, b"\0")
    registers |= {"esp": routine["esp"], "ebp": ABOVE + SIZE - 20}
    segments = {ABOVE: goroutine, STACK_BASE: after}
    found = walk(asm, routine, registers, segments=segments, regions=TwoStacks(ABOVE))
    names = ("here", "back in switched", "back in outer", "back in switched", "back in outer")
    assert [frame.ip for frame in found.frames] == [asm.labels[name] for name in names]
    assert slots(found)[-2:] == [pair + 4, None]
    assert found.end is End.STACK_BOUND
