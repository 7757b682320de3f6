# SPDX-License-Identifier: Apache-2.0
"""Addresses of a stack to heights of a picture: to scale, but for the largest stretches and the unused part."""

from __future__ import annotations

from itertools import pairwise

import pytest

from throwstack.report.page.address_scale import AddressScale


def test_heights_are_to_scale():
    scale = AddressScale([0x1000, 0x1100, 0x1200, 0x1400], 400)
    assert [scale.y(address) for address in (0x1000, 0x1080, 0x1100, 0x1200, 0x1400)] == [0, 50, 100, 200, 400]
    assert scale.breaks == ()


def test_an_address_outside_has_the_height_of_the_nearest_end():
    scale = AddressScale([0x1000, 0x1100], 100)
    assert (scale.y(0), scale.y(0x5000)) == (0, 100)


def test_a_stretch_much_larger_than_all_others_together_is_shortened_and_that_is_said():
    scale = AddressScale([0, 0x100, 0x100000, 0x100100], 400)
    assert [round(scale.y(address)) for address in (0x100, 0x100000)] == [80, 320]
    (shortened,) = scale.breaks
    assert (round(shortened.y), shortened.size) == (200, 0xFFF00)


def test_three_giants_leave_a_tenth_of_the_height_to_the_others():
    edges = [0, 1000, 1000 + (1 << 30), 2000 + (1 << 30), 2000 + (2 << 30), 3000 + (2 << 30), 3000 + (3 << 30)]
    scale = AddressScale(edges, 1000)
    heights = [scale.y(high) - scale.y(low) for low, high in pairwise(edges)]
    assert heights == pytest.approx([100 / 3, 300, 100 / 3, 300, 100 / 3, 300])
    assert [shortened.size for shortened in scale.breaks] == [1 << 30] * 3


def test_what_is_below_the_innermost_frame_gets_little():
    scale = AddressScale([0, 0x100000, 0x100200, 0x100400], 115, unused_below=0x100000)
    assert scale.y(0x100000) == pytest.approx(15)
    assert [shortened.size for shortened in scale.breaks] == [0x100000]


@pytest.mark.parametrize("edges", [[], [5], [5, 5], [0, 1 << 64]])
def test_whatever_the_edges_are_heights_are_inside(edges: list[int]):
    scale = AddressScale(edges, 100)
    assert all(0 <= scale.y(address) <= 100 for address in (0, 5, 1 << 63, 1 << 65))
