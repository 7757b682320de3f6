# SPDX-License-Identifier: Apache-2.0
"""The function table of an image without headers, found among the image's other pages."""

from __future__ import annotations

import struct

import pytest

from tests.unwind.x64 import assembler as asm
from tests.unwind.x64.assembler import TEXT, ImageBuilder
from throwstack.core.memory import PAGE_SIZE, Memory, SegmentSource
from throwstack.images.modules import Module
from throwstack.unwind.x64.table_by_contents import table_by_contents

BASE = 0x180000000


def built(count: int) -> tuple[bytes, tuple[int, int]]:
    """Return an image with `count` functions of 16 bytes, and address and size of its function table."""
    builder = ImageBuilder(b"\x90" * (16 * count))
    info = builder.add_info(asm.unwind_info([asm.alloc(4, 0x28)], 4))
    for index in range(count):
        builder.add(TEXT + 16 * index, TEXT + 16 * index + 16, info)
    image = builder.build()
    first = image.index(struct.pack("<II", TEXT, TEXT + 16), PAGE_SIZE)
    return image, (BASE + first, 12 * count)


def search(image: bytes, *absent: int) -> tuple[int, int] | None:
    """Search `image` without its first page and without those at the RVAs `absent`."""
    source = SegmentSource({BASE: image})

    class Partial:
        def page(self, address: int) -> bytes | None:
            return None if address - BASE in (0, *absent) else source.page(address)

    return table_by_contents(Memory(Partial()), Module("a.dll", "", BASE, len(image)))


@pytest.mark.parametrize("count", [8, 300, 341, 342, 1000])
def test_a_table_of_any_length_is_found(count: int) -> None:
    image, expected = built(count)
    assert search(image) == expected


@pytest.mark.parametrize("page", range(3))
def test_pages_of_the_table_may_be_absent(page: int) -> None:
    """1,100 entries take four pages; the entries on the absent one are lost, and the table keeps its place."""
    image, (address, size) = built(1100)
    found = search(image, address - BASE + page * PAGE_SIZE)
    assert found == (address, size)


def test_a_sorted_table_of_other_addresses_is_none() -> None:
    """Control Flow Guard's table of functions: its RVAs lead to code, which cannot be unwind information."""
    functions = struct.pack("<1000I", *range(TEXT, TEXT + 4000, 4))
    image = bytes(PAGE_SIZE) + b"\x48\x83\xec\x28" * 1024 + functions.ljust(PAGE_SIZE, b"\0")
    assert search(image) is None


def test_few_entries_may_be_a_coincidence() -> None:
    assert search(built(7)[0]) is None
