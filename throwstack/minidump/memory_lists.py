# SPDX-License-Identifier: Apache-2.0
"""The streams about memory: MemoryList of a small minidump, Memory64List of a full one, and MemoryInfoList.

MINIDUMP_MEMORY_DESCRIPTOR, MINIDUMP_MEMORY_DESCRIPTOR64 and MINIDUMP_MEMORY_INFO of minidumpapiset.h. The memory of a
Memory64List is one part of the file, in the order of the list, so that it may be longer than 4 GiB.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

from throwstack.minidump.dumped import DumpedRegion, Span
from throwstack.minidump.minidump_file import MAX_RVA, NOWHERE, Placement

COMMIT, RESERVE = 0x1000, 0x2000
_DESCRIPTOR = struct.Struct("<QII")
_LIST64_HEAD = struct.Struct("<QQ")
_INFO_HEAD = struct.Struct("<IIQ")
_INFO = struct.Struct("<QQIIQIIII")
INFO_SIZE, DESCRIPTOR64_SIZE, HEADS_SIZE = _INFO.size, 16, 32
"""Sizes of the elements of MemoryInfoList and Memory64List, and room for the head of either."""
_CHUNK = 1 << 12


class WrittenMemory:
    """The ranges of memory that a minidump has, ascending, and where their bytes are in the file."""

    def __init__(self, base: int) -> None:
        """Begin with no range. `base` is the offset in the file of the first range's bytes; the others follow it."""
        self.base = base
        self._starts = array("Q")
        self._ends = array("Q")
        self._offsets = array("Q")
        self.size = 0

    def __len__(self) -> int:
        """Return the number of ranges."""
        return len(self._starts)

    def __iter__(self) -> Iterator[Span]:
        """Yield the ranges in address order."""
        return map(Span, self._starts, self._ends)

    def add(self, start: int, size: int) -> None:
        """Add a range after the last one; it gets a range of its own even if it follows that one at once."""
        self._starts.append(start)
        self._ends.append(start + size)
        self._offsets.append(self.size)
        self.size += size

    def extend(self, size: int) -> None:
        """Make the last range longer by `size` bytes."""
        self._ends[-1] += size
        self.size += size

    def placed(self, span: Span) -> Placement:
        """Return where a range of memory is in the file; `NOWHERE` if it is not in one range, or after 4 GiB."""
        index = bisect_right(self._starts, span.start) - 1
        if index < 0 or span.end > self._ends[index]:
            return NOWHERE
        rva = self.base + self._offsets[index] + span.start - self._starts[index]
        return Placement(span.end - span.start, rva) if rva + span.end - span.start <= MAX_RVA else NOWHERE

    def between(self, start: int, end: int) -> Iterator[Span]:
        """Yield the parts of the ranges that are in `start` <= address < `end`."""
        index = max(bisect_right(self._starts, start) - 1, 0)
        while index < len(self._starts) and self._starts[index] < end:
            low, high = max(self._starts[index], start), min(self._ends[index], end)
            if low < high:
                yield Span(low, high)
            index += 1


def memory_list(written: WrittenMemory) -> Iterator[bytes]:
    """Yield the stream MemoryList; the memory is in the file already, below 4 GiB."""
    yield struct.pack("<I", len(written))
    for span in written:
        where = written.placed(span)
        yield _DESCRIPTOR.pack(span.start, *where)


def memory64_list(written: WrittenMemory) -> Iterator[bytes]:
    """Yield the stream Memory64List."""
    yield _LIST64_HEAD.pack(len(written), written.base)
    for span in written:
        yield struct.pack("<QQ", span.start, span.end - span.start)


def memory_info_list(regions: Sequence[DumpedRegion], written: WrittenMemory) -> Iterator[bytes]:
    """Yield the stream MemoryInfoList.

    A region is cut where memory that was written begins or ends, because that is committed also in a region which was
    only reserved, as most of a stack is. So each range of a Memory64List begins an element, as udmp-parser wants it.
    """
    count = sum(1 for _ in _cut(regions, written))
    yield _INFO_HEAD.pack(_INFO_HEAD.size, _INFO.size, count)
    chunk: list[bytes] = []
    for region in _cut(regions, written):
        start, end = region.span
        chunk.append(
            _INFO.pack(
                *(start, region.base, region.allocated_as, 0, end - start),
                *(region.state, region.protection, region.kind, 0),
            )
        )
        if len(chunk) == _CHUNK:
            yield b"".join(chunk)
            chunk.clear()
    yield b"".join(chunk)


def _cut(regions: Iterable[DumpedRegion], written: WrittenMemory) -> Iterator[DumpedRegion]:
    for region in regions:
        at, end = region.span
        for span in written.between(at, end):
            if at < span.start:
                yield _part(region, at, span.start, region.state)
            yield _part(region, span.start, span.end, COMMIT)
            at = span.end
        if at < end:
            yield _part(region, at, end, region.state)


def _part(region: DumpedRegion, start: int, end: int, state: int) -> DumpedRegion:
    protection = region.protection if state == COMMIT else 0
    return DumpedRegion(Span(start, end), region.base, region.allocated_as, state, protection, region.kind)
