# SPDX-License-Identifier: Apache-2.0
"""A function that runs a routine on another stack, and keeps the way back in ebp."""

from __future__ import annotations

import struct

import pytest

from tests.unwind.x86.assemble import EBP, EBX, ESP, LEAVE, Assembler, load, mov, pop, push, ret
from tests.unwind.x86.machine import STACK_BASE, TEXT
from tests.unwind.x86.written_stack import Stack, slots, walk
from throwstack.core.frames import StackBounds, Trust
from throwstack.core.regions import Region, RegionKind

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
