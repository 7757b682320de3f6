# SPDX-License-Identifier: Apache-2.0
"""The forged kernel's top table looks like one to every Volatility that is promised."""

from __future__ import annotations

import struct

import pytest

from tests.forge.describe import Paging
from tests.forge.paging import MODES, PRESENT, AddressSpace
from tests.forge.physical import PAGE, PhysicalMemory

LARGE = 0x80


@pytest.mark.parametrize("paging", Paging)
def test_the_page_of_the_kernels_top_table_has_ten_entries_that_are_neither_absent_nor_large_pages(paging: Paging):
    mode, physical = MODES[paging], PhysicalMemory()
    space = AddressSpace(paging, physical, mode.kernel_root)
    space.close_kernel()
    page = bytes(physical.claim(mode.kernel_root // PAGE))
    entries = [entry for (entry,) in struct.iter_unpack(mode.code, page) if entry & PRESENT and not entry & LARGE]
    # Volatility 2.28.0 counts so, and calls a page with fewer than ten a dummy: no dump of ours would open.
    assert len(entries) >= 10
