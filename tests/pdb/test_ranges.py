# SPDX-License-Identifier: Apache-2.0
"""Ranges of code, found by an address in them."""

from __future__ import annotations

from array import array

from hypothesis import given, settings
from hypothesis import strategies as st

from throwstack.pdb.ranges import Ranges, key_of


def ranges(*rows: tuple[int, int, int]) -> Ranges:
    """Ranges of (start, size, number)."""
    starts, sizes, numbers = zip(*rows, strict=True) if rows else ((), (), ())
    return Ranges(array("Q", starts), array("I", sizes), array("I", numbers))


def test_functions_one_after_the_other():
    found = ranges((0x100, 0x20, 1), (0x120, 0x10, 2), (0x140, 0x10, 3))
    assert [list(found.covering(at)) for at in (0xFF, 0x100, 0x11F, 0x120, 0x130, 0x14F, 0x150)] == [
        [], [1], [1], [2], [], [3], [],
    ]  # fmt: skip
    assert [found.last_before(at) for at in (0xFF, 0x100, 0x135, 0x1000)] == [None, 1, 2, 3]


def test_a_second_entry_inside_a_function_is_found_first():
    """`memmove` of an assembler's file has entries for sizes. After the end of such an entry the whole goes on."""
    found = ranges((0x100, 0x100, 1), (0x140, 0x10, 2))
    assert [list(found.covering(at)) for at in (0x13F, 0x140, 0x14F, 0x150)] == [[1], [2, 1], [2, 1], [1]]


def test_folded_functions_are_in_the_order_of_their_records():
    found = ranges((0x200, 8, 9), (0x100, 0x20, 7), (0x100, 0x20, 5))
    assert list(found.covering(0x104)) == [5, 7]
    assert found.starting_at(0x100) == [5, 7]
    assert found.starting_at(0x104) == []


def test_keys_of_two_sections_do_not_meet():
    found = ranges((key_of(1, 0xFFFFFFF0), 0x10, 1), (key_of(2, 0), 0x10, 2))
    assert list(found.covering(key_of(2, 0))) == [2]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 30)), max_size=20), st.integers(0, 100))
def test_the_same_as_looking_at_each(rows, key):
    numbered = [(start, size, number) for number, (start, size) in enumerate(rows)]
    found = list(ranges(*numbered).covering(key))
    assert sorted(found) == [number for start, size, number in numbered if start <= key < start + size]
    assert found == sorted(found, key=lambda number: (-rows[number][0], number))
