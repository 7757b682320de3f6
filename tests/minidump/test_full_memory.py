# SPDX-License-Identifier: Apache-2.0
"""All memory of a process: what is looked at, what is written, and where it ends."""

from __future__ import annotations

from collections.abc import Iterator

from tests.support.minidump_parts import Pages
from throwstack.core.memory import PAGE_SIZE
from throwstack.minidump.dumped import DumpedRegion, Span
from throwstack.minidump.full_memory import FullMemory, Limits
from throwstack.minidump.memory_lists import COMMIT, RESERVE, WrittenMemory

GENEROUS = Limits(1 << 20, 1 << 20)


class Process(Pages):
    """Page tables map 0x10000 bytes each; there is one wherever a page is."""

    def candidates(self, span: Span) -> Iterator[Span]:
        for table in sorted({address & -0x10000 for address in self._pages}):
            start, end = max(table, span.start), min(table + 0x10000, span.end)
            if start < end:
                yield Span(start, end)


def region(start: int, end: int, state: int = COMMIT) -> DumpedRegion:
    return DumpedRegion(Span(start, end), start, 4, state, 4, 0x20000)


def all_of(memory: FullMemory) -> tuple[bytes, list[Span]]:
    written = WrittenMemory(0)
    return b"".join(memory.parts(written)), list(written)


def test_pages_that_follow_each_other_are_one_range_within_a_region():
    pages = {0x10000: b"a", 0x11000: b"b", 0x13000: b"c", 0x14000: b"d"}
    data, spans = all_of(FullMemory(Process(pages), [region(0x10000, 0x14000), region(0x14000, 0x15000)], GENEROUS))
    assert spans == [Span(0x10000, 0x12000), Span(0x13000, 0x14000), Span(0x14000, 0x15000)]
    assert data[::PAGE_SIZE] == b"abcd"


def test_only_what_has_page_tables_is_looked_at():
    """64 GiB reserved, two pages used."""
    asked = []

    class Counting(Process):
        def page(self, address: int) -> bytes | None:
            asked.append(address)
            return super().page(address)

    pages = {0x10000: b"a", 0x8_0000_0000: b"b"}
    memory = FullMemory(Counting(pages), [region(0x10000, 0x10_0000_0000, RESERVE)], GENEROUS)
    _, spans = all_of(memory)
    assert len(spans) == 2
    assert len(asked) == 32
    assert (memory.absent, memory.untouched, memory.is_cut) == (0, 0, False)


def test_what_is_committed_and_not_there_is_counted():
    memory = FullMemory(Process({0x10000: b"a"}), [region(0x10000, 0x40000)], GENEROUS)
    all_of(memory)
    assert (memory.absent, memory.untouched) == (15 * PAGE_SIZE, 0x20000)


def test_a_limit_ends_it_and_what_was_written_until_then_is_whole():
    pages = {0x10000 * number: b"x" for number in range(1, 100)}
    memory = FullMemory(Process(pages), [region(0x10000, 0x1000000)], Limits(1 << 20, 10))
    data, spans = all_of(memory)
    assert memory.is_cut
    assert len(data) == len(spans) * PAGE_SIZE
    assert 10 <= len(spans) <= 12


def test_the_bound_holds():
    pages = {0x10000: b"a", 0x12000: b"b", 0x20000: b"c"}
    memory = FullMemory(Process(pages), [region(0x10000, 0x40000)], GENEROUS)
    size, ranges = memory.bound()
    data, spans = all_of(memory)
    assert len(data) <= size == 0x20000
    assert len(spans) <= ranges
