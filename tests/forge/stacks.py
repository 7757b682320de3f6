# SPDX-License-Identifier: Apache-2.0
"""Assembles stack memory word by word, with labels, in the manner of rust-minidump's test-assembler.

A label is placed with `mark` and used as a word's value before or after that, so that a test reads as the stack it is
about and an expectation is a label rather than a number. Writing a word twice is fine when both say the same and an
error when they do not: overlapping facts about one stack keep each other honest.
"""

from __future__ import annotations

from dataclasses import dataclass


class StackConflict(Exception):
    """Two writers want different values in the same bytes."""


@dataclass(eq=False)
class Label:
    """A place that gets its address when it is marked."""

    name: str = ""
    address: int | None = None

    def __int__(self) -> int:
        """Return the address; the label must have been marked."""
        if self.address is None:
            message = f"label {self.name or '(unnamed)'} was never marked"
            raise ValueError(message)
        return self.address


Value = int | Label


class Stack:
    """The memory from `limit` up to `base` (a thread's StackLimit and StackBase), zeros where nothing is written."""

    def __init__(self, limit: int, base: int) -> None:
        """Start with the cursor at `limit`."""
        self.limit = limit
        self.base = base
        self.here = limit
        self._words: dict[int, tuple[int, Value]] = {}
        self._owners: dict[int, int] = {}

    def at(self, address: int) -> Stack:
        """Put the cursor at `address`."""
        self.here = address
        return self

    def mark(self, label: Label) -> Stack:
        """Give `label` the cursor's address."""
        if label.address not in (None, self.here):
            message = f"label {label.name} is already at {label.address:#x}"
            raise StackConflict(message)
        label.address = self.here
        return self

    def d32(self, *values: Value) -> Stack:
        """Write 32-bit words."""
        return self._write(4, values)

    def d64(self, *values: Value) -> Stack:
        """Write 64-bit words."""
        return self._write(8, values)

    def zeros(self, count: int) -> Stack:
        """Leave `count` bytes as they are: zeros unless somebody else writes them."""
        self.here += count
        return self

    def raw(self, data: bytes) -> Stack:
        """Write bytes, a multiple of four, as 32-bit words."""
        return self.d32(*(int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4)))

    def _write(self, size: int, values: tuple[Value, ...]) -> Stack:
        for value in values:
            if not self.limit <= self.here <= self.base - size or self.here % 4:
                message = f"a word at {self.here:#x} is not on the stack {self.limit:#x}..{self.base:#x}"
                raise StackConflict(message)
            parts = (self.here,) if size == 4 else (self.here, self.here + 4)
            owners = {self._owners.get(part) for part in parts}
            if owners == {None}:
                self._words[self.here] = (size, value)
                self._owners.update(dict.fromkeys(parts, self.here))
            elif owners != {self.here} or not _same(self._words[self.here], (size, value)):
                message = f"{self.here:#x} has {self._describe(self.here)}, now {size} bytes {int(value):#x}"
                raise StackConflict(message)
            self.here += size
        return self

    def _describe(self, address: int) -> str:
        owner = self._owners.get(address, address)
        size, value = self._words.get(owner, (0, 0))
        return f"{size} bytes {int(value):#x}"

    def word(self, address: int) -> int | None:
        """Return the value of the word written at `address`, or None."""
        found = self._words.get(address)
        return None if found is None else int(found[1])

    def is_free(self, address: int) -> bool:
        """Say whether nothing was written to the four bytes at `address`."""
        return address not in self._owners

    def pieces(self) -> dict[int, bytes]:
        """Return the words written, by address."""
        return {address: _encode(size, value) for address, (size, value) in sorted(self._words.items())}

    def data(self, start: int | None = None) -> bytes:
        """Return the memory from `start` (by default `limit`) up to `base`."""
        start = self.limit if start is None else start
        data = bytearray(self.base - start)
        for address, piece in self.pieces().items():
            if address < start:
                message = f"{address:#x} is below {start:#x}"
                raise StackConflict(message)
            data[address - start : address - start + len(piece)] = piece
        return bytes(data)


def _encode(size: int, value: Value) -> bytes:
    return (int(value) & ((1 << 8 * size) - 1)).to_bytes(size, "little")


def _same(one: tuple[int, Value], other: tuple[int, Value]) -> bool:
    return one[0] == other[0] and (one[1] is other[1] or _encode(*one) == _encode(*other))
