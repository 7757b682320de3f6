# SPDX-License-Identifier: Apache-2.0
"""Words of a stack that are in one of many ranges, and pages whose answer is remembered."""

from __future__ import annotations

import random
import struct

import pytest

from throwstack.core.memory import PAGE_SIZE
from throwstack.core.stack_words import CodeRanges, round_up, words_equal

FILTER = (0x77E7608E, 0x77E7A08D)
FORMATS = {4: "<1024I", 8: "<512Q"}


def page_of(size: int, *words: int, fill: int = 0) -> bytes:
    count = PAGE_SIZE // size
    return struct.pack(FORMATS[size], *words, *[fill] * (count - len(words)))


def test_ranges_that_overlap_or_touch_are_merged():
    ranges = CodeRanges([(0x2000, 0x2FFF), (0x1000, 0x17FF), (0x1800, 0x1FFF), (0x2800, 0x3000), (0x5000, 0x4FFF)], 4)
    assert len(ranges) == 1
    assert [address in ranges for address in (0xFFF, 0x1000, 0x3000, 0x3001, 0x5000)] == [
        False,
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("size", [4, 8])
def test_the_words_in_a_range_are_found_and_no_others(size: int):
    random_words = random.Random(1)
    high = 0x7FFB << 32 if size == 8 else 0
    spans = [(high + base, high + base + 0x3FFF) for base in (0x77E7608E, 0x7C82F000, 0x79004F66)]
    ranges = CodeRanges(spans, size)
    for _ in range(50):
        words = [
            high + random_words.choice((0, base, base + random_words.randrange(-16, 0x4010)))
            for base in random_words.choices([first - high for first, _ in spans], k=PAGE_SIZE // size)
        ]
        expected = [
            index * size for index, word in enumerate(words) if any(first <= word <= last for first, last in spans)
        ]
        assert list(ranges.offsets(struct.pack(FORMATS[size], *words))) == expected


def test_an_address_that_is_not_aligned_is_not_found():
    page = bytearray(PAGE_SIZE)
    struct.pack_into("<I", page, 0x201, FILTER[0])
    assert not CodeRanges([FILTER], 4).offsets(bytes(page))


def test_a_page_with_known_contents_is_not_searched_again():
    """4,096 virtual pages can be one physical page: their bytes are equal, but read again for each."""
    ranges = CodeRanges([FILTER], 4)
    for _ in range(4096):
        assert len(ranges.offsets(page_of(4, FILTER[0]))) == 1
    assert ranges.pages_looked_at == 1


def test_a_page_is_searched_once_for_all_ranges():
    few = CodeRanges([FILTER], 4)
    many = CodeRanges([(base, base + 0x3FFF) for base in range(0x10000000, 0x70000000, 0x20000)], 4)
    pages = [page_of(4, fill=word) for word in range(100)]
    for ranges in (few, many):
        assert not any(ranges.offsets(page) for page in pages)
    assert few.pages_looked_at == many.pages_looked_at == len(pages)


@pytest.mark.parametrize("size", [4, 8])
def test_aligned_words_with_a_value_are_found_from_the_first_to_the_last(size: int):
    word = 0x77E7608E.to_bytes(size, "little")
    other = bytes(size)
    assert list(words_equal(word + other + word + word, 0x77E7608E, size)) == [0, 2 * size, 3 * size]
    assert list(words_equal(other + word[:-1], 0x77E7608E, size)) == []
    assert list(words_equal(b"\0" + word + other[1:], 0x77E7608E, size)) == []
    assert list(words_equal(b"\xaa" * (2 * size + 1), int.from_bytes(b"\xaa" * size, "little"), size)) == [0, size]


def test_an_address_is_rounded_up_to_a_multiple():
    assert [round_up(address, 8) for address in (0x1000, 0x1001, 0x1007, 0x1008)] == [0x1000, 0x1008, 0x1008, 0x1008]
