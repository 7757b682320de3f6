# SPDX-License-Identifier: Apache-2.0
"""What a small minidump has: stacks, what they point to, code, and what debuggers read of every process."""

from __future__ import annotations

import struct
from dataclasses import replace

from throwstack.core.frames import StackBounds
from throwstack.core.memory import Memory, SegmentSource
from throwstack.core.registers import Arch, Registers
from throwstack.minidump.dumped import DumpedThread, Span
from throwstack.minidump.small_memory import Wanted, merged, pick

HEAP, CODE, STACK, TEB = 0x50000000, 0x140001000, 0x20000000, 0x7000000
SP = STACK + 0xF800


def stack_bytes() -> bytes:
    words = bytearray(0x10000)
    struct.pack_into("<Q", words, 0xF808, HEAP + 0x1800)
    return bytes(words)


MEMORY = {STACK: stack_bytes(), HEAP: bytes(0x4000), CODE: bytes(0x2000), TEB: bytes(0x2000)}
THREAD = DumpedThread(
    8,
    teb=TEB,
    registers=Registers(CODE + 0x800, (*[0] * 4, SP, *[0] * 11)),
    stack=StackBounds(STACK, STACK + 0x10000),
)


def has(spans: tuple[Span, ...], start: int, end: int) -> bool:
    return any(span.start <= start and end <= span.end for span in spans)


def test_a_stack_from_its_pointer_to_its_base_with_code_and_teb():
    picked = pick(Memory(SegmentSource(MEMORY)), Wanted(Arch.X64, (THREAD,), 0))
    assert picked.stacks == {0: Span(SP, STACK + 0x10000)}
    assert has(picked.spans, SP, STACK + 0x10000)
    assert not has(picked.spans, SP - 264, SP)
    assert has(picked.spans, CODE + 0x800 - 256, CODE + 0x800 + 256)
    assert has(picked.spans, TEB, TEB + 0x1838)
    assert not has(picked.spans, HEAP + 0x1800, HEAP + 0x1808)


def test_what_the_stack_that_threw_points_to_is_there_unless_an_image_has_it():
    memory = Memory(SegmentSource(MEMORY))
    wanted = Wanted(Arch.X64, (THREAD,), 0, crashed=THREAD, sps=(SP,))
    assert has(pick(memory, wanted).spans, HEAP + 0x1800 - 256, HEAP + 0x1800 + 768)
    in_image = replace(wanted, is_in_image=lambda address: HEAP <= address < HEAP + 0x4000)
    assert not has(pick(memory, in_image).spans, HEAP + 0x1800, HEAP + 0x1808)


def test_absent_pages_are_left_out_and_counted():
    memory = dict(MEMORY)
    memory[STACK] = stack_bytes()[:0xF000]  # the last page of the stack is absent
    low = replace(THREAD, registers=Registers(CODE + 0x800, (*[0] * 4, STACK + 0xE800, *[0] * 11)))
    picked = pick(Memory(SegmentSource(memory)), Wanted(Arch.X64, (low,), 0))
    assert picked.stacks == {0: Span(STACK + 0xE800, STACK + 0xF000)}
    assert picked.absent == 0x1000


def test_a_thread_without_registers_has_its_whole_stack():
    thread = replace(THREAD, registers=None)
    picked = pick(Memory(SegmentSource(MEMORY)), Wanted(Arch.X64, (thread,), 0))
    assert has(picked.spans, STACK, STACK + 0x10000)


def test_a_million_stacks_do_not_make_a_small_minidump_large():
    many = tuple(
        replace(THREAD, tid=4 * number, registers=None, stack=StackBounds(STACK, STACK + 0x100000))
        for number in range(100)
    )
    picked = pick(Memory(SegmentSource(MEMORY)), Wanted(Arch.X64, many, 0))
    assert picked.is_cut
    assert sum(span.end - span.start for span in picked.spans) <= 64 << 20


def test_ranges_that_touch_or_overlap_become_one():
    assert merged([Span(5, 9), Span(1, 5), Span(2, 3), Span(20, 30)]) == [Span(1, 9), Span(20, 30)]
