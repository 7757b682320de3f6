# SPDX-License-Identifier: Apache-2.0
"""Reads the "native format" of precompiled images: numbers of variable length, sparse arrays, hash tables.

Follows dotnet/runtime, docs/design/coreclr/botr/readytorun-format.md, "Native format". All offsets count from one place
of an array or table to another one, so that the bytes of the section that has it are enough.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b

from throwstack.core.memory import PAGE_SIZE, Memory
from throwstack.managed.metadata_error import MetadataError
from throwstack.managed.work import Work, WorkSpent, precompiled_work

_BLOCK = 16
_ENTRY = 2
"""The fewest bytes of an entry in a bucket of a hash table."""
_MAX_SECTION = 1 << 24
_LONGEST = 5
_BYTES_A_STEP = 64
"""How many bytes are copied in the time of a step."""
_SIZES = tuple(next((size for size in range(1, 6) if not low >> (size - 1) & 1), 0) for low in range(32))
"""The bytes of a number by the low 5 bits of its first byte: one more than the ones that these end with."""


class NativeSection:
    """The bytes of a section. What is read outside of them, or on an absent page, raises MetadataError."""

    __slots__ = ("_absent", "_address", "data", "work")

    def __init__(self, memory: Memory, address: int, size: int, work: Work | None = None) -> None:
        """The section is in `memory` at `address` and has `size` bytes. `work` counts the steps in it."""
        if size > _MAX_SECTION:
            message = f"the section at {address:#x} claims {size:,} bytes"
            raise MetadataError(message)
        self.work = precompiled_work() if work is None else work
        self.work.take(size // _BYTES_A_STEP)
        self._address = address
        self._absent: set[int] = set()
        parts, at = [], address
        while at < address + size:
            part = min(PAGE_SIZE - at % PAGE_SIZE, address + size - at)
            page = memory.page(at & -PAGE_SIZE)
            if page is None:
                self._absent.add(at & -PAGE_SIZE)
            parts.append(bytes(part) if page is None else page[at % PAGE_SIZE : at % PAGE_SIZE + part])
            at += part
        self.data = b"".join(parts)

    @property
    def is_whole(self) -> bool:
        """Say whether no page of the section is absent."""
        return not self._absent

    @property
    def digest(self) -> bytes:
        """Return a digest of the bytes, and of which pages are absent."""
        absent = ",".join(str(page - self._address) for page in sorted(self._absent))
        return blake2b(self.data, digest_size=20, person=blake2b(absent.encode(), digest_size=16).digest()).digest()

    def fixed(self, offset: int, size: int) -> int:
        """Return the unsigned number of `size` bytes at `offset`."""
        self.check(offset, size)
        return int.from_bytes(self.data[offset : offset + size], "little")

    def unsigned(self, offset: int) -> tuple[int, int]:
        """Read a number of 1 to 5 bytes, whose low bits say how many. Return it and the offset after it."""
        size, bits = self._size(offset)
        return int.from_bytes(self.data[offset : offset + size], "little") >> bits, offset + size

    def signed(self, offset: int) -> tuple[int, int]:
        """Read a signed number in the same form."""
        size, bits = self._size(offset)
        return int.from_bytes(self.data[offset : offset + size], "little", signed=True) >> bits, offset + size

    def _size(self, offset: int) -> tuple[int, int]:
        """Return how many bytes the number at `offset` has, and how many bits before its value."""
        self.check(offset, 1)
        size = _SIZES[self.data[offset] & 0x1F]
        if size == 1:
            return 1, 1
        if not size:
            message = f"no number begins at {self._address + offset:#x}"
            raise MetadataError(message)
        self.check(offset, size)
        return size, size if size < _LONGEST else 8

    def check(self, offset: int, size: int) -> None:
        """Raise MetadataError if not all of `size` bytes at `offset` are there."""
        if not 0 <= offset <= len(self.data) - size:
            message = f"the offset {offset:#x} is outside the section at {self._address:#x}"
            raise MetadataError(message)
        if self._absent:
            for at in (self._address + offset, self._address + offset + size - 1):
                if at & -PAGE_SIZE in self._absent:
                    message = f"the section at {self._address:#x} is not readable at {at:#x}"
                    raise MetadataError(message)

    def array(self) -> Iterator[tuple[int, int]]:
        """Yield number (from 0) and offset of each element of the sparse array at the section's begin.

        The array has a tree for each 16 numbers. Trees that cannot be read are left out. Raises WorkSpent: a hostile
        array can lead from each byte to the same tree.
        """
        head, start = self.unsigned(0)
        size = 1 << (head & 3)
        for block in range(min(-(-(head >> 2) // _BLOCK), len(self.data) // size)):
            try:
                root = start + self.fixed(start + block * size, size)
                yield from [(block * _BLOCK + at, offset) for at, offset in self._tree(root, _BLOCK >> 1, 0)]
            except WorkSpent:
                raise
            except MetadataError:
                continue

    def _tree(self, node: int, bit: int, number: int) -> Iterator[tuple[int, int]]:
        """Yield the elements below a node: a leaf's number and offset, or what is in its halves."""
        self.work.take()
        if not bit:
            yield number, node
            return
        value, after = self.unsigned(node)
        if not value & 3:
            # The only element below this node. Trees without elements share a node whose number is in none of them.
            if value >> 2 & -(2 * bit) == number:
                yield value >> 2, after
            return
        if value & 1:
            yield from self._tree(after, bit >> 1, number)
        if value & 2:
            yield from self._tree(node + (value >> 2), bit >> 1, number | bit)

    def hash_table(self) -> Iterator[int]:
        """Yield the offset of each entry of the hash table at the section's begin.

        A bucket has entries {low byte of the hash, distance to the entry}. Buckets that cannot be read are left out.
        Raises WorkSpent.
        """
        head = self.fixed(0, 1)
        size = 1 << (head & 3)
        left = len(self.data) // _ENTRY
        for bucket in range(min(1 << (head >> 2), len(self.data) // size)):
            try:
                self.work.take()
                at, end = (1 + self.fixed(1 + (bucket + next_) * size, size) for next_ in (0, 1))
                while at < end and left:
                    left -= 1
                    self.work.take()
                    distance, after = self.signed(at + 1)
                    yield at + 1 + distance
                    at = after
            except WorkSpent:
                raise
            except MetadataError:
                continue
