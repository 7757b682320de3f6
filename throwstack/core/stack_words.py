# SPDX-License-Identifier: Apache-2.0
"""Words of a stack that are addresses in given ranges of code: one pass, whatever the number of ranges.

A word can only be in one of the ranges if its second 16 bits are among those of their addresses. So each page is asked
once, for all ranges together, whether it has such 16 bits where a word has its second ones, and nearly every page says
no. Pages are remembered by their contents: many virtual pages that are one physical page cost little more than one.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

from throwstack.core.memory import PAGE_SIZE, Memory

_HALF = 16
_HALVES = 1 << _HALF
_MAX_REMEMBERED = 8192
"""Pages whose answer is kept. The pages themselves are those of the machine's cache, which is larger."""

Answer = Sequence[int]


class CodeRanges:
    """Ranges of addresses, merged, and which words of a page are in one of them."""

    __slots__ = ("_answers", "_ends", "_halves", "_size", "_starts", "pages_looked_at")

    def __init__(self, ranges: Iterable[tuple[int, int]], size: int) -> None:
        """Take [first, last] in any order, overlapping or not; `size` is that of a word in bytes."""
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
        self._answers: dict[bytes, Answer] = {}
        self.pages_looked_at = 0
        """How many pages were gone through so far, without those that were remembered."""

    def __len__(self) -> int:
        """Return how many ranges there are once they are merged."""
        return len(self._starts)

    def __contains__(self, address: int) -> bool:
        """Say whether `address` is in one of the ranges."""
        index = bisect_right(self._starts, address) - 1
        return index >= 0 and address <= self._ends[index]

    def is_known(self, page: bytes) -> bool:
        """Say whether `offsets` remembers its answer for a page."""
        return page in self._answers

    def offsets(self, page: bytes) -> Answer:
        """Return the offsets of the aligned words of a page that are in one of the ranges, in order."""
        known = self._answers.get(page)
        if known is None:
            if len(self._answers) >= _MAX_REMEMBERED:
                self._answers.clear()
            known = self._answers[page] = self._find(page)
        return known

    def _find(self, page: bytes) -> Answer:
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
    """Yield address and contents of every page from `low` to `high`; None where it is not there."""
    for address in range(low & -PAGE_SIZE, high, PAGE_SIZE):
        yield address, memory.page(address)
