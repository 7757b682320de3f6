# SPDX-License-Identifier: Apache-2.0
"""The comparison of locks finds what is said wrongly."""

from __future__ import annotations

import pytest

from tests.live.locks import problems

ROLES = {
    "8": "deadlock: has section 0, waits for section 1",
    "12": "deadlock: has section 1, waits for section 0",
    "16": "deadlock: waits for section 0",
    "20": "waits on an event",
}


def row(tid: int, owner: int | None, deadlock: str | None) -> dict[str, object]:
    lock = None if owner is None else f"critical section 0x1000, owned by thread {owner}, 1 waiting"
    return {"TID": tid, "Lock": lock, "Deadlock": deadlock}


GOOD = [
    row(8, 12, "deadlock 4:8 -> 4:12 -> 4:8"),
    row(12, 8, "deadlock 4:12 -> 4:8 -> 4:12"),
    row(16, 8, "waits behind deadlock 4:8 -> 4:12 -> 4:8"),
    row(20, None, None),
]


def test_what_is_said_rightly_is_no_problem():
    assert problems(ROLES, GOOD) == []


@pytest.mark.parametrize(
    ("index", "wrong"),
    [
        (0, row(8, 16, "deadlock 4:8 -> 4:12 -> 4:8")),
        (1, row(12, 8, None)),
        (1, row(12, 8, "deadlock 4:12 -> 4:20 -> 4:12")),
        (2, row(16, 8, "deadlock 4:8 -> 4:12 -> 4:8")),
        (2, row(16, None, "waits behind deadlock 4:8 -> 4:12 -> 4:8")),
        (3, row(20, 8, None)),
        (3, row(24, None, "deadlock 4:8 -> 4:12 -> 4:8")),
    ],
)
def test_what_is_said_wrongly_is_one(index: int, wrong: dict[str, object]):
    assert len(problems(ROLES, [*GOOD[:index], wrong, *GOOD[index + 1 :]])) == 1


def test_a_missing_row_is_one():
    assert problems(ROLES, GOOD[1:]) == ["no row of thread 8"]
