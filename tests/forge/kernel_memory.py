# SPDX-License-Identifier: Apache-2.0
"""The kernel's address space as something to write structures into: pools, stacks, given addresses.

Pages come into being when they are written; structures that share a page merge.
"""

from __future__ import annotations

import bisect
import struct
from collections.abc import Iterable
from enum import Enum

from tests.forge.describe import Paging
from tests.forge.layouts import Layout, Version
from tests.forge.paging import ACCESSED, DIRTY, PRESENT, WRITE, AddressSpace
from tests.forge.physical import PAGE, PhysicalMemory


class Pool(Enum):
    """Where an allocation is."""

    NONPAGED = "nonpaged"
    PAGED = "paged"
    STACKS = "stacks"


_STARTS = {
    "x86": {Pool.NONPAGED: 0x8A000000, Pool.PAGED: 0xE1000000, Pool.STACKS: 0xF0000000},
    "before 8": {
        Pool.NONPAGED: 0xFFFFFA80_30000000,
        Pool.PAGED: 0xFFFFF8A0_00000000,
        Pool.STACKS: 0xFFFFF880_02000000,
    },
    "from 8": {
        Pool.NONPAGED: 0xFFFFE000_10000000,
        Pool.PAGED: 0xFFFFC000_10000000,
        Pool.STACKS: 0xFFFFD000_20000000,
    },
}


def pool_starts(paging: Paging, version: Version) -> dict[Pool, int]:
    """Return where the pools begin on such a system."""
    if not paging.is_64bit:
        return _STARTS["x86"]
    return _STARTS["before 8" if version < (6, 2, 0) else "from 8"]


class KernelMemory:
    """Writes at kernel addresses; hands out space in the pools, around the addresses that a case has taken."""

    def __init__(self, space: AddressSpace, layout: Layout, starts: dict[Pool, int]) -> None:
        self.space = space
        self.layout = layout
        self.physical: PhysicalMemory = space.physical
        self.starts = starts
        self._next = dict(starts)
        self._taken: list[tuple[int, int]] = []
        self._pages: dict[int, bytearray] = {}
        self._pointer = struct.Struct("<Q" if layout.is_64bit else "<I")

    def reserve(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Keep ranges (start, end) out of the pools' hands."""
        merged: list[tuple[int, int]] = []
        for start, end in sorted([*self._taken, *ranges]):
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        self._taken = merged

    def allocate(self, size: int, pool: Pool = Pool.NONPAGED, align: int = 16, before: int = 0) -> int:
        """Return the address of fresh space; `before` bytes ahead of it are its own too (headers)."""
        start = self._next[pool]
        while True:
            address = -(-(start + before) // align) * align
            end = self._collision(address - before, address + size)
            if end is None:
                break
            start = end
        self._next[pool] = address + size
        return address

    def _collision(self, start: int, end: int) -> int | None:
        """Return the end of a taken range that meets this one, None if there is none."""
        at = bisect.bisect_left(self._taken, (end,)) - 1
        return self._taken[at][1] if at >= 0 and self._taken[at][1] > start else None

    def allocate_struct(self, name: str, pool: Pool = Pool.NONPAGED, tag: bytes | None = None, extra: int = 0) -> int:
        """Return space for a structure, after a pool header that shows `tag`."""
        header = self.layout.size("_POOL_HEADER")
        address = self.allocate(self.layout.size(name) + extra, pool, before=header)
        if tag is not None:
            self.write(address - header + self.layout.offset("_POOL_HEADER", "PoolTag"), tag)
        return address

    def page(self, address: int) -> bytearray:
        """Return the bytes of the page at an address, made and mapped when it is not there yet."""
        number = address // PAGE
        page = self._pages.get(number)
        if page is None:
            if not address >> 8 * self._pointer.size - 1:
                message = f"{address:#x} is no address of the kernel"
                raise ValueError(message)
            frame, page = self.physical.allocate()
            self.map(address, frame)
            self._pages[number] = page
        return page

    def map(self, address: int, frame: int) -> None:
        """Map a page of physical memory."""
        self.space.set_entry(address, frame * PAGE | PRESENT | WRITE | ACCESSED | DIRTY)

    def map_known(self, address: int, frame: int, page: bytearray) -> None:
        """Map a page that is there already, and write to it from now on."""
        self.map(address, frame)
        self._pages[address // PAGE] = page

    def write(self, address: int, data: bytes) -> None:
        """Write bytes at an address."""
        while data:
            offset = address % PAGE
            part = data[: PAGE - offset]
            self.page(address)[offset : offset + len(part)] = part
            address, data = address + len(part), data[len(part) :]

    def read(self, address: int, size: int) -> bytes:
        """Return bytes that may be on several pages (made of zeros when they are not there)."""
        data = bytearray()
        while len(data) < size:
            offset = (address + len(data)) % PAGE
            data += self.page(address + len(data))[offset : offset + size - len(data)]
        return bytes(data)

    def write_pointer(self, address: int, value: int) -> None:
        """Write one pointer."""
        self.write(address, self._pointer.pack(value & (1 << 8 * self._pointer.size) - 1))

    def unicode(self, text: str, pool: Pool = Pool.PAGED) -> tuple[int, int]:
        """Store a UTF-16 string; return (address, bytes without the terminator)."""
        data = text.encode("utf-16-le")
        address = self.allocate(len(data) + 2, pool)
        self.write(address, data + b"\0\0")
        return address, len(data)
