# SPDX-License-Identifier: Apache-2.0
"""What is kept of PDBs in memory, up to a limit."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from throwstack.pdb.kept import Kept


@dataclass
class Part:
    kept_bytes: int


def test_what_was_not_used_for_the_longest_time_goes_first():
    kept = Kept(limit=100)
    first = kept.get((1, "a"), lambda: Part(40))
    second = kept.get((1, "b"), lambda: Part(40))
    assert kept.get((1, "a"), pytest.fail) is first
    kept.get((2, "c"), lambda: Part(30))
    assert kept.size == 70
    assert kept.get((1, "a"), pytest.fail) is first
    assert kept.get((1, "b"), lambda: Part(1)) is not second


def test_a_part_larger_than_the_limit_is_kept_alone():
    """A module with a million functions is in use all the same."""
    kept = Kept(limit=100)
    kept.get((1, "a"), lambda: Part(40))
    giant = kept.get((1, "b"), lambda: Part(400))
    assert (kept.size, kept.get((1, "b"), pytest.fail)) == (400, giant)
    kept.get((1, "c"), lambda: Part(10))
    assert kept.size == 10


def test_a_closed_pdb_is_forgotten():
    kept = Kept(limit=100)
    kept.get((1, "a"), lambda: Part(40))
    other = kept.get((2, "a"), lambda: Part(30))
    kept.forget(1)
    assert (kept.size, kept.get((2, "a"), pytest.fail)) == (30, other)
