# SPDX-License-Identifier: Apache-2.0
"""A dump file that is in memory."""

from __future__ import annotations


class Buffer:
    """A `ByteSource` over bytes."""

    def __init__(self, data: bytes | bytearray) -> None:
        self._data = bytes(data)
        self.size = len(data)

    def read(self, offset: int, size: int) -> bytes:
        return self._data[offset : offset + size] if offset >= 0 else b""
