# SPDX-License-Identifier: Apache-2.0
"""Virtual memory as throwstack reads it: a source of pages, a cache of pages, and typed little-endian reads.

A `PageSource` provides the bytes, for example of a process in a dump, of byte strings in a test, or of a live capture.
`Memory` adds a bounded page cache, because unwinding reads the same few pages over and over.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import Protocol

from throwstack.core.errors import ThrowstackError

PAGE_SIZE = 0x1000
_PAGE_MASK = PAGE_SIZE - 1
_END = 1 << 64
"""End of the address space. A hostile pointer plus an offset can be beyond it; such a page counts as absent."""

_U16 = struct.Struct("<H")
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


class MemoryUnreadable(ThrowstackError):
    """A read touched a page that is absent. `address` is the first byte that could not be read."""

    def __init__(self, address: int) -> None:
        super().__init__(f"memory at {address:#x} is not readable")
        self.address = address


class PageSource(Protocol):
    """Provides the pages of an address space."""

    def page(self, address: int) -> bytes | None:
        """Return the 4096 bytes of the page at the page-aligned `address`, or None if it is absent."""
        ...


class Memory:
    """One address space with cached pages and typed reads. A read raises `MemoryUnreadable` if a page is absent."""

    __slots__ = ("_capacity", "_pages", "_source")

    def __init__(self, source: PageSource, *, capacity: int = 4096) -> None:
        """`source` provides the pages. The cache holds at most `capacity` pages, and is emptied when it is full."""
        self._source = source
        self._capacity = capacity
        self._pages: dict[int, bytes | None] = {}

    def page(self, address: int) -> bytes | None:
        """Return the page at the page-aligned `address`, or None. So a `Memory` is itself a `PageSource`."""
        try:
            return self._pages[address]
        except KeyError:
            pass
        if len(self._pages) >= self._capacity:
            self._pages.clear()
        page = self._source.page(address) if 0 <= address < _END else None
        self._pages[address] = page
        return page

    def read(self, address: int, size: int) -> bytes:
        """Return exactly `size` bytes at `address`; raises `MemoryUnreadable` if a page of them is absent."""
        offset = address & _PAGE_MASK
        page = self.page(address - offset)
        if page is None:
            raise MemoryUnreadable(address)
        if offset + size <= PAGE_SIZE:
            return page[offset : offset + size]
        parts = [page[offset:]]
        have = PAGE_SIZE - offset
        while have < size:
            page = self.page(address + have)
            if page is None:
                raise MemoryUnreadable(address + have)
            parts.append(page[: size - have])
            have += PAGE_SIZE
        return b"".join(parts)

    def read_available(self, address: int, size: int) -> bytes:
        """Return `size` bytes at `address`, or only those before the first absent page, which can be none."""
        offset = address & _PAGE_MASK
        if 0 < size <= PAGE_SIZE - offset:
            only = self.page(address - offset)
            return b"" if only is None else only[offset : offset + size]
        parts: list[bytes] = []
        have = 0
        while have < size:
            offset = (address + have) & _PAGE_MASK
            page = self.page(address + have - offset)
            if page is None:
                break
            part = page[offset : offset + size - have]
            parts.append(part)
            have += len(part)
        return b"".join(parts)

    def is_readable(self, address: int, size: int = 1) -> bool:
        """Say whether all `size` bytes at `address` can be read."""
        first = address & ~_PAGE_MASK
        return all(self.page(page) is not None for page in range(first, address + size, PAGE_SIZE))

    def u8(self, address: int) -> int:
        """Return the byte at `address`."""
        return self.read(address, 1)[0]

    def u16(self, address: int) -> int:
        """Return the unsigned 16-bit value at `address`."""
        value: int = _U16.unpack(self.read(address, 2))[0]
        return value

    def u32(self, address: int) -> int:
        """Return the unsigned 32-bit value at `address`."""
        offset = address & _PAGE_MASK
        page = self._pages.get(address - offset)
        if page is None or offset > PAGE_SIZE - 4:
            page, offset = self.read(address, 4), 0
        value: int = _U32.unpack_from(page, offset)[0]
        return value

    def u64(self, address: int) -> int:
        """Return the unsigned 64-bit value at `address`."""
        offset = address & _PAGE_MASK
        page = self._pages.get(address - offset)
        if page is None or offset > PAGE_SIZE - 8:
            page, offset = self.read(address, 8), 0
        value: int = _U64.unpack_from(page, offset)[0]
        return value

    def pointer(self, address: int, size: int) -> int:
        """Return the pointer of `size` bytes (4 or 8) at `address`."""
        return self.u32(address) if size == 4 else self.u64(address)


class SegmentSource:
    """A `PageSource` made of byte strings at given addresses, for tests and mapped files.

    A page that the segments cover only in part is padded with zeros. Several segments may share a page.
    """

    def __init__(self, segments: Mapping[int, bytes] | Iterable[tuple[int, bytes]]) -> None:
        """`segments` is `{address: bytes}` or an iterable of pairs (address, bytes)."""
        items = segments.items() if isinstance(segments, Mapping) else segments
        self._segments = sorted((start, bytes(data)) for start, data in items)
        self._starts = [start for start, _ in self._segments]
        self._longest = max((len(data) for _, data in self._segments), default=0)

    def page(self, address: int) -> bytes | None:
        """Return the page at the page-aligned `address`, made of all segments in it; None if no segment is in it."""
        page: bytearray | None = None
        index = bisect_right(self._starts, address + PAGE_SIZE - 1) - 1
        while index >= 0 and self._starts[index] + self._longest > address:
            start, data = self._segments[index]
            low, high = max(start, address), min(start + len(data), address + PAGE_SIZE)
            if low < high:
                page = page if page is not None else bytearray(PAGE_SIZE)
                page[low - address : high - address] = data[low - start : high - start]
            index -= 1
        return None if page is None else bytes(page)


def memory_of(segments: Mapping[int, bytes] | Iterable[tuple[int, bytes]]) -> Memory:
    """Return a `Memory` over byte strings at given addresses."""
    return Memory(SegmentSource(segments))
