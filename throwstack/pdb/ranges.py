# SPDX-License-Identifier: Apache-2.0
"""Ranges of code with a number each, found by an address in them. A million of them take 16 MB.

The address of a PDB is a section's number, from 1, and an offset in the section. Here both are one number, the key.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import accumulate
from operator import add, gt

_MAX_OVERLAPPING = 64


def key_of(section: int, offset: int) -> int:
    """Return the key of an address. The keys of a section are in the order of its bytes, with no others between."""
    return section << 32 | offset


class Ranges:
    """Ranges of bytes, each with a number, sorted by where they start."""

    __slots__ = ("_ends", "_numbers", "_sizes", "_starts")

    def __init__(self, starts: array[int], sizes: array[int], numbers: array[int]) -> None:
        """Range i has `sizes[i]` bytes from the key `starts[i]` on, and the number `numbers[i]`. Any order will do.

        The order of ranges that start at the same key is that of their numbers.
        """
        if any(map(gt, starts, starts[1:])):
            rows = sorted(zip(starts, numbers, sizes, strict=True))
            starts, numbers, sizes = (
                array(values.typecode, (row[column] for row in rows))
                for column, values in enumerate((starts, numbers, sizes))
            )
        self._starts, self._sizes, self._numbers = starts, sizes, numbers
        ends = array("Q", accumulate(map(add, starts, sizes), max))
        # Where the range that ends last ends, of all up to this one. It is kept only if ranges overlap.
        self._ends = ends if any(map(gt, ends, starts[1:])) else None

    @property
    def kept_bytes(self) -> int:
        """Return how many bytes of memory this takes."""
        return (24 if self._ends is not None else 16) * len(self._starts)

    def __len__(self) -> int:
        return len(self._starts)

    def covering(self, key: int) -> Iterator[int]:
        """Yield the numbers of the ranges that have the byte with this key, first those that start last.

        Of ranges that start together, the first is first. Ranges may overlap: an assembler's function can have a
        second entry with a record of its own.
        """
        starts, sizes = self._starts, self._sizes
        index = bisect_right(starts, key) - 1
        for _ in range(_MAX_OVERLAPPING):
            if index < 0:
                return
            first = bisect_left(starts, starts[index], 0, index + 1)
            for at in range(first, min(index + 1, first + _MAX_OVERLAPPING)):
                if key < starts[at] + sizes[at]:
                    yield self._numbers[at]
            index = first - 1
            if index < 0 or self._ends is None or self._ends[index] <= key:
                return

    def starting_at(self, key: int) -> list[int]:
        """Return the numbers of the ranges that start at `key`, at most 64."""
        first = bisect_left(self._starts, key)
        last = bisect_right(self._starts, key, first)
        return list(self._numbers[first : min(last, first + _MAX_OVERLAPPING)])

    def last_before(self, key: int) -> int | None:
        """Return the number of the first of those ranges that start last at or before `key`, or None."""
        index = bisect_right(self._starts, key) - 1
        return None if index < 0 else self._numbers[bisect_left(self._starts, self._starts[index], 0, index + 1)]
