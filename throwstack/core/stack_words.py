# SPDX-License-Identifier: Apache-2.0
"""Finds the words of a stack that are addresses in given ranges of code, in one pass for all ranges.

Nearly every page of a stack has no such word, and a cheap test rules it out. For example, a word in the range 77E4A000
to 77E4BFFF has 77E4 in its bits 16 to 31. So these 16 bits of all addresses in all ranges are collected once. A page
passes the test if one of its words has a collected value in its bits 16 to 31, and only then are the words of the page
compared with the ranges.

Results are remembered by the contents of the page, so that a physical page that is mapped many times is searched once.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

from throwstack.core.memory import PAGE_SIZE, Memory

_HALF = 16
_HALVES = 1 << _HALF
_MAX_REMEMBERED = 8192
"""The most pages whose results are remembered. Their bytes are shared with the machine's larger page cache."""

_Offsets = Sequence[int]


class CodeRanges:
    """A set of ranges of code addresses, which finds the words of a page whose value is in one of the ranges."""

    __slots__ = ("_answers", "_ends", "_halves", "_size", "_starts", "pages_looked_at")

    def __init__(self, ranges: Iterable[tuple[int, int]], size: int) -> None:
        """`ranges` are pairs (first, last), both inclusive, in any order; they may overlap. A word has `size` bytes."""
        self._starts: list[int] = []
        self._ends: list[int] = []
        for first, last in sorted(ranges):
            if self._ends and first <= self._ends[-1] + 1:
                self._ends[-1] = max(self._ends[-1], last)
            elif first <= last:
                self._starts.append(first)
                self._ends.append(last)
        self._size = size
        self._halves = frozenset(
            half % _HALVES
            for first, last in zip(self._starts, self._ends, strict=True)
            for half in range(first >> _HALF, (last >> _HALF) + 1)
        )
        self._answers: dict[bytes, _Offsets] = {}
        self.pages_looked_at = 0
        """Number of pages searched so far. A page whose result was remembered is not counted again."""

    def __len__(self) -> int:
        """Return the number of ranges after overlapping ones are merged."""
        return len(self._starts)

    def __contains__(self, address: int) -> bool:
        """Say whether `address` is in one of the ranges."""
        index = bisect_right(self._starts, address) - 1
        return index >= 0 and address <= self._ends[index]

    def is_known(self, page: bytes) -> bool:
        """Say whether the result of `offsets` for `page` is remembered, so that the page need not be searched."""
        return page in self._answers

    def offsets(self, page: bytes) -> _Offsets:
        """Return the offsets of the aligned words of `page` whose value is in one of the ranges, ascending."""
        known = self._answers.get(page)
        if known is None:
            if len(self._answers) >= _MAX_REMEMBERED:
                self._answers.clear()
            known = self._answers[page] = self._find(page)
        return known

    def _find(self, page: bytes) -> _Offsets:
        self.pages_looked_at += 1
        view = memoryview(page)
        if self._halves.isdisjoint(view.cast("H")[1 :: self._size // 2]):
            return ()
        words = view.cast("I" if self._size == 4 else "Q").tolist()
        inside = {word for word in set(words) if (word >> _HALF) % _HALVES in self._halves and word in self}
        if not inside:
            return ()
        return array("H", (index * self._size for index, word in enumerate(words) if word in inside))


def pages_between(memory: Memory, low: int, high: int) -> Iterator[tuple[int, bytes | None]]:
    """Yield address and contents of every page from `low` to `high`; the contents of an absent page are None."""
    for address in range(low & -PAGE_SIZE, high, PAGE_SIZE):
        yield address, memory.page(address)


def words_equal(data: bytes, word: int, size: int) -> Iterator[int]:
    """Yield the offsets of the words of `data` that are `word`, ascending. A word has `size` bytes, and is aligned."""
    wanted = word.to_bytes(size, "little")
    at = data.find(wanted)
    while at >= 0:
        if at % size == 0:
            yield at
        at = data.find(wanted, at + 1)


def round_up(address: int, unit: int) -> int:
    """Return `address`, or the next higher multiple of `unit`."""
    return -(-address // unit) * unit
