# SPDX-License-Identifier: Apache-2.0
"""Answers that are kept, up to a limit of bytes."""

from __future__ import annotations

from throwstack.pdb.remembered import Remembered


def test_an_answer_is_made_once():
    made: list[int] = []
    known = Remembered[int, str](10_000, len)
    assert [known.get(key, lambda key: made.append(key) or str(key)) for key in (1, 2, 1, 2)] == ["1", "2", "1", "2"]
    assert made == [1, 2]


def test_large_answers_are_not_all_kept():
    known = Remembered[int, str](100_000, len)
    most = 0
    for key in range(1000):
        assert len(known.get(key, lambda _: "x" * 9_000)) == 9_000
        most = max(most, len(known))
    assert 5 <= most <= 11
