# SPDX-License-Identifier: Apache-2.0
"""Physical memory: pages by page frame number, handed out so that a dump has few runs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

PAGE = 0x1000
FIRST_FREE = 0x1100
"""Above the windows that Volatility scans for page tables: what is below is looked at entry by entry, which takes
seconds. A raw image has to reach that far in any case: Volatility skips a window that the file ends in."""

PageData = bytes | bytearray | memoryview


class PhysicalMemory:
    """The pages that exist, by page frame number; each has 4096 bytes, or fewer and then zeros."""

    def __init__(self) -> None:
        self.pages: dict[int, PageData] = {}
        self._next = FIRST_FREE

    def allocate(self) -> tuple[int, bytearray]:
        """Return the number and the bytes of a new page of zeros."""
        page = bytearray(PAGE)
        return self.add(page), page

    def add(self, data: PageData) -> int:
        """Put a page that is at hand (not copied) into memory and return its number."""
        while self._next in self.pages:
            self._next += 1
        self.pages[self._next] = data
        self._next += 1
        return self._next - 1

    def claim(self, number: int) -> bytearray:
        """Return the bytes of a page at a given place, made when it is not there yet."""
        page = self.pages.setdefault(number, bytearray(PAGE))
        if not isinstance(page, bytearray):
            message = f"page {number:#x} holds something else"
            raise ValueError(message)  # noqa: TRY004 - a matter of the address, not of types
        return page

    def runs(self, limit: int | None = None) -> list[tuple[int, int]]:
        """Return (first page, pages) of each run of pages, in order.

        More runs than `limit` are made fewer by filling the smallest gaps with pages of zeros.
        """
        runs = self._runs()
        if limit is not None and len(runs) > limit:
            gaps = sorted((after[0] - sum(before), sum(before)) for before, after in pairwise(runs))
            for size, start in gaps[: len(runs) - limit]:
                self.pages.update(dict.fromkeys(range(start, start + size), b""))
            runs = self._runs()
        return runs

    def _runs(self) -> list[tuple[int, int]]:
        runs: list[tuple[int, int]] = []
        for number in sorted(self.pages):
            if runs and sum(runs[-1]) == number:
                runs[-1] = (runs[-1][0], runs[-1][1] + 1)
            else:
                runs.append((number, 1))
        return runs

    def contents(self) -> Iterator[tuple[int, PageData]]:
        """Yield page numbers and whole pages, in order."""
        for number in sorted(self.pages):
            page = self.pages[number]
            yield number, page if len(page) == PAGE else bytes(page).ljust(PAGE, b"\0")
