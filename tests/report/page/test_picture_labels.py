# SPDX-License-Identifier: Apache-2.0
"""Labels of a picture: which frames have one, and where."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from throwstack.report.page.picture_labels import LINE, MOST_LABELS, chosen, placed


def test_all_frames_of_a_short_stack_have_a_label():
    assert chosen([8] * MOST_LABELS) == list(range(MOST_LABELS))


def test_of_a_long_stack_the_ends_the_guesses_and_the_largest_frames_have_one():
    sizes = [8] * 10_000
    sizes[5000] = 4096
    found = chosen(sizes, guessed=[7000], wanted=[3000])
    assert len(found) == MOST_LABELS
    assert found == sorted(found)
    assert {0, 13, 9992, 9999, 5000, 7000, 3000} <= set(found)


def test_labels_are_where_their_frames_are():
    assert placed([10, 100, 300], 400) == [10, 100, 300]


def test_labels_of_one_place_are_around_it():
    assert placed([100, 100, 100], 400) == [100 - LINE, 100, 100 + LINE]


def test_labels_at_the_edges_are_inside():
    assert placed([0, 0, 400, 400], 400) == [LINE / 2, 1.5 * LINE, 400 - 1.5 * LINE, 400 - LINE / 2]


@given(st.lists(st.integers(0, 1000), max_size=50))
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_no_label_is_on_another_or_outside(wanted: list[int]):
    ys = placed(sorted(wanted), 1000)
    assert len(ys) == len(wanted)
    assert all(later - earlier > LINE - 1e-6 for earlier, later in pairwise(ys))
    assert all(LINE / 2 - 1e-6 <= y <= 1000 - LINE / 2 + 1e-6 for y in ys)
