# SPDX-License-Identifier: Apache-2.0
"""The physical pages in a crash dump, and how many of them a truncated file lacks."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from throwstack.core.memory import PAGE_SIZE
from throwstack.crashdump.file_bytes import ByteSource
from throwstack.crashdump.runs import PageRun


class DumpPages:
    """A `PageSource` of the physical pages in a crash dump."""

    __slots__ = ("_data", "_firsts", "runs")

    def __init__(self, data: ByteSource, runs: Sequence[PageRun]) -> None:
        """Read from `data`, the dump's file. `runs` say where in it the pages are, in the order of their frames."""
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
    def expected_pages(self) -> int:
        """Return the number of pages in a complete file."""
        return sum(run.count for run in self.runs)

    @property
    def missing_pages(self) -> int:
        """Return the number of pages that are missing because the file ends too early."""
        size = self._data.size
        return sum(run.count - min(run.count, max(0, size - run.offset) // PAGE_SIZE) for run in self.runs)
