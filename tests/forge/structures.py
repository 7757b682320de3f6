# SPDX-License-Identifier: Apache-2.0
"""A structure at an address: members are written by name, at the offsets that the layout gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tests.forge.layouts import Layout


class Writable(Protocol):
    """Memory of the kernel or of a process."""

    def write(self, address: int, data: bytes) -> None:
        """Write bytes at an address."""

    def read(self, address: int, size: int) -> bytes:
        """Return bytes at an address."""


class Structure:
    """A structure of a type of the layout, in some memory."""

    def __init__(self, memory: Writable, layout: Layout, name: str, address: int) -> None:
        self.memory = memory
        self.layout = layout
        self.name = name
        self.address = address

    def has(self, path: str) -> bool:
        """Say whether there is such a member."""
        return self.layout.has(self.name, path)

    def at(self, path: str) -> int:
        """Return a member's address."""
        return self.address + self.layout.offset(self.name, path)

    def put(self, path: str, value: int, index: int = 0) -> None:
        """Write a member (of an array: one element; of a structure: its first bytes, as one number)."""
        field = self.layout.field(self.name, path)
        address = self.address + field.offset + index * field.size
        if field.width:
            mask = (1 << field.width) - 1
            old = int.from_bytes(self.memory.read(address, field.size), "little")
            value = old & ~(mask << field.bit) | (value & mask) << field.bit
        self.memory.write(address, (value & (1 << 8 * field.size) - 1).to_bytes(field.size, "little"))

    def put_any(self, paths: Sequence[str], value: int) -> bool:
        """Write the first of these members that there is: one thing under its names in several versions."""
        for path in paths:
            if self.has(path):
                self.put(path, value)
                return True
        return False

    def put_all(self, **values: int) -> None:
        """Write those members that there are."""
        for path, value in values.items():
            if self.has(path):
                self.put(path, value)

    def put_bytes(self, path: str, data: bytes) -> None:
        """Write bytes at a member, cut to an array's size."""
        field = self.layout.field(self.name, path)
        self.memory.write(self.address + field.offset, data[: field.size * field.count])

    def put_string(self, path: str, buffer: int, size: int) -> None:
        """Write a UNICODE_STRING: where its text is, and its bytes without the terminator."""
        self.put(f"{path}.Length", size)
        self.put(f"{path}.MaximumLength", size + 2)
        self.put(f"{path}.Buffer", buffer)


def link(memory: Writable, layout: Layout, entries: Sequence[int]) -> None:
    """Make a ring of LIST_ENTRYs, given by address; a single one points to itself."""
    size = layout.pointer_size
    for entry, after, before in zip(entries, [*entries[1:], *entries[:1]], [*entries[-1:], *entries[:-1]], strict=True):
        memory.write(entry, after.to_bytes(size, "little") + before.to_bytes(size, "little"))
