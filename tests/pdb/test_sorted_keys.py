# SPDX-License-Identifier: Apache-2.0
"""Binary search in a table of a file."""

from __future__ import annotations

from bisect import bisect_right

from hypothesis import given, settings
from hypothesis import strategies as st

from throwstack.pdb.sorted_keys import SortedKeys


def test_few_entries_are_read():
    read: list[int] = []

    def key(index: int) -> int:
        read.append(index)
        return 10 * index

    keys = SortedKeys(1 << 20, key)
    assert keys.last_at_or_before(123_456_7) == 123_456
    assert len(read) <= 20
    assert keys.last_at_or_before(123_457_7) == 123_457
    assert len(read) <= 22
    assert keys[3] == 30


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 50), max_size=40).map(sorted), st.integers(-1, 51))
def test_the_same_as_bisect(table, key):
    assert SortedKeys(len(table), table.__getitem__).last_at_or_before(key) == bisect_right(table, key) - 1
