# SPDX-License-Identifier: Apache-2.0
"""Writes what a PDB finds its records by: hashes of names and types, and the hash table of publics and globals.

Follows LLVM's descriptions (Hash.cpp, "The PDB Global Symbol Stream", "The PDB TPI and IPI Streams"). A wrong hash is
noticed by nobody who reads a PDB from its beginning to its end, so tests look names up with LLVM's tool.
"""

from __future__ import annotations

import struct
import zlib
from collections import defaultdict

TYPE_BUCKETS = 0x3FFFF
_NAME_BUCKETS, _NAME_BUCKETS_OF_FASTLINK = 4096, 0x3FFFF
_SIZE_IN_MEMORY = 12
"""The size of a hash record in Microsoft's own memory, which the offsets of buckets count in."""


def hash_name(name: str) -> int:
    """Return the hash of a name (`Hasher::lhashPbCb`, LLVM's `hashStringV1`)."""
    data = name.encode()
    words = len(data) // 4
    result = 0
    for word in struct.unpack_from(f"<{words}I", data):
        result ^= word
    rest = data[4 * words :]
    if len(rest) >= 2:
        result ^= int.from_bytes(rest[:2], "little")
        rest = rest[2:]
    if rest:
        result ^= rest[0]
    result |= 0x20202020
    result ^= result >> 11
    return result ^ result >> 16


def hash_record(record: bytes) -> int:
    """Return the hash of a type record that has no name (LLVM's `hashBufferV8`): a CRC-32 without its inversions."""
    return zlib.crc32(record, 0xFFFFFFFF) ^ 0xFFFFFFFF


def name_table(names: list[tuple[str, int]], *, is_fastlink: bool = False) -> bytes:
    """Return the hash table of symbols, (name, offset of the record in the symbol record stream)."""
    count = _NAME_BUCKETS_OF_FASTLINK if is_fastlink else _NAME_BUCKETS
    buckets = defaultdict(list)
    for name, offset in names:
        buckets[hash_name(name) % count].append((len(name), name.lower(), name, offset))
    bitmap = [0] * (count // 32 + 1)
    records, starts = bytearray(), []
    for number in sorted(buckets):
        bitmap[number // 32] |= 1 << number % 32
        starts.append(len(records) // 8 * _SIZE_IN_MEMORY)
        records += b"".join(struct.pack("<II", offset + 1, 1) for *_, offset in sorted(buckets[number]))
    table = struct.pack(f"<{len(bitmap)}I{len(starts)}I", *bitmap, *starts)
    return struct.pack("<IIII", 0xFFFFFFFF, 0xF12F091A, len(records), len(table)) + records + table
