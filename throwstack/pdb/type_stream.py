# SPDX-License-Identifier: Apache-2.0
"""Finds a record of a PDB's type stream (TPI) or id stream (IPI) by its number, without reading the stream.

Follows `TpiStream` of LLVM's description of PDBs and `tpi.h` of microsoft-pdb. The stream is a header of 56 bytes and
then the records, numbered from the header's first number on. They have different lengths, so a list in the hash stream
gives the offset of about every 8 KB: to find a record, one such part is read. Parts are kept, up to a limit.

The hash stream also has the hash bucket of each record, by which a structure is found by name.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator
from sys import byteorder
from typing import Protocol

from throwstack.pdb.codeview import record_offsets, records
from throwstack.pdb.time_limit import NO_LIMIT, TimeLimit
from throwstack.pdb.word_search import find_word

_HEADER = struct.Struct("<5IHHIIiIiI")
_NO_STREAM = 0xFFFF
_MAX_PART = 1 << 17
"""Most bytes of a part. One of Microsoft's and LLVM's linkers has 8 KB and then the rest of a record, 64 KB at most."""
_MAX_PARTS_LISTED = 1 << 20
_MAX_KEPT = 1 << 20
"""Most bytes of parts that are kept; the offsets of their records take a little more."""
_MAX_SCANNED = 32 << 20
"""How much of a stream without a list is read to make one. Linkers leave the list out of small streams only."""
_PART = 8192
_HASH_PIECE = 1 << 18
_MAX_CANDIDATES = 256

TypeRecord = tuple[int, bytes]
"""The kind of a type record (`LF_…`) and its body."""


class ByteStream(Protocol):
    """A stream of a PDB."""

    @property
    def size(self) -> int:
        """Return the number of bytes."""
        ...

    def read(self, offset: int, size: int) -> bytes:
        """Return the bytes from `offset` on, fewer than `size` at the end of the stream."""
        ...


class TypeStream:
    """The records of a TPI or IPI stream, by number. A stream that is empty or damaged has none."""

    def __init__(
        self, stream: ByteStream, open_stream: Callable[[int], ByteStream], time: TimeLimit = NO_LIMIT
    ) -> None:
        """`stream` is the TPI or IPI stream, and `open_stream` gives a stream of the same PDB by its number.

        `time` is how long the reading of the PDB may take.
        """
        self.time = time
        self._stream = stream
        self._open = open_stream
        self._kept: OrderedDict[int, tuple[bytes, list[int]]] = OrderedDict()
        self._kept_size = 0
        self._numbers: array[int] = array("I")
        self._offsets: array[int] = array("I")
        self._has_list = False
        self.begin = self.end = self._size = self._header_size = self._hash_size = 0
        self.buckets = 0
        head = stream.read(0, _HEADER.size)
        if len(head) < _HEADER.size:
            return
        _, self._header_size, begin, end, size, hashes, _, self._hash_size, buckets, *places = _HEADER.unpack(head)
        self._hash_stream = hashes
        self._values_at, self._values_size, self._list_at, self._list_size = places
        if self._header_size < _HEADER.size or not begin <= end:
            return
        self._size = max(0, min(size, stream.size - self._header_size))
        self.begin, self.end, self.buckets = begin, min(end, begin + self._size // 4), buckets

    def record(self, number: int) -> TypeRecord | None:
        """Return the record with this number, or None if there is none or the stream is damaged there."""
        if not self.begin <= number < self.end:
            return None
        if not self._has_list:
            self._make_list()
        index = bisect_right(self._numbers, number) - 1
        if index < 0:
            return None
        data, starts = self._part(index)
        place = number - self._numbers[index]
        if place >= len(starts):
            return None
        at = starts[place]
        length, kind = struct.unpack_from("<HH", data, at)
        return kind, data[at + 4 : at + 2 + length]

    def numbers_in_bucket(self, bucket: int) -> Iterator[int]:
        """Yield the numbers of the records in a hash bucket, at most 256 of them."""
        if self._hash_size != 4 or self._hash_stream == _NO_STREAM or self._values_at < 0:
            return
        stream = self._open(self._hash_stream)
        size = min(self._values_size, 4 * (self.end - self.begin))
        found = 0
        for piece in range(0, size, _HASH_PIECE):
            self.time.check()
            values = stream.read(self._values_at + piece, min(_HASH_PIECE, size - piece))
            at = find_word(values, bucket)
            while at >= 0:
                yield self.begin + (piece + at) // 4
                found += 1
                if found >= _MAX_CANDIDATES:
                    return
                at = find_word(values, bucket, at + 4)

    def _part(self, index: int) -> tuple[bytes, list[int]]:
        """Return the bytes of a part, and the offset of each record in them."""
        known = self._kept.get(index)
        if known is not None:
            self._kept.move_to_end(index)
            return known
        begin = self._offsets[index]
        end = self._offsets[index + 1] if index + 1 < len(self._offsets) else self._size
        data = self._stream.read(self._header_size + begin, max(0, min(end - begin, _MAX_PART)))
        made = data, record_offsets(data)
        self._kept[index] = made
        self._kept_size += len(data)
        while self._kept_size > _MAX_KEPT and len(self._kept) > 1:
            _, (dropped, _) = self._kept.popitem(last=False)
            self._kept_size -= len(dropped)
        return made

    def _make_list(self) -> None:
        self._has_list = True
        if self._hash_stream != _NO_STREAM and self._list_at >= 0:
            size = min(self._list_size, 8 * _MAX_PARTS_LISTED) // 8 * 8
            words = array("I")
            words.frombytes((data := self._open(self._hash_stream).read(self._list_at, size))[: len(data) // 8 * 8])
            if byteorder == "big":
                words.byteswap()
            self._numbers, self._offsets = words[0::2], words[1::2]
        if not self._is_list_good():
            self._scan()

    def _is_list_good(self) -> bool:
        """Say whether the list begins with the first record and counts up. Else it is damaged, or there is none."""
        numbers, offsets = self._numbers, self._offsets
        if not numbers or numbers[0] != self.begin or offsets[0] != 0 or offsets[-1] > self._size:
            return False
        return all(numbers[at] < numbers[at + 1] and offsets[at] < offsets[at + 1] for at in range(len(numbers) - 1))

    def _scan(self) -> None:
        """Make the list from the records themselves."""
        self._numbers, self._offsets = array("I", [self.begin]), array("I", [0])
        number, at, size = self.begin, 0, min(self._size, _MAX_SCANNED)
        while at < size:
            # A record has at most 64 KB, so that each piece has one whole record unless the stream is damaged.
            data = self._stream.read(self._header_size + at, _PART + (1 << 16))
            last = None
            for last in records(data, 0, len(data)):
                if last.at >= _PART:
                    break
                number += 1
            if last is None:
                return
            step = last.at if last.at >= _PART else last.end
            at += step
            if at < size and number > self._numbers[-1]:
                self._numbers.append(number)
                self._offsets.append(at)


def name_hash(name: bytes) -> int:
    """Return the hash of a name in the tables of a PDB (`LHashPbCb` of microsoft-pdb, `hashStringV1` of LLVM)."""
    result = 0
    whole = len(name) // 4 * 4
    for (word,) in struct.iter_unpack("<I", name[:whole]):
        result ^= word
    rest = name[whole:]
    if len(rest) >= 2:
        result ^= rest[0] | rest[1] << 8
        rest = rest[2:]
    if rest:
        result ^= rest[0]
    result |= 0x20202020
    result ^= result >> 11
    return result ^ result >> 16
