# SPDX-License-Identifier: Apache-2.0
"""MemoryList, Memory64List and MemoryInfoList, and where memory is in the file."""

from __future__ import annotations

import struct

from throwstack.minidump.dumped import DumpedRegion, Span
from throwstack.minidump.memory_lists import WrittenMemory, memory64_list, memory_info_list, memory_list
from throwstack.minidump.minidump_file import NOWHERE, Placement

PRIVATE, RESERVED, COMMITTED = 0x20000, 0x2000, 0x1000


def written(base: int = 0x1000) -> WrittenMemory:
    """Two ranges: 0x10000 to 0x12000 and 0x20000 to 0x21000."""
    found = WrittenMemory(base)
    found.add(0x10000, 0x1000)
    found.extend(0x1000)
    found.add(0x20000, 0x1000)
    return found


def test_ranges_of_a_small_minidump_have_rvas():
    stream = b"".join(memory_list(written()))
    assert stream[:4] == b"\2\0\0\0"
    assert list(struct.iter_unpack("<QII", stream[4:])) == [(0x10000, 0x2000, 0x1000), (0x20000, 0x1000, 0x3000)]


def test_ranges_of_a_full_minidump_follow_each_other_from_a_64_bit_offset():
    stream = b"".join(memory64_list(written(0x123456789000)))
    assert struct.unpack_from("<QQ", stream) == (2, 0x123456789000)
    assert list(struct.iter_unpack("<QQ", stream[16:])) == [(0x10000, 0x2000), (0x20000, 0x1000)]


def test_where_memory_is_in_the_file():
    found = written()
    assert found.placed(Span(0x10800, 0x11800)) == Placement(0x1000, 0x1800)
    assert found.placed(Span(0x20000, 0x21000)) == Placement(0x1000, 0x3000)
    assert found.placed(Span(0x11000, 0x12001)) == NOWHERE
    assert found.placed(Span(0x8000, 0x9000)) == NOWHERE
    assert written(0x100000000).placed(Span(0x10000, 0x11000)) == NOWHERE


def infos(*regions: DumpedRegion) -> list[tuple[int, ...]]:
    stream = b"".join(memory_info_list(regions, written()))
    head, entry, count = struct.unpack_from("<IIQ", stream)
    found = list(struct.iter_unpack("<QQIIQIIII", stream[16:]))
    assert (head, entry, count) == (16, 48, len(found))
    return [(info[0], info[1], *info[4:7]) for info in found]


def test_memory_that_was_written_is_committed_also_where_the_region_is_only_reserved():
    stack = DumpedRegion(Span(0xF000, 0x14000), 0xF000, 4, RESERVED, 4, PRIVATE)
    assert infos(stack) == [
        (0xF000, 0xF000, 0x1000, RESERVED, 0),
        (0x10000, 0xF000, 0x2000, COMMITTED, 4),
        (0x12000, 0xF000, 0x2000, RESERVED, 0),
    ]


def test_a_region_without_written_memory_is_one_element():
    assert infos(DumpedRegion(Span(0x50000, 0x60000), 0x50000, 2, COMMITTED, 2, PRIVATE)) == [
        (0x50000, 0x50000, 0x10000, COMMITTED, 2)
    ]
