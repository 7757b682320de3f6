# SPDX-License-Identifier: Apache-2.0
"""The physical pages in a crash dump, and how many of them a truncated file lacks."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from throwstack.core.memory import PAGE_SIZE
from throwstack.crashdump.file_bytes import ByteSource
from throwstack.crashdump.runs import PageRun


@dataclass(frozen=True, slots=True)
class Extent:
    """How many pages a dump ought to hold, and how many of them are missing because the file is cut off."""

    expected: int
    missing: int

    @property
    def missing_share(self) -> float:
        """Return the number of missing pages divided by the number of expected pages, from 0 to 1."""
        return self.missing / self.expected if self.expected else 0.0


class DumpPages:
    """A `PageSource` of the physical pages in a crash dump."""

    __slots__ = ("_data", "_firsts", "runs")

    def __init__(self, data: ByteSource, runs: Sequence[PageRun]) -> None:
        """`data` is the dump's file. `runs` say where in the file the pages are, sorted by frame number."""
        self._data = data
        self.runs = tuple(runs)
        self._firsts = [run.first for run in self.runs]

    def page(self, address: int) -> bytes | None:
        """Return the physical page at the page-aligned `address`, or None if the dump does not hold it."""
        frame = address // PAGE_SIZE
        index = bisect_right(self._firsts, frame) - 1
        if index < 0:
            return None
        run = self.runs[index]
        if frame >= run.first + run.count:
            return None
        page = self._data.read(run.offset + (frame - run.first) * PAGE_SIZE, PAGE_SIZE)
        return page if len(page) == PAGE_SIZE else None

    @property
    def extent(self) -> Extent:
        """Return how many pages the dump ought to hold, and how many of them are missing at its end."""
        size = self._data.size
        missing = (run.count - min(run.count, max(0, size - run.offset) // PAGE_SIZE) for run in self.runs)
        return Extent(sum(run.count for run in self.runs), sum(missing))
