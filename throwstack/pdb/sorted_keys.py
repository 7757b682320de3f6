# SPDX-License-Identifier: Apache-2.0
"""Binary search in a sorted table of a file, of which only the entries that the search touches are read."""

from __future__ import annotations

from collections.abc import Callable

_MAX_REMEMBERED = 1 << 16


class SortedKeys:
    """The keys of a table of `count` entries, read one by one and remembered: all searches begin with the same ones."""

    __slots__ = ("_count", "_key_at", "_known")

    def __init__(self, count: int, key_at: Callable[[int], int]) -> None:
        """`key_at` returns the key of the entry with an index from 0 to `count` - 1. Keys do not decrease."""
        self._count = count
        self._key_at = key_at
        self._known: dict[int, int] = {}

    def __getitem__(self, index: int) -> int:
        found = self._known.get(index)
        if found is None:
            found = self._known[index] = self._key_at(index)
        return found

    def last_at_or_before(self, key: int) -> int:
        """Return the index of the last entry whose key is `key` or less, or -1."""
        low, high = 0, self._count
        known = self._known
        if len(known) > _MAX_REMEMBERED:
            known.clear()
        while low < high:
            middle = (low + high) // 2
            found = known.get(middle)
            if found is None:
                found = known[middle] = self._key_at(middle)
            if found <= key:
                low = middle + 1
            else:
                high = middle
        return low - 1
