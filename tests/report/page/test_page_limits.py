# SPDX-License-Identifier: Apache-2.0
"""How much of a report fits on a page."""

from __future__ import annotations

from tests.support.made_reports import crash, frame, stack
from throwstack.report.frame_report import Variable
from throwstack.report.page.page_limits import fitting, frames_of, letters_of


def test_all_stacks_of_a_crash_count():
    assert len(list(frames_of(crash(throwing=stack(3), blocked=stack(5))))) == 8


def test_long_names_and_many_variables_take_room():
    plain = letters_of([frame(0, 0)])
    assert letters_of([frame(0, 0, "N" * 4096)]) > plain + 8000
    assert letters_of([frame(0, 0, locals=(Variable("v", "int", None, "1"),) * 100)]) > plain + 15_000


def test_the_first_items_that_fit():
    assert [fitting([10, 10, 10], room) for room in (30, 29, 5)] == [3, 2, 0]
    assert fitting([], 0) == 0
