# SPDX-License-Identifier: Apache-2.0
"""Compresses by plain LZ77 of the Xpress family, after [MS-XCA]; the matches are those that a greedy search finds."""

from __future__ import annotations

import struct

_SHORTEST, _FARTHEST = 3, 0x2000


def compress(data: bytes) -> bytes:
    """Return `data` compressed."""
    writer = _Writer()
    seen: dict[bytes, int] = {}
    at = 0
    while at < len(data):
        key = data[at : at + _SHORTEST]
        before = seen.get(key)
        length = 0
        if before is not None and len(key) == _SHORTEST and at - before <= _FARTHEST:
            while at + length < len(data) and data[before + length] == data[at + length]:
                length += 1
        if length:
            writer.match(at - before, length)
        else:
            writer.literal(data[at])
        for passed in range(at, at + max(length, 1)):
            seen[data[passed : passed + _SHORTEST]] = passed
        at += max(length, 1)
    return writer.finish()


class _Writer:
    def __init__(self) -> None:
        self.out = bytearray(4)
        self._flags_at = self._flags = self._count = self._half_at = 0

    def _flag(self, flag: int) -> None:
        self._flags = self._flags << 1 | flag
        self._count += 1
        if self._count == 32:
            struct.pack_into("<I", self.out, self._flags_at, self._flags)
            self._flags_at, self._flags, self._count = len(self.out), 0, 0
            self.out += bytes(4)

    def literal(self, byte: int) -> None:
        self.out.append(byte)
        self._flag(0)

    def match(self, distance: int, length: int) -> None:
        length -= _SHORTEST
        self.out += struct.pack("<H", (distance - 1) << 3 | min(length, 7))
        if length >= 7:
            self._rest(length - 7)
        self._flag(1)

    def _rest(self, length: int) -> None:
        if self._half_at:
            self.out[self._half_at] |= min(length, 15) << 4
            self._half_at = 0
        else:
            self._half_at = len(self.out)
            self.out.append(min(length, 15))
        if length < 15:
            return
        length -= 15
        if length < 255:
            self.out.append(length)
            return
        length += 7 + 15
        self.out += struct.pack("<BH", 255, length) if length < 1 << 16 else struct.pack("<BHI", 255, 0, length)

    def finish(self) -> bytes:
        left = 32 - self._count
        struct.pack_into("<I", self.out, self._flags_at, self._flags << left | (1 << left) - 1)
        return bytes(self.out)
