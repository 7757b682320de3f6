# SPDX-License-Identifier: Apache-2.0
"""Writes all readable memory of a process, page by page, without keeping it.

A process may have reserved far more than it uses: 64 GiB, of which 4 GiB are in memory. So the regions are not searched
page by page. `MemorySource.candidates` names the parts for which there are page tables (2 MiB each on x64), and only
these are looked at.

A hostile dump may map one physical page a billion times. `Limits` says how many pages are looked at and written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from throwstack.core.memory import PAGE_SIZE
from throwstack.minidump.dumped import DumpedRegion, Span
from throwstack.minidump.memory_lists import COMMIT, WrittenMemory

_CHUNK = 256
_MAX_RANGES = 1 << 20
_LARGEST = 1 << 18
"""The pages of the largest part that is looked at before the limits are asked: a large page of 1 GiB."""
_MARGIN = _LARGEST // 2
"""The most ranges in such a part."""


class MemorySource(Protocol):
    """Where the memory of a full minidump comes from."""

    def page(self, address: int) -> bytes | None:
        """Return the page at the page-aligned `address`, or None if it is absent."""
        ...

    def candidates(self, span: Span) -> Iterator[Span]:
        """Yield the parts of `span`, whole pages, that may have readable pages, in address order."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """The most pages that are looked at, and the most that are written."""

    looked_at: int
    written: int


class FullMemory:
    """The readable memory of a process's regions."""

    def __init__(self, source: MemorySource, regions: Iterable[DumpedRegion], limits: Limits) -> None:
        """`regions` are in address order and do not overlap."""
        self._source = source
        self._regions = tuple(regions)
        self._limits = limits
        self.absent = 0
        """How many bytes of committed regions were looked at and are not readable."""
        self.untouched = 0
        """How many bytes of committed private regions the process has never touched: they are zeros, and left out."""
        self.is_cut = False
        """Whether a limit was reached."""

    def bound(self) -> tuple[int, int]:
        """Return the most bytes, and the most ranges, that there can be."""
        pages = ranges = 0
        for region in self._regions:
            for span in self._source.candidates(region.span):
                count = (span.end - span.start) // PAGE_SIZE
                pages += count
                ranges += count // 2 + 1
                if pages > self._limits.looked_at:
                    return self._limits.written * PAGE_SIZE, _MAX_RANGES
        return min(pages, self._limits.written + _LARGEST) * PAGE_SIZE, min(ranges, _MAX_RANGES)

    def parts(self, written: WrittenMemory) -> Iterator[bytes]:
        """Yield the memory, many pages at a time, and add its ranges to `written`. No range is in two regions."""
        chunk: list[bytes] = []
        looked_at = pages = 0
        page = self._source.page
        for region in self._regions:
            end = -1
            is_committed, looked_at_before, pages_before = region.state == COMMIT, looked_at, pages
            for span in self._source.candidates(region.span):
                for address in range(span.start, span.end, PAGE_SIZE):
                    looked_at += 1
                    data = page(address)
                    if data is None:
                        continue
                    if address == end:
                        written.extend(PAGE_SIZE)
                    else:
                        written.add(address, PAGE_SIZE)
                    end = address + PAGE_SIZE
                    pages += 1
                    chunk.append(data)
                    if len(chunk) == _CHUNK:
                        yield b"".join(chunk)
                        chunk.clear()
                if self._is_spent(looked_at, pages, len(written)):
                    self.is_cut = True
                    yield b"".join(chunk)
                    return
            if is_committed:
                self.absent += (looked_at - looked_at_before - pages + pages_before) * PAGE_SIZE
                size = region.span.end - region.span.start
                self.untouched += size - (looked_at - looked_at_before) * PAGE_SIZE
        yield b"".join(chunk)

    def _is_spent(self, looked_at: int, pages: int, ranges: int) -> bool:
        limits = self._limits
        return looked_at > limits.looked_at or pages > limits.written or ranges > _MAX_RANGES - _MARGIN
