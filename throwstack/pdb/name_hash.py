# SPDX-License-Identifier: Apache-2.0
"""Finds symbols by name in a hash table of a PDB: of its public symbols, or of its global symbols.

Follows LLVM's "The PDB Global Symbol Stream" and `GSI1` of Microsoft's microsoft-pdb. The table is a head, an array of
entries (offset of a symbol record, plus 1, and a count), one bit for each bucket that has entries, and for each of
these buckets where in the array it begins. Those beginnings count 12 bytes an entry, as Microsoft's linker has them in
memory.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cached_property

from throwstack.pdb.msf import Stream
from throwstack.pdb.type_stream import name_hash

_HEAD = struct.Struct("<IIII")
_SIGNATURE, _VERSION = 0xFFFFFFFF, 0xF12F091A
_ENTRY_SIZE, _ENTRY_SIZE_IN_MEMORY = 8, 12
_BUCKETS, _BUCKETS_OF_FASTLINK = 4096, 0x3FFFF
_MAX_IN_BUCKET = 1 << 14


class NameHash:
    """The hash table at one offset of a stream. It is read when it is asked."""

    def __init__(self, stream: Stream, start: int, *, is_fastlink: bool) -> None:
        """The table begins at offset `start` of `stream`. The PDBs of /DEBUG:FASTLINK have more buckets."""
        self._stream = stream
        self._start = start
        self._buckets = _BUCKETS_OF_FASTLINK if is_fastlink else _BUCKETS

    def offsets(self, name: str) -> Iterator[int]:
        """Yield the offsets of the symbol records that may have this name. Raises `NotAPdb`."""
        bitmap, begins_at, entries_size = self._head
        bucket = name_hash(name.encode("utf-8", "replace")) % self._buckets
        byte, bit = divmod(bucket, 8)
        if byte >= len(bitmap) or not bitmap[byte] >> bit & 1:
            return
        before = int.from_bytes(bitmap[:byte], "little").bit_count() if byte else 0
        before += (bitmap[byte] & (1 << bit) - 1).bit_count()
        begins = self._stream.read(begins_at + 4 * before, 8)
        first = int.from_bytes(begins[:4], "little") // _ENTRY_SIZE_IN_MEMORY
        last = int.from_bytes(begins[4:], "little") // _ENTRY_SIZE_IN_MEMORY if len(begins) == 8 else 0
        count = entries_size // _ENTRY_SIZE
        last = min(last if last > first else count, count, first + _MAX_IN_BUCKET)
        entries = self._stream.read(self._start + _HEAD.size + _ENTRY_SIZE * first, _ENTRY_SIZE * max(0, last - first))
        for offset, _ in struct.iter_unpack("<II", entries[: len(entries) // 8 * 8]):
            if offset:
                yield offset - 1

    @cached_property
    def _head(self) -> tuple[bytes, int, int]:
        """The bits of the buckets, the offset in the stream of where the buckets begin, the bytes of all entries."""
        head = self._stream.read(self._start, _HEAD.size)
        if len(head) < _HEAD.size:
            return b"", 0, 0
        signature, version, entries_size, _ = _HEAD.unpack(head)
        if (signature, version) != (_SIGNATURE, _VERSION):
            return b"", 0, 0
        at = self._start + _HEAD.size + entries_size
        bitmap_size = 4 * (self._buckets // 32 + 1)
        return self._stream.read(at, bitmap_size), at + bitmap_size, entries_size
