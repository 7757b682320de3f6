# SPDX-License-Identifier: Apache-2.0
"""Looks a little way into files that hold something else: minidumps, ZIPs, compressed files.

Formats: MINIDUMP_HEADER and MINIDUMP_DIRECTORY in minidumpapiset.h; the local file header in PKWARE's APPNOTE 4.3.7.
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib

from throwstack.core.memory import PAGE_SIZE
from throwstack.crashdump.file_bytes import ByteSource

_EXCEPTION_STREAM = 6  # MINIDUMP_STREAM_TYPE
_MAX_STREAMS = 1024
_NAME_AT = 30
_AFF4_NAME = b"container.description"
_READ = 1 << 20
"""How many bytes of a compressed file are read: a block of bzip2 has up to 900,000."""
_HEAD = 2 * PAGE_SIZE
_MEMORY_LIMIT = 1 << 28
"""What the decoder of a hostile xz file may take."""


class Head:
    """The first bytes of a file as a `ByteSource`."""

    def __init__(self, data: bytes) -> None:
        """Keep the bytes."""
        self._data = data
        self.size = len(data)

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes at `offset`, fewer at the end."""
        return self._data[offset : offset + size]


def has_exception_stream(minidump: ByteSource) -> bool:
    """Say whether a minidump has a stream with the exception for which it was written."""
    head = minidump.read(0, 16)
    if len(head) < 16:
        return False
    count, directory = struct.unpack_from("<II", head, 8)
    entries = minidump.read(directory, 12 * min(count, _MAX_STREAMS))
    return any(
        kind == _EXCEPTION_STREAM for kind, _, _ in struct.iter_unpack("<III", entries[: len(entries) // 12 * 12])
    )


def is_aff4(head: bytes) -> bool:
    """Say whether the first file of a ZIP is the one with which an AFF4 container begins."""
    return head[_NAME_AT : _NAME_AT + len(_AFF4_NAME)] == _AFF4_NAME


def unpacked_head(data: ByteSource) -> Head | None:
    """Return the first bytes of what a file of gzip, bzip2 or xz holds; None if it is none of these, or damaged."""
    packed = data.read(0, _READ)
    try:
        if packed.startswith(b"\x1f\x8b"):
            return Head(zlib.decompressobj(wbits=16 + zlib.MAX_WBITS).decompress(packed, _HEAD))
        if packed.startswith(b"BZh"):
            return Head(bz2.BZ2Decompressor().decompress(packed, _HEAD))
        if packed.startswith(b"\xfd7zXZ\0"):
            return Head(lzma.LZMADecompressor(memlimit=_MEMORY_LIMIT).decompress(packed, _HEAD))
    except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError, MemoryError):
        return None
    return None
