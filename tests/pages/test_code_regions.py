# SPDX-License-Identifier: Apache-2.0
"""Where code can run: what the VAD was allocated with, and what the page-table entry says now."""

from __future__ import annotations

import struct

import pytest

from throwstack.core.memory import memory_of
from throwstack.core.regions import Region, RegionKind
from throwstack.pages.code_regions import CodeRegions
from throwstack.pages.page_table_entries import Bits, PteFormats
from throwstack.pages.page_tables import AddressSpace, PagingMode
from throwstack.pages.resolver import ResolvedPages
from throwstack.pages.vad_views import VadView, VadViews

START, END = 0x400000, 0x410000
VALID, NO_EXECUTE, TRANSITION, PROTOTYPE = 1, 1 << 63, 1 << 11, 1 << 10
READ_WRITE, EXECUTE_READ = 4 << 5, 3 << 5
FORMATS = PteFormats(8, Bits(12, 36), Bits(12, 36), None, Bits(1, 4), Bits(32, 32), Bits(5, 5))


def regions(entry: int, mode: PagingMode, *, is_executable: bool) -> CodeRegions:
    """Make a space in which the page at START has the page-table entry `entry`, and one private VAD."""
    if mode is PagingMode.PAE:
        tables = {
            0x1000: struct.pack("<Q", 0x2001),
            0x2000 + 8 * (START >> 21): struct.pack("<Q", 0x3001),
            0x3000: struct.pack("<Q", entry),
        }
    else:
        tables = {0x1000 + 4 * (START >> 22): struct.pack("<I", 0x3001), 0x3000: struct.pack("<I", entry & 0xFFFFFFFF)}
    physical = memory_of(tables)
    views = VadViews([VadView(START, END, True, True, False, is_executable=is_executable)])
    return CodeRegions(ResolvedPages(physical, AddressSpace(physical, mode, 0x1000), FORMATS, views=lambda: views))


@pytest.mark.parametrize(
    ("entry", "vad", "answer"),
    [
        pytest.param(0x9000 | VALID, False, True, id="made executable by VirtualProtect"),
        pytest.param(0x9000 | VALID | NO_EXECUTE, True, False, id="made data by VirtualProtect"),
        pytest.param(0x9000 | TRANSITION | EXECUTE_READ, False, True, id="executable and in transition"),
        pytest.param(0x77 << 32 | READ_WRITE, True, False, id="data in a page file"),
        pytest.param(PROTOTYPE | 0x7000, True, True, id="a prototype entry leaves it to the VAD"),
        pytest.param(0, True, True, id="never touched, allocated executable"),
        pytest.param(0, False, False, id="never touched, allocated as data"),
    ],
)
def test_the_page_table_entry_decides_and_else_the_vad(entry, vad, answer):
    found = regions(entry, PagingMode.PAE, is_executable=vad).find(START + 0x123)
    assert found == Region(START, END, RegionKind.PRIVATE, answer)


@pytest.mark.parametrize("vad", [True, False])
def test_entries_of_four_bytes_forbid_nothing_so_that_the_vad_decides(vad):
    found = regions(0x9000 | VALID, PagingMode.X86, is_executable=vad).find(START)
    assert found is not None
    assert found.is_executable is vad


def test_an_address_that_no_vad_covers_is_in_no_region():
    assert regions(0, PagingMode.PAE, is_executable=True).find(END) is None
