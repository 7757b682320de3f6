# SPDX-License-Identifier: Apache-2.0
"""Whose PDB a file is: GUID and age, read without loading anything else of it.

Follows LLVM's description of the format (The MSF File Format, The PDB Info Stream, The PDB DBI Stream). The age that
has to equal the image's is that of the DBI stream: the one in the info stream goes up each time a tool rewrites the
file (source indexing, stripping), while the image keeps the age it was linked with. A PDB without a DBI stream has
only the other.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from throwstack.images import PdbIdentity

_MAGIC = b"Microsoft C/C++ MSF 7.00\r\n\x1aDS\0\0\0"
_SUPERBLOCK = struct.Struct("<32sIIIIII")
_BLOCK_SIZES = frozenset(1 << bits for bits in range(9, 17))
_MAX_DIRECTORY = 64 << 20
_MAX_STREAMS = 1 << 16
_NIL = 0xFFFFFFFF
_INFO_STREAM, _DBI_STREAM = 1, 3


@dataclass(frozen=True, slots=True)
class PdbFileIdentity:
    """GUID as 32 upper-case hex digits and age, as an RSDS record has to give them for the PDB to be the image's."""

    guid: str
    age: int


class NotAPdb(Exception):
    """A file that is no PDB or a damaged one; the text says in which way."""


def read_pdb_identity(path: Path) -> PdbFileIdentity:
    """Return the identity of the PDB at `path`. Raises `NotAPdb`, and `OSError` if the file cannot be read."""
    with path.open("rb") as file:
        try:
            return _read(file, path.stat().st_size)
        except (struct.error, IndexError, OverflowError):
            message = "damaged (its stream directory leads nowhere)"
            raise NotAPdb(message) from None


def check_pdb(path: Path, wanted: PdbIdentity, max_size: int) -> str | None:
    """Return why the file at `path` is not the PDB `wanted`, or None if it is."""
    try:
        size = path.stat().st_size
        if size > max_size:
            return f"{size >> 20} MB are more than the limit of {max_size >> 20} MB"
        found = read_pdb_identity(path)
    except NotAPdb as error:
        return str(error)
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    if found.guid != wanted.guid:
        return f"GUID {found.guid}, the image wants {wanted.guid}"
    if found.age != wanted.age:
        return f"age {found.age}, the image wants {wanted.age} (GUID {wanted.guid})"
    return None


def _read(file: BinaryIO, file_size: int) -> PdbFileIdentity:
    head = file.read(_SUPERBLOCK.size)
    if head[:32] != _MAGIC:
        message = "not a PDB" if head[:15] != _MAGIC[:15] else "a PDB of the old format 2.00"
        raise NotAPdb(message)
    _, block_size, _, blocks, directory_size, _, map_block = _SUPERBLOCK.unpack(head)
    if block_size not in _BLOCK_SIZES or directory_size > _MAX_DIRECTORY:
        message = "damaged (its header holds impossible sizes)"
        raise NotAPdb(message)
    if blocks * block_size > file_size:
        message = f"truncated ({file_size} of {blocks * block_size} bytes)"
        raise NotAPdb(message)

    def block(number: int) -> bytes:
        file.seek(number * block_size)
        return file.read(block_size)

    def words(data: bytes) -> tuple[int, ...]:
        return struct.unpack(f"<{len(data) // 4}I", data[: len(data) // 4 * 4])

    directory_blocks = -(-directory_size // block_size)
    map_size = -(-directory_blocks * 4 // block_size)
    numbers = words(b"".join(block(map_block + index) for index in range(map_size)))[:directory_blocks]
    directory = words(b"".join(block(number) for number in numbers)[:directory_size])
    streams = directory[0]
    if streams > _MAX_STREAMS:
        message = "damaged (too many streams)"
        raise NotAPdb(message)
    sizes = [0 if size == _NIL else size for size in directory[1 : 1 + streams]]

    def start_of(stream: int) -> bytes:
        """Return the first bytes of a stream: at most a block, empty if there is no such stream."""
        if stream >= len(sizes) or not sizes[stream]:
            return b""
        before = sum(-(-size // block_size) for size in sizes[:stream])
        return block(directory[1 + streams + before])[: sizes[stream]]

    info, dbi = start_of(_INFO_STREAM), start_of(_DBI_STREAM)
    _, _, info_age, raw = struct.unpack_from("<III16s", info)
    guid = "{:08X}{:04X}{:04X}".format(*struct.unpack_from("<IHH", raw)) + raw[8:].hex().upper()
    age = struct.unpack_from("<I", dbi, 8)[0] if len(dbi) >= 64 else info_age
    return PdbFileIdentity(guid, age)
