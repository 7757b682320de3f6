# SPDX-License-Identifier: Apache-2.0
"""Physical memory as a crash dump holds it, and how much of it the file lacks."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from throwstack.core.memory import PAGE_SIZE
from throwstack.crashdump.file_bytes import ByteSource
from throwstack.crashdump.runs import PageRun


class DumpPages:
    """A `PageSource` of physical pages."""

    __slots__ = ("_data", "_firsts", "runs")

    def __init__(self, data: ByteSource, runs: Sequence[PageRun]) -> None:
        """Take the pages from `data` where `runs`, in order of their frames, have them."""
        self._data = data
        self.runs = tuple(runs)
        self._firsts = [run.first for run in self.runs]

    def page(self, address: int) -> bytes | None:
        """Return the physical page at the page-aligned `address`, or None."""
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
        """Return how many pages the dump ought to hold."""
        return sum(run.count for run in self.runs)

    @property
    def missing_pages(self) -> int:
        """Return how many of them lie behind the end of the file."""
        size = self._data.size
        return sum(run.count - min(run.count, max(0, size - run.offset) // PAGE_SIZE) for run in self.runs)
