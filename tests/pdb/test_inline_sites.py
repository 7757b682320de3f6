# SPDX-License-Identifier: Apache-2.0
"""Inlined functions: annotations by hand, and sites in sites."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.pdb_types import cv_record
from throwstack.pdb.inline_sites import InlineLine, line_at, read_sites

OFFSET, ADVANCE, LENGTH, FILE, LINE, BOTH, LENGTH_AND_ADVANCE = 1, 3, 4, 5, 6, 11, 12


def lines(annotations: bytes, *offsets: int) -> list[int | None]:
    """The lines at offsets of the function, counted from where the inlined function begins."""
    found = [line_at(annotations, offset) for offset in offsets]
    return [None if one is None else one.line for one in found]


def test_each_step_ends_the_range_before():
    """Line 2 from offset 4 on, line 3 from 10 on, which has 6 bytes."""
    annotations = bytes([BOTH, 4 << 4 | 4, BOTH, 2 << 4 | 6, LENGTH, 6])
    assert lines(annotations, 3, 4, 9, 10, 15, 16) == [None, 2, 2, 3, 3, None]


def test_code_4_gives_a_length_and_advances_by_it():
    annotations = bytes([ADVANCE, 4, LENGTH, 8, BOTH, 2 << 4 | 0, LENGTH, 4])
    assert lines(annotations, 4, 11, 12, 15, 16) == [0, 0, 1, 1, None]


def test_code_12_gives_a_length_and_does_not_advance_by_it():
    """8 bytes at 4, then a range that begins 0x10 after 4, and not 0x10 after its end."""
    annotations = bytes([LENGTH_AND_ADVANCE, 8, 4, LENGTH_AND_ADVANCE, 2, 0x10])
    assert lines(annotations, 3, 4, 11, 12, 0x13, 0x14, 0x15, 0x16) == [None, 0, 0, None, None, 0, 0, None]


def test_lines_go_back_too():
    """The lowest bit of a number is its sign."""
    assert lines(bytes([LINE, 5 << 1, ADVANCE, 0, LINE, 7 << 1 | 1, ADVANCE, 4, LENGTH, 4]), 0, 4) == [5, -2]


def test_numbers_of_two_and_four_bytes():
    annotations = bytes([ADVANCE, 0x81, 0x00, LENGTH, 0xC0, 0x01, 0x00, 0x00])
    assert lines(annotations, 0xFF, 0x100, 0x100FF, 0x10100) == [None, 0, 0, None]


def test_another_file_and_an_absolute_offset():
    annotations = bytes([FILE, 24, OFFSET, 0x40, ADVANCE, 0, LENGTH, 4])
    assert line_at(annotations, 0x41) == InlineLine(24, 0)
    assert line_at(bytes([ADVANCE, 0, LENGTH, 4]), 0) == InlineLine(None, 0)


def test_an_absolute_offset_may_go_back():
    """So a range that begins after the place that is asked for is no reason to stop there."""
    annotations = bytes([ADVANCE, 0x40, LENGTH, 4, OFFSET, 0x10, LINE, 2 << 1, ADVANCE, 0, LENGTH, 4])
    assert lines(annotations, 0x0F, 0x10, 0x13, 0x14, 0x40) == [None, 2, 2, None, 0]


@pytest.mark.parametrize("annotations", [b"", b"\0\0\0", bytes([ADVANCE]), bytes([ADVANCE, 0xC0, 1]), b"\xff" * 8])
def test_annotations_that_are_cut(annotations):
    assert line_at(annotations, 0) is None


def site(number: int, begin: int, size: int, *inside: bytes) -> bytes:
    """A site with `size` bytes from `begin` on, and the records of the sites in it."""
    annotations = bytes([ADVANCE, begin, LENGTH, size])
    return (
        cv_record(0x114D, struct.pack("<III", 0, 0, number) + annotations) + b"".join(inside) + cv_record(0x114E, b"")
    )


def ids(body: bytes, offset: int) -> list[int]:
    return [found.id for found, _ in read_sites(body).at(offset)]


BODY = b"".join(
    [
        cv_record(0x1110, bytes(40)),
        site(1, 0x10, 0x20, site(2, 0x14, 4, site(3, 0x15, 1)), site(4, 0x18, 4)),
        cv_record(0x1111, bytes(12)),
        site(5, 0x40, 0x10, site(6, 0x44, 4)),
    ]
)


def test_sites_in_sites():
    chains = {offset: ids(BODY, offset) for offset in (0x0F, 0x10, 0x14, 0x15, 0x18, 0x1C, 0x30, 0x44, 0x48)}
    assert chains == {
        0x0F: [], 0x10: [1], 0x14: [1, 2], 0x15: [1, 2, 3], 0x18: [1, 4], 0x1C: [1], 0x30: [], 0x44: [5, 6], 0x48: [5],
    }  # fmt: skip


def test_a_million_sites_in_each_other_end():
    body = b"".join(cv_record(0x114D, bytes(16)) for _ in range(10_000))
    assert max(found.depth for found in read_sites(body).sites) <= 256


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, len(BODY) - 1), st.integers(0, 255)), max_size=8), st.integers(0, 0x60))
def test_damage_raises_nothing(changes, offset):
    body = bytearray(BODY)
    for at, value in changes:
        body[at] = value
    chain = read_sites(bytes(body)).at(offset)
    assert [found.depth for found, _ in chain] == list(range(1, len(chain) + 1))
