# SPDX-License-Identifier: Apache-2.0
"""A file's contents in memory."""

from __future__ import annotations


class Buffer:
    """What `throwstack.crashdump` reads."""

    def __init__(self, data: bytes | bytearray) -> None:
        self._data = bytes(data)
        self.size = len(data)

    def read(self, offset: int, size: int) -> bytes:
        return self._data[offset : offset + size] if offset >= 0 else b""
