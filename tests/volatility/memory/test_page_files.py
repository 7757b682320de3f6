# SPDX-License-Identifier: Apache-2.0
"""Which page file is the compressed store, by _MMPAGING_FILEs in memory that the test makes."""

from __future__ import annotations

import struct

from throwstack.core.memory import memory_of
from throwstack.pages.page_table_entries import Bits
from throwstack.volatility.memory.page_files import SwapLayers, compressed_stores

PARTITION = 0xFFFFF80300000000


class Offsets:
    """The offsets of this test."""

    def find(self, path: str) -> int | None:
        return {"_MI_PARTITION.Vp.PagingFile": 0x20}.get(path)

    def bits(self, path: str) -> tuple[int, Bits] | None:
        return {"_MMPAGING_FILE.VirtualStorePagefile": (0xCC, Bits(6, 1))}.get(path)


def test_the_compressed_store_is_found_by_its_flag():
    ordinary, store = 0xFFFFA00000001000, 0xFFFFA00000003000
    memory = memory_of(
        {
            PARTITION + 0x20: struct.pack("<16Q", ordinary, 0xBAD000, store, *[0] * 13),
            ordinary + 0xCC: struct.pack("<I", 0xFFFFFFBF),
            store + 0xCC: struct.pack("<I", 0x42),
        }
    )
    assert compressed_stores(Offsets(), memory, PARTITION, 8) == (2,)
    assert compressed_stores(Offsets(), memory, None, 8) == ()
    assert compressed_stores(Offsets(), memory_of({}), PARTITION, 8) == ()


def test_pages_of_the_compressed_store_come_from_memory():
    class Stored:
        def page(self, number: int, index: int) -> bytes | None:
            return bytes([number, index])

    files = SwapLayers({}, (2,), Stored())
    assert files.page(2, 5) == b"\2\5"
    assert files.page(0, 5) is None


def test_pages_of_a_page_file_that_was_not_given_are_absent():
    files = SwapLayers({}, (2,))
    assert files.page(0, 5) is None
    assert (files.is_compressed_store(2), files.is_compressed_store(0)) == (True, False)
