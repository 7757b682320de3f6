# SPDX-License-Identifier: Apache-2.0
"""Where an x86 walk ends and how it says so, chains of registrations, and the arguments that a record leaves out."""

from __future__ import annotations

import struct

import pytest

from tests.unwind.x86.assemble import ESP, Assembler, add, ret, sub
from tests.unwind.x86.machine import BASE, STACK_BASE, TEXT, Records
from tests.unwind.x86.written_stack import STACK, Stack, slots, walk
from throwstack.core.frames import End, StackBounds, Trust
from throwstack.core.memory import PAGE_SIZE, memory_of
from throwstack.names.frame_records import FrameData
from throwstack.unwind.x86.unwinder import registration_chain

RA_SEARCH = "$T0 .raSearch = $eip $T0 ^ = $esp $T0 4 + ="


def chain_of(links: dict[int, int], head: int | None = 0) -> list[int]:
    """The registrations that are followed from `head`, as distances from the stack's limit."""
    size = STACK.base - STACK.limit
    data = bytearray(size + 8)
    for at, to in links.items():
        struct.pack_into("<I", data, at, STACK.limit + to & 0xFFFFFFFF)
    found = registration_chain(
        memory_of({STACK.limit: bytes(data)}), None if head is None else STACK.limit + head, STACK
    )
    return [address - STACK.limit for address in found]


END = 0xFFFFFFFF - STACK.limit
LAST = STACK.base - STACK.limit - 8


@pytest.mark.parametrize(
    ("links", "expected"),
    [
        ({0: 8, 8: 16, 16: 12, 12: END}, [0, 8, 16]),  # back, but above the first one
        ({0: 8, 8: 16, 16: 16}, [0, 8, 16]),
        ({0: 20, 20: END}, [0, 20]),
        ({0: 6}, [0]),
        ({0: 15}, [0]),  # 15 is a multiple of 3 and of 5
        ({0: LAST, LAST: END}, [0, LAST]),
        ({0: LAST + 4}, [0]),
        ({0: END - 1}, [0]),
        ({0: END + 1}, [0]),
    ],
)
def test_registrations_are_aligned_on_the_stack_and_ascend(links, expected):
    assert chain_of(links) == expected


def test_at_most_256_registrations_are_followed():
    assert len(chain_of({8 * number: 8 * number + 8 for number in range(300)})) == 256
    assert chain_of({}, head=None) == []
    assert chain_of({}, head=END) == []
    assert registration_chain(memory_of({}), STACK.limit, STACK) == (STACK.limit,)


def ended(sp: int, *, bounds: StackBounds | None = None):
    """The end of a walk from an address that is no code, with esp at `sp`."""
    asm = Assembler(TEXT).label("BaseThreadStart").emit("cc")
    found = walk(asm, Stack(1, 1, 1, 1, base=STACK_BASE - 16), {"eip": 0x1234, "esp": sp, "ebp": 3}, bounds=bounds)
    assert slots(found) == [None]
    assert found.frames[0].child_sp == sp - 4
    return found.end, found.detail


@pytest.mark.parametrize(
    ("sp", "end"),
    [
        (STACK_BASE - 4, End.NO_RETURN_ADDRESS),
        (STACK_BASE - 3, End.STACK_BOUND),
        (STACK_BASE, End.STACK_BOUND),
        (STACK.limit - 4, End.STACK_BOUND),
    ],
)
def test_a_walk_ends_at_the_bounds_of_the_stack(sp, end):
    found = ended(sp)
    assert found == (end, f"{sp:#x}" if end is End.STACK_BOUND else "")


@pytest.mark.parametrize(
    ("sp", "end"),
    [
        (STACK_BASE - 4, End.NO_RETURN_ADDRESS),
        (STACK_BASE - 3, End.UNREADABLE),
        (STACK_BASE + 4, End.UNREADABLE),
    ],
)
def test_a_walk_ends_where_the_stack_cannot_be_read(sp, end):
    """A page of the stack is not there."""
    found = ended(sp, bounds=StackBounds(STACK.limit, STACK_BASE + PAGE_SIZE))
    assert found == (end, f"{sp:#x}" if end is End.UNREADABLE else "")


def arguments_program(popped: int) -> Assembler:
    """start calls outer, which calls inner with two arguments; outer has two locals and no frame pointer."""
    asm = Assembler(TEXT)
    asm.label("BaseThreadStart").emit("33ed").call("outer").label("back in start").emit("cc").align()
    asm.label("outer").emit(sub(ESP, 8), "6a02", "6a01").call("inner").label("back in outer")
    asm.emit(b"" if popped else add(ESP, 8), add(ESP, 8), ret()).align()
    return asm.label("inner").emit("90").label("in inner").emit("90", ret(popped)).align()


def record(asm: Assembler, name: str, *, parameters: int, locals_size: int) -> FrameData:
    return FrameData(asm.labels[name] - BASE, 0x10, 0, parameters, 0, locals_size, RA_SEARCH, False)


@pytest.mark.parametrize(("popped", "has_record"), [(8, False), (8, True), (0, True)])
def test_the_arguments_of_the_callee_are_below_the_locals(popped, has_record):
    """What the callee's record says of its parameters is believed, or else what its `ret` removes."""
    asm = arguments_program(popped)
    records = [record(asm, "outer", parameters=0, locals_size=8)]
    if has_record:
        records.append(record(asm, "inner", parameters=8, locals_size=0))
    stack = Stack(
        "inner returns", asm.labels["back in outer"], 1, 2, 0, 0, "returns", asm.labels["back in start"], 0, 0
    )
    registers = {"eip": asm.labels["in inner"], "esp": stack["inner returns"], "ebp": 0}
    found = walk(asm, stack, registers, records=Records(records))
    assert slots(found)[:2] == [stack["inner returns"], stack["returns"]]
    assert (found.frames[2].trust, found.frames[2].note) == (Trust.CFI, "")


def test_the_innermost_frame_has_pushed_no_arguments():
    asm = arguments_program(8)
    stack = Stack("esp", 0, 0, "returns", asm.labels["back in start"], 0, 0)
    records = Records([record(asm, "outer", parameters=0, locals_size=8)])
    registers = {"eip": asm.labels["outer"] + 3, "esp": stack["esp"], "ebp": 0}
    found = walk(asm, stack, registers, records=records, has_symbols=False)
    assert slots(found)[0] == stack["returns"]
    assert found.frames[1].note == ""


def test_a_stack_without_a_frame_ends_as_it_is():
    asm = arguments_program(0)
    stack = Stack("returns", asm.labels["back in start"], 0, 0)
    found = walk(asm, stack, {"eip": asm.labels["outer"], "esp": stack["returns"], "ebp": 0})
    assert slots(found)[0] == stack["returns"]
    assert found.is_complete


def test_a_walk_may_reach_its_limit_while_the_caller_that_was_found_is_looked_at():
    """Nobody knows what is in `function` after its call. Whether the call of it is one of a helper is asked last."""
    asm = Assembler(TEXT).label("BaseThreadStart").emit("33ed").call("function").label("back in start").emit("cc")
    asm.align().label("function").emit("ffe0").label("after call").emit("ebfe")
    stack = Stack("esp", 0, "function returns", asm.labels["back in start"], 0)
    registers = {"eip": asm.labels["after call"], "esp": stack["esp"], "ebp": 0}
    walks = [walk(asm, stack, registers, limits={"work_limit": limit}) for limit in range(40)]
    cut = [found.frames[0] for found in walks if found.end is End.WORK_LIMIT and len(found.frames) == 1]
    seen = {(frame.return_slot, frame.return_address) for frame in cut}
    assert seen == {(None, None), (stack["function returns"], asm.labels["back in start"])}
