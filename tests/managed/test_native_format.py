# SPDX-License-Identifier: Apache-2.0
"""The "native format" of precompiled images: numbers, sparse arrays, hash tables."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import native_format_writer as write
from throwstack.core.memory import PAGE_SIZE, memory_of
from throwstack.managed.metadata_error import MetadataError
from throwstack.managed.native_format import NativeSection

BASE = 0x70000


def section(data: bytes, *, lost: int | None = None) -> NativeSection:
    pages = {BASE + at: data[at : at + PAGE_SIZE] for at in range(0, len(data), PAGE_SIZE)}
    pages.pop(lost, None)
    return NativeSection(memory_of(pages), BASE, len(data))


@pytest.mark.parametrize(
    ("data", "number"),
    [
        ("00", 0),
        ("fe", 0x7F),
        ("01 02", 0x80),
        ("fd ff", 0x3FFF),
        ("03 00 02", 0x4000),
        ("07 00 00 02", 0x200000),
        ("0f 00 00 00 10", 0x10000000),
        ("0f ff ff ff ff", 0xFFFFFFFF),
    ],
)
def test_numbers_of_one_to_five_bytes(data: str, number: int) -> None:
    assert section(bytes.fromhex(data)).unsigned(0) == (number, len(bytes.fromhex(data)))
    assert write.unsigned(number) == bytes.fromhex(data)


@given(st.integers(-(1 << 31), (1 << 31) - 1))
def test_signed_numbers(number: int) -> None:
    assert section(write.signed(number)).signed(0)[0] == number


@pytest.mark.parametrize("data", ["", "01", "1f 00 00 00 00", "ff 00 00 00 00 00"])
def test_numbers_that_are_cut_or_unknown_are_refused(data: str) -> None:
    with pytest.raises(MetadataError):
        section(bytes.fromhex(data)).unsigned(0)


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(0, 99)), st.sampled_from([1, 2, 4]))
def test_each_element_of_a_sparse_array_is_found(numbers: set[int], entry_size: int) -> None:
    elements = {number: write.unsigned(number * 7 + 1) for number in numbers}
    found = section(write.array(elements, 100, entry_size=2 if entry_size == 1 else entry_size))
    assert {number: found.unsigned(offset)[0] for number, offset in found.array()} == {n: n * 7 + 1 for n in numbers}


def test_each_entry_of_a_hash_table_is_found() -> None:
    buckets = [[b"\x10", b"\x20\x21"], [], [b"\x30"], [b"\x40", b"\x50"]]
    found = section(write.hash_table(buckets))
    assert [found.data[offset] for offset in found.hash_table()] == [0x10, 0x20, 0x30, 0x40, 0x50]


def test_trees_on_absent_pages_are_left_out_and_the_section_says_so() -> None:
    elements = {number: write.unsigned(1 << 28) for number in range(2000)}
    data = write.array(elements, 2000, entry_size=4)
    whole, part = section(data), section(data, lost=BASE + 2 * PAGE_SIZE)
    assert (whole.is_whole, part.is_whole) == (True, False)
    assert len([*whole.array()]) == 2000
    kept = [number for number, _ in part.array()]
    assert 0 < len(kept) < 2000
    assert 0 in kept


def test_no_bytes_raise_another_error_or_cost_more_than_they_are() -> None:
    rng = random.Random(11)
    for _ in range(300):
        found = section(rng.randbytes(rng.randrange(1, 400)))
        for walk in (found.array, found.hash_table):
            try:
                assert sum(1 for _ in walk()) <= 1 << 20
            except MetadataError as reason:
                assert str(reason)  # noqa: PT017
