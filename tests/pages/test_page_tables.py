# SPDX-License-Identifier: Apache-2.0
"""Page tables built by hand, entry by entry, as the Intel SDM draws them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from throwstack.core.memory import PAGE_SIZE, memory_of
from throwstack.pages.page_tables import AddressSpace, PagingMode

PRESENT, LARGE, PROTOTYPE, TRANSITION = 1, 1 << 7, 1 << 10, 1 << 11


def table(entry_format: str, entries: dict[int, int]) -> bytes:
    size = struct.calcsize(entry_format)
    page = bytearray(PAGE_SIZE)
    for index, entry in entries.items():
        struct.pack_into(entry_format, page, index * size, entry)
    return bytes(page)


def x64_space(pte: int, **physical: bytes) -> AddressSpace:
    """Map 0x7FFE_1234_5000 through four tables; its PTE is `pte`."""
    pages = {
        0x1000: table("<Q", {0xFF: 0x2000 | PRESENT}),
        0x2000: table("<Q", {0x1F8: 0x3000 | PRESENT}),
        0x3000: table("<Q", {0x091: 0x4000 | PRESENT}),
        0x4000: table("<Q", {0x145: pte}),
    }
    pages.update({int(name[1:], 16): data for name, data in physical.items()})
    return AddressSpace(memory_of(pages), PagingMode.X64, 0x1000)


X64_ADDRESS = 0x7FFE12345000


def test_x64_follows_four_tables():
    assert x64_space(0x9000 | PRESENT, p9000=b"page").page(X64_ADDRESS)[:4] == b"page"


def test_a_kernel_address_uses_the_upper_half_of_the_top_table():
    pages = {0x1000: table("<Q", {0x1F0: 0x2000 | PRESENT}), 0x2000: table("<Q", {0: 0xC0000000 | PRESENT | LARGE})}
    space = AddressSpace(memory_of(pages), PagingMode.X64, 0x1000)
    assert space.translate(0xFFFFF80001234000) == 0xC0000000 + 0x1234000


@pytest.mark.parametrize("address", [0x0000800000000000, 0xFFFF7FFFFFFFF000, 1 << 64])
def test_a_non_canonical_address_is_not_mapped(address: int):
    assert x64_space(0x9000 | PRESENT).translate(address) is None


def test_a_page_in_transition_is_still_in_memory():
    assert x64_space(0x9000 | TRANSITION).translate(X64_ADDRESS) == 0x9000


@pytest.mark.parametrize("pte", [0, 0x9000, 0x9000 | PROTOTYPE, 0x9000 | PROTOTYPE | TRANSITION])
def test_an_entry_that_is_neither_present_nor_in_transition_leads_to_no_page(pte: int):
    assert x64_space(pte).translate(X64_ADDRESS) is None


def test_flag_bits_above_the_frame_number_are_not_part_of_it():
    no_execute = 1 << 63
    software_flags = 0x7FF << 52
    assert x64_space(0x9000 | PRESENT | no_execute | software_flags).translate(X64_ADDRESS) == 0x9000


def test_a_directory_entry_in_transition_is_not_followed():
    pages = {0x1000: table("<Q", {0: 0x2000 | TRANSITION}), 0x2000: table("<Q", {0: 0x3000 | PRESENT})}
    assert AddressSpace(memory_of(pages), PagingMode.X64, 0x1000).translate(0) is None


def test_pae_starts_at_a_table_of_32_bytes_anywhere_in_a_page():
    top = bytearray(PAGE_SIZE)
    struct.pack_into("<4Q", top, 0x520, 0x2000 | PRESENT, 0, 0, 0x3000 | PRESENT)
    pages = {
        0x7F404000: bytes(top),
        0x2000: table("<Q", {0x22: 0x4000 | PRESENT}),
        0x4000: table("<Q", {0x1BA: 0x1_2345_6000 | PRESENT}),
        0x3000: table("<Q", {0: 0x600000 | PRESENT | LARGE}),
    }
    space = AddressSpace(memory_of(pages), PagingMode.PAE, 0x7F404520)
    assert space.translate(0x045BA888) == 0x1_2345_6000
    assert space.translate(0xC0012000) == 0x612000
    assert space.translate(0x40000000) is None


def test_two_level_tables_have_large_pages_of_4_mib():
    pages = {
        0x1000: table("<I", {0: 0x2000 | PRESENT, 0x200: 0x800000 | PRESENT | LARGE}),
        0x2000: table("<I", {5: 0x3000 | PRESENT}),
    }
    space = AddressSpace(memory_of(pages), PagingMode.X86, 0x1000)
    assert space.translate(0x5000) == 0x3000
    assert space.translate(0x80123000) == 0x923000
    assert space.translate(1 << 32) is None


@given(
    st.sampled_from(list(PagingMode)), st.integers(0, (1 << 64) - 1), st.binary(min_size=8, max_size=64), st.integers(0)
)
def test_arbitrary_tables_end_in_an_address_or_none(mode: PagingMode, address: int, pattern: bytes, top: int):
    garbage = (pattern * (PAGE_SIZE // len(pattern) + 1))[:PAGE_SIZE]
    space = AddressSpace(memory_of(dict.fromkeys(range(0, 1 << 16, PAGE_SIZE), garbage)), mode, top)
    physical = space.translate(address & -PAGE_SIZE)
    assert physical is None or physical % PAGE_SIZE == 0


@pytest.mark.parametrize(
    ("entry", "same"),
    [
        (0x4000 | PRESENT, True),
        (0x4000 | PRESENT | 1 << 5, True),  # the processor has set the accessed bit
        (0x4000 | TRANSITION, True),  # the table was trimmed, but is still the same page
        (0x5000 | PRESENT, False),
        (0x4000, False),
        (0, False),
    ],
)
def test_address_spaces_that_share_the_last_page_table_have_equal_numbers(entry: int, same: bool) -> None:
    """The upper three tables may differ. If the last one is the same physical page, all that it maps is the same."""
    own = {"x3000": table("<Q", {0x091: entry})}
    first, second = x64_space(0x9000 | PRESENT), x64_space(0x9000 | PRESENT, **own)
    ends = X64_ADDRESS, X64_ADDRESS + PAGE_SIZE
    assert (first.tables(*ends) == second.tables(*ends)) is same
    assert len(first.tables(X64_ADDRESS, X64_ADDRESS + (4 << 20))) == 3


def test_a_range_without_page_table_gives_none() -> None:
    assert x64_space(0).tables(0x1000, 0x2000) == (None,)
    assert x64_space(0).tables(1 << 60, (1 << 60) + 1) == (None,)


def test_the_parts_of_a_range_that_have_page_tables() -> None:
    """A table for 2 MiB, a large page of 2 MiB, and one of 1 GiB; the rest of 512 GiB has none."""
    pages = {
        0x1000: table("<Q", {0: 0x2000 | PRESENT}),
        0x2000: table("<Q", {1: 0x3000 | PRESENT, 4: 0x40000000 | PRESENT | LARGE}),
        0x3000: table("<Q", {2: 0x4000 | PRESENT, 5: 0x200000 | PRESENT | LARGE, 7: 0x5000 | TRANSITION}),
    }
    space = AddressSpace(memory_of(pages), PagingMode.X64, 0x1000)
    gib, table_span = 1 << 30, 1 << 21
    parts = [(gib + number * table_span, gib + (number + 1) * table_span) for number in (2, 5, 7)]
    assert list(space.mapped(0, (1 << 39) - 1)) == [*parts, (4 * gib, 5 * gib)]
    assert list(space.mapped(parts[0][0] + 0x5000, parts[0][0] + 0x7FFF)) == [
        (parts[0][0] + 0x5000, parts[0][0] + 0x8000)
    ]
    assert list(space.mapped(0, gib - 1)) == []


def test_parts_of_two_level_tables() -> None:
    pages = {0x1000: table("<I", {0: 0x2000 | PRESENT, 3: 0x400000 | PRESENT | LARGE})}
    space = AddressSpace(memory_of(pages), PagingMode.X86, 0x1000)
    assert list(space.mapped(0, (1 << 32) - 1)) == [(0, 0x400000), (0xC00000, 0x1000000)]


def test_a_table_that_maps_nothing_is_looked_at_once_however_often_it_is_entered() -> None:
    """All entries of three levels lead to the same table of zeros: 134 million entries."""
    reads = 0

    class Counting:
        def page(self, address: int) -> bytes | None:
            nonlocal reads
            reads += 1
            below = {0x1000: 0x2000, 0x2000: 0x3000}.get(address)
            return struct.pack("<512Q", *[below | PRESENT] * 512) if below else bytes(PAGE_SIZE)

    space = AddressSpace(Counting(), PagingMode.X64, 0x1000)
    assert list(space.mapped(0, (1 << 47) - 1)) == []
    assert reads < 3000
