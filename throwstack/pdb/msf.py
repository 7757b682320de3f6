# SPDX-License-Identifier: Apache-2.0
"""Reads the container format of PDBs (MSF): numbered streams, each of which is a list of blocks.

Follows LLVM's "The MSF File Format".
"""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

from throwstack.core.errors import ThrowstackError

DBI_STREAM = 3

_MAGIC = b"Microsoft C/C++ MSF 7.00\r\n\x1aDS\0\0\0"
_SUPERBLOCK = struct.Struct("<32sIIIIII")
_BLOCK_SIZES = frozenset(1 << bits for bits in range(9, 17))
_MAX_DIRECTORY = 64 << 20
_MAX_STREAMS = 1 << 16
_NIL = 0xFFFFFFFF


class NotAPdb(ThrowstackError):
    """A file is not a PDB, or is a damaged PDB; the message says which."""


class MsfFile:
    """The streams of an open PDB file. Every method raises `NotAPdb` if the file is damaged."""

    def __init__(self, file: BinaryIO) -> None:
        """Read the directory of streams of `file`, which must stay open."""
        self._file = file
        file_size = file.seek(0, os.SEEK_END)
        file.seek(0)
        head = file.read(_SUPERBLOCK.size)
        if len(head) < _SUPERBLOCK.size or head[:32] != _MAGIC:
            kinds = {
                _MAGIC[:15]: "a PDB of the old format 2.00",
                b"BSJB": "a portable PDB, which is for .NET code only",
            }
            raise NotAPdb(next((what for magic, what in kinds.items() if head.startswith(magic)), "not a PDB"))
        block_size: int
        _, block_size, _, blocks, directory_size, _, map_block = _SUPERBLOCK.unpack(head)
        self._block_size = block_size
        self._file_size = file_size
        if self._block_size not in _BLOCK_SIZES or directory_size > _MAX_DIRECTORY:
            message = "damaged (its header holds impossible sizes)"
            raise NotAPdb(message)
        if blocks * self._block_size > file_size:
            message = f"truncated ({file_size} of {blocks * self._block_size} bytes)"
            raise NotAPdb(message)
        if directory_size > file_size:  # a hostile list of blocks could name one block over and over
            message = "damaged (its directory is longer than the file)"
            raise NotAPdb(message)
        directory_blocks = self._blocks_of(directory_size)
        mapped = _words(self._read(range(map_block, map_block + self._blocks_of(4 * directory_blocks))))
        words = _words(self._read(mapped[:directory_blocks])[:directory_size])
        count = words[0] if words else 0
        if count > _MAX_STREAMS or 1 + count > len(words):
            message = "damaged (its directory lists more streams than it holds)"
            raise NotAPdb(message)
        self._sizes = [0 if size == _NIL else size for size in words[1 : 1 + count]]
        self._blocks: list[tuple[int, ...]] = []
        at = 1 + count
        for size in self._sizes:
            self._blocks.append(words[at : at + self._blocks_of(size)])
            at += self._blocks_of(size)

    def stream(self, number: int, limit: int) -> bytes:
        """Return the first `limit` bytes of stream `number`, or all of them if there are fewer.

        The result is b"" if there is no such stream.
        """
        if not 0 <= number < len(self._sizes):
            return b""
        size = min(self._sizes[number], limit)
        return self._read(self._blocks[number][: self._blocks_of(size)])[:size]

    def file_offset(self, number: int, at: int) -> int:
        """Return the offset in the file of the byte at offset `at` of stream `number`, which must be longer."""
        return self._blocks[number][at // self._block_size] * self._block_size + at % self._block_size

    def _blocks_of(self, size: int) -> int:
        return -(-size // self._block_size)

    def _read(self, blocks: range | tuple[int, ...]) -> bytes:
        parts = []
        for block in blocks:
            if block * self._block_size >= self._file_size:  # if it were skipped, all later blocks would be shifted
                message = "damaged (a stream is outside the file)"
                raise NotAPdb(message)
            self._file.seek(block * self._block_size)
            parts.append(self._file.read(self._block_size))
        return b"".join(parts)


def _words(data: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(data) // 4}I", data[: len(data) // 4 * 4])
