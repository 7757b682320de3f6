# SPDX-License-Identifier: Apache-2.0
"""The position of pages in each layout of a crash dump: written by the description of the format, then found again."""

from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.dump_headers import PAGE, Buffer, bitmap, header32, header64, with_runs
from throwstack.crashdump.dump_pages import DumpPages
from throwstack.crashdump.header import DumpHeader, read_header
from throwstack.crashdump.runs import NoRuns, PageRun, read_runs


def opened(data: bytes | bytearray) -> tuple[Buffer, DumpHeader]:
    buffer = Buffer(data)
    header = read_header(buffer)
    assert header is not None
    return buffer, header


def frames_of(runs: tuple[PageRun, ...]) -> dict[int, int]:
    """Return the offset in the file of each page frame."""
    return {run.first + index: run.offset + index * PAGE for run in runs for index in range(run.count)}


@pytest.mark.parametrize("page", [header64(), header32()])
def test_the_pages_of_the_runs_follow_the_header(page: bytearray):
    found = read_runs(*opened(with_runs(page, [(1, 3), (0x100, 2)])))
    assert found == (PageRun(1, 3, len(page)), PageRun(0x100, 2, len(page) + 3 * PAGE))


@pytest.mark.parametrize("dump_type", [2, 5, 6, 7])
@pytest.mark.parametrize("signature", [b"SDMP", b"FDMP"])
@settings(max_examples=30)
@given(frames=st.sets(st.integers(0, 255), min_size=1))
def test_pages_of_a_bitmap_dump_are_in_the_order_of_their_frames(dump_type: int, signature: bytes, frames: set[int]):
    data = bytes(header64(dump_type)) + bitmap(frames, 0x4000, 256, signature)
    found = frames_of(read_runs(*opened(data)))
    assert found == {frame: 0x4000 + index * PAGE for index, frame in enumerate(sorted(frames))}


@pytest.mark.parametrize(("page", "bits_at"), [(header64(2), 0x28), (header32(2), 0x20)])
def test_the_bitmap_of_windows_7_has_32bit_figures(page: bytearray, bits_at: int):
    head = struct.pack("<8sIIIII", b"SDMPDUMP", 0, 0x3000, 64, 3, 64).ljust(bits_at, b"\0")
    found = frames_of(read_runs(*opened(bytes(page) + head + struct.pack("<Q", 1 << 63 | 0b101) + bytes(16))))
    assert found == {0: 0x3000, 2: 0x4000, 63: 0x5000}


@pytest.mark.parametrize("dump_type", [8, 9, 10])
def test_the_ranges_of_a_live_dump_become_runs(dump_type: int):
    head = struct.pack("<I8sIQQIIQ", 0x40, b"RDMPDUMP", 0, 0x1FE0, 0x4000, 2, 0, 5)
    ranges = struct.pack("<4Q", 0x10, 2, 0x20, 3)
    found = read_runs(*opened(bytes(header64(dump_type)) + (head + ranges).ljust(0x2000, b"\0")))
    assert found == (PageRun(0x10, 2, 0x4000), PageRun(0x20, 3, 0x6000))


def test_ranges_past_the_page_count_of_a_complete_live_dump_are_dropped():
    head = struct.pack("<I8sIQQIIQ", 0x40, b"RDMPDUMP", 0, 0x1FE0, 0x4000, 1, 0, 2)
    ranges = struct.pack("<4Q", 0x10, 2, 0x20, 3)
    assert read_runs(*opened(bytes(header64(10)) + (head + ranges).ljust(0x2000, b"\0"))) == (PageRun(0x10, 2, 0x4000),)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(header64(1), "list of memory runs", id="filler where the runs should be"),
        pytest.param(with_runs(header64(1), []), "list of memory runs", id="no runs"),
        pytest.param(header64(4), "no physical memory", id="triage"),
        pytest.param(header64(0x77), "no physical memory", id="unknown type"),
        pytest.param(header64(5), "has no header", id="bitmap cut off"),
        pytest.param(header64(5) + bytes(0x100), "has no header", id="zeros for a bitmap"),
        pytest.param(header64(5) + bitmap({1}, 0, 64), "bitmap is not valid", id="pages in the header"),
        pytest.param(
            header64(5) + struct.pack("<8s24xQQQ", b"SDMPDUMP", 0x4000, 1, 1 << 60),
            "bitmap is not valid",
            id="huge bitmap",
        ),
        pytest.param(header64(5) + bitmap(set(), 0x4000, 64), "names no page", id="empty bitmap"),
        pytest.param(header64(5) + bitmap({1}, 0x4000, 4096)[:-1], "ends within the list", id="bitmap without its end"),
        pytest.param(
            header64(8) + struct.pack("<I8sIQQQQ4Q", 0x40, b"RDMPDUMP", 0, 0, 0x4000, 0, 0, 1, 2, 3, 4),
            "ends within the list",
            id="ranges without their end",
        ),
        pytest.param(header64(8) + bytes(0x100), "has no header", id="no ranges"),
        pytest.param(
            header64(8) + struct.pack("<I8sIQQQQ", 0x40, b"RDMPDUMP", 0, 0, 1 << 50, 0, 0),
            "cannot end at",
            id="endless ranges",
        ),
    ],
)
def test_a_dump_without_pages_says_why(data: bytearray, reason: str):
    with pytest.raises(NoRuns, match=reason):
        read_runs(*opened(data))


@settings(max_examples=60)
@given(
    st.sampled_from([1, 2, 5, 6, 8, 10]),
    st.lists(st.tuples(st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 64) - 1)), min_size=1, max_size=40),
    st.binary(max_size=0x80),
)
def test_hostile_lists_give_disjoint_runs_or_a_reason(dump_type: int, runs: list[tuple[int, int]], tail: bytes):
    data = bytes(with_runs(header64(dump_type), runs)) + tail
    try:
        found = read_runs(*opened(data))
    except NoRuns:
        return
    for before, after in itertools.pairwise(found):
        assert before.first + before.count <= after.first
    assert all(run.count > 0 for run in found)


def test_a_bitmap_far_larger_than_its_file_costs_little_and_every_page_is_counted():
    bits = 8 << 20
    head = struct.pack("<4s4s24xQQQ", b"SDMP", b"DUMP", 0x3000, bits // 2, bits)
    data = (bytes(header64(6)) + head + b"\x55" * 0x800).ljust(0x4000, b"\x55") + b"\x55" * (bits // 8)
    buffer, header = opened(data)
    runs = read_runs(buffer, header)
    assert runs[:2] == (PageRun(0, 1, 0x3000), PageRun(2, 1, 0x4000))
    assert len(runs) < bits // 8
    pages = DumpPages(buffer, runs)
    assert pages.extent.expected == bits // 2
    assert pages.extent.missing == bits // 2 - (len(data) - 0x3000) // PAGE


def test_pages_are_read_and_those_after_the_end_of_the_file_are_counted():
    data = bytes(with_runs(header64(), [(0x10, 2), (0x20, 2)])) + b"a" * PAGE + b"b" * PAGE + b"c" * (PAGE + 7)
    buffer, header = opened(data)
    pages = DumpPages(buffer, read_runs(buffer, header))
    assert [pages.page(frame * PAGE) for frame in (0x10, 0x11, 0x20)] == [b"a" * PAGE, b"b" * PAGE, b"c" * PAGE]
    assert [pages.page(frame * PAGE) for frame in (0, 0xF, 0x12, 0x21, 0x22)] == [None] * 5
    assert (pages.extent.expected, pages.extent.missing) == (4, 1)
