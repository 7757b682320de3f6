# SPDX-License-Identifier: Apache-2.0
"""A stream of a PDB that is bytes in memory (`throwstack.pdb.msf.Stream` without a file)."""

from __future__ import annotations

from throwstack.pdb.msf import Stream


class HeldStream(Stream):
    """Bytes, read as a stream. `reads` are the ranges that were read: (offset, size)."""

    def __init__(self, data: bytes = b"") -> None:
        """`data` is the whole stream."""
        self.size = len(data)
        self.reads: list[tuple[int, int]] = []
        self._data = data

    def read(self, offset: int = 0, size: int | None = None) -> bytes:
        """Return `size` bytes at `offset`, or all that follow."""
        self.reads.append((offset, self.size if size is None else size))
        return self._data[offset : None if size is None else offset + size]
