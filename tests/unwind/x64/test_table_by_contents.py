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


@pytest.mark.parametrize(
    ("entry", "count"),
    [
        pytest.param((TEXT + 160, TEXT + 176), 20, id="right after the entry before"),
        pytest.param((TEXT + 159, TEXT + 176), 10, id="in the function before"),
        pytest.param((TEXT + 160, TEXT + 160), 10, id="of no bytes"),
        pytest.param((TEXT + 176, TEXT + 160), 10, id="that ends before it begins"),
    ],
)
def test_a_table_ends_before_an_entry_that_cannot_follow(entry: tuple[int, int], count: int) -> None:
    """Of 20 entries the eleventh is `entry`."""
    image, (address, _) = built(20)
    at = address - BASE + 12 * 10
    changed = image[:at] + struct.pack("<II", *entry) + image[at + 8 :]
    assert search(changed) == (address, 12 * count)


@pytest.mark.parametrize(("beyond", "count"), [(0, 20), (1, 19)])
def test_the_last_function_may_end_with_the_image(beyond: int, count: int) -> None:
    image, (address, _) = built(20)
    at = address - BASE + 12 * 19 + 4
    changed = image[:at] + struct.pack("<I", len(image) + beyond) + image[at + 4 :]
    assert search(changed) == (address, 12 * count)


@pytest.mark.parametrize("unwind", [0, 0xFFFFFF00], ids=["none", "outside the image"])
def test_a_table_ends_before_an_entry_without_unwind_information(unwind: int) -> None:
    image, (address, _) = built(20)
    at = address - BASE + 12 * 10 + 8
    assert search(image[:at] + struct.pack("<I", unwind) + image[at + 4 :]) == (address, 120)
