# SPDX-License-Identifier: Apache-2.0
"""`STACK WIN` records and which of them covers an address."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from throwstack.names.frame_records import FrameData
from throwstack.pdb.stack_win import FrameDataTable, parse_record

PROGRAM = "$T0 .raSearch = $eip $T0 ^ = $esp $T0 4 + ="


def test_a_frame_data_record_is_parsed():
    record = parse_record(f"STACK WIN 4 1100 40 5 0 4 8 c 20 1 {PROGRAM}")
    assert record == FrameData(0x1100, 0x40, 5, 4, 8, 12, PROGRAM, uses_base_pointer=False)


def test_fpo_records_are_parsed():
    plain = parse_record("STACK WIN 0 2000 10 1 0 8 8 c 0 0 0")
    assert plain == FrameData(0x2000, 16, 1, 8, 8, 12, "", uses_base_pointer=False)
    assert parse_record("STACK WIN 0 2000 10 1 0 8 8 c 0 0 1") == FrameData(
        0x2000, 16, 1, 8, 8, 12, "", uses_base_pointer=True
    )


def test_the_innermost_record_wins():
    """Clang writes a record for each step of the prologue, which reaches to the end of the function."""
    table = FrameDataTable(
        "STACK WIN 4 1000 15 1 0 4 0 0 0 1 whole\n"
        "STACK WIN 4 1001 14 0 0 4 4 0 0 1 after push\n"
        "STACK WIN 4 1005 4 0 0 4 8 0 0 1 inner\n"
    )
    found = {rva: table.find(rva) for rva in (0xFFF, 0x1000, 0x1001, 0x1005, 0x1008, 0x1009, 0x1014, 0x1015)}
    programs = {rva: record.program if record else None for rva, record in found.items()}
    assert programs == {
        0xFFF: None,
        0x1000: "whole",
        0x1001: "after push",
        0x1005: "inner",
        0x1008: "inner",
        0x1009: "after push",
        0x1014: "after push",
        0x1015: None,
    }


def test_frame_data_is_preferred_to_fpo_data():
    table = FrameDataTable(f"STACK WIN 0 1000 20 0 0 0 0 0 0 0 0\nSTACK WIN 4 1010 10 0 0 0 0 0 0 1 {PROGRAM}\n")
    assert table.find(0x1000).program == ""
    assert table.find(0x1010).program == PROGRAM


def test_non_fpo_records_are_left_out():
    """FRAME_NONFPO counts locals and registers, but not the saved ebp between them and the return address."""
    table = FrameDataTable("STACK WIN 3 1000 20 6 0 8 4 c 0 0 1\nSTACK WIN 0 2000 20 6 0 8 4 c 0 0 1\n")
    assert table.find(0x1000) is None
    assert table.find(0x2000) is not None


def test_trap_frames_and_damaged_lines_are_left_out():
    table = FrameDataTable(
        "STACK WIN 1 1000 20 0 0 0 0 0 0 0 0\nSTACK WIN 2 1000 20 0 0 0 0 0 0 0 0\n"
        "STACK CFI 1000 x\nSTACK WIN 4 zz 1 0\n"
        "STACK WIN 4 3000 20\nSTACK WIN 4 4000 20 0\n\n"
    )
    assert table.find(0x1000) is None
    assert table.find(0x3000) is None
    assert table.find(0x4000) is None


RANGES = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 15)), max_size=12, unique_by=lambda item: item[0])


@settings(max_examples=200, deadline=None, derandomize=True)
@given(RANGES)
def test_any_overlap_gives_the_covering_record_that_starts_last(ranges):
    table = FrameDataTable("\n".join(f"STACK WIN 4 {start:x} {size:x} 0 0 0 0 0 0 1 {start}" for start, size in ranges))
    for rva in range(60):
        covering = [start for start, size in ranges if start <= rva < start + size]
        record = table.find(rva)
        assert (record.rva if record else None) == (max(covering) if covering else None)
