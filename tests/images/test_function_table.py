# SPDX-License-Identifier: Apache-2.0
"""Look-ups in function tables: whole ones, torn ones, and ones out of order."""

from __future__ import annotations

import struct
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from throwstack.core.frames import End
from throwstack.core.memory import Memory, SegmentSource
from throwstack.core.stop import Stop
from throwstack.images.function_table import FunctionTable, RuntimeFunction

AT = 0x40000
COUNT = 1000
ENTRIES = [RuntimeFunction(0x1000 + 0x40 * index, 0x1030 + 0x40 * index, 0x90000) for index in range(COUNT)]


def packed(entries: list[RuntimeFunction]) -> bytes:
    return b"".join(struct.pack("<III", entry.begin, entry.end, entry.unwind) for entry in entries)


def table_of(data: bytes, missing: tuple[int, ...] = ()) -> FunctionTable:
    source = SegmentSource({AT: data})

    class Torn:
        def page(self, address: int) -> bytes | None:
            return None if (address - AT) // 0x1000 in missing else source.page(address)

    return FunctionTable(Memory(Torn()), AT, len(data))


@given(st.integers(0, 0x1000 + 0x40 * (COUNT + 2)))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_every_rva_of_a_whole_table(rva: int) -> None:
    expected = next((entry for entry in ENTRIES if entry.begin <= rva < entry.end), None)
    assert table_of(packed(ENTRIES)).find(rva) == expected


def test_the_nearest_entry_covers_the_rva_or_ends_before_it() -> None:
    table = table_of(packed(ENTRIES))
    assert table.nearest(ENTRIES[7].begin + 4) == ENTRIES[7]
    assert table.nearest(ENTRIES[7].end + 4) == ENTRIES[7]
    assert table.nearest(ENTRIES[-1].end + 0x10000) == ENTRIES[-1]
    assert table.nearest(ENTRIES[0].begin - 1) is None


def test_the_nearest_entry_is_not_known_beside_a_page_that_is_lost() -> None:
    table = table_of(packed(ENTRIES), missing=(1,))
    assert table.nearest(ENTRIES[10].end) == ENTRIES[10]
    assert isinstance(table.nearest(ENTRIES[600].end), Stop)


def test_an_empty_table_has_no_entry() -> None:
    assert table_of(b"").find(0x1000) is None


def test_missing_page_costs_only_what_lay_on_it() -> None:
    table = table_of(packed(ENTRIES), missing=(1,))
    lost = {index for index in range(COUNT) if index * 12 + 11 >= 0x1000 and index * 12 < 0x2000}
    assert len(lost) > 300
    for index, entry in enumerate(ENTRIES):
        found = table.find(entry.begin)
        if index in lost:
            assert isinstance(found, Stop)
            assert found.end is End.UNREADABLE
        else:
            assert found == entry
    # Between two entries that are both there, nothing can be: code there is a leaf.
    assert table.find(ENTRIES[10].end) is None
    # Beside the gap it cannot be known.
    assert isinstance(table.find(ENTRIES[max(lost)].end), Stop)


@pytest.mark.parametrize("damaged", [500, 0, COUNT - 1])
def test_an_entry_out_of_order_costs_no_other_entry(damaged: int) -> None:
    entries = [*ENTRIES]
    entries[damaged] = RuntimeFunction(0xFFFF0000, 0xFFFF0001, 5)
    table = table_of(packed(entries))
    for index, entry in enumerate(ENTRIES):
        found = table.find(entry.begin + 1)
        if index != damaged:
            assert found == entry
        else:
            # It is not said that there is no function.
            assert found is None or isinstance(found, Stop)
    if damaged == 500:
        found = table.find(ENTRIES[500].begin)
        assert isinstance(found, Stop)
        assert found.end is End.BAD_UNWIND_DATA


def test_zeroed_page_in_the_middle_is_damage() -> None:
    data = bytearray(packed(ENTRIES))
    data[0x1000:0x2000] = bytes(0x1000)
    table = table_of(bytes(data))
    found = table.find(ENTRIES[500].begin)
    assert isinstance(found, Stop)
    assert found.end is End.BAD_UNWIND_DATA
    assert table.find(ENTRIES[900].begin) == ENTRIES[900]


def test_zeros_behind_the_last_entry_hide_what_stood_there() -> None:
    table = table_of(packed(ENTRIES) + bytes(12 * 700))
    assert table.find(ENTRIES[990].begin) == ENTRIES[990]
    assert table.find(ENTRIES[990].end) is None
    assert isinstance(table.find(ENTRIES[-1].end), Stop)


def test_discarded_functions_take_no_place() -> None:
    """GNU ld's: the table starts with entries of which only the unwind RVA is left."""
    discarded = [RuntimeFunction(0, 0, 0x90010 + 8 * index) for index in range(20)]
    table = table_of(packed(discarded + ENTRIES[:500]) + packed(discarded[:1] + ENTRIES[500:]))
    assert all(table.find(entry.begin) == entry for entry in ENTRIES)
    assert table.find(0x800) is None
    assert table.find(ENTRIES[499].end) is None
    assert table.find(ENTRIES[-1].end) is None


@given(st.binary(max_size=600), st.integers(0, 1 << 32))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_an_entry_found_in_a_random_table_covers_the_rva(data: bytes, rva: int) -> None:
    found = table_of(data).find(rva)
    if isinstance(found, RuntimeFunction):
        assert found.begin <= rva < found.end


def test_a_table_that_is_not_there_costs_no_memory() -> None:
    """The header says 8 MB of entries, of which one page is there."""
    size = 8 << 20
    table = FunctionTable(Memory(SegmentSource({AT + (4 << 20): bytes(0x1000)})), AT, size)
    tracemalloc.start()
    try:
        stop = table.find(0x1000)
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()
    assert isinstance(stop, Stop)
    assert stop.end is End.UNREADABLE
