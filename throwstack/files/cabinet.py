# SPDX-License-Identifier: Apache-2.0
"""Unpacks the compressed files of a symbol store. For example, `app.pd_` is a cabinet with `app.pdb` as its only file.

Follows [MS-CAB] and [MS-MCI]. Only MSZIP is supported, which makecab uses by default: blocks of at most 32 KB, each a
deflate stream that can refer back into the block before it. LZX and Quantum are refused; the message names tools that
unpack them.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from throwstack.core.errors import ThrowstackError
from throwstack.files.cache_files import SPARE, free_space, new_file

_HEADER = struct.Struct("<4s12xI6xHHHHH")
_RESERVED = struct.Struct("<HBB")
_FOLDER = struct.Struct("<IHH")
_FILE = struct.Struct("<II8x")
_DATA = struct.Struct("<4xHH")
_HAS_RESERVED, _IS_PART_OF_A_SET = 4, 3
_METHODS = {0: "stored", 1: "MSZIP", 2: "Quantum", 3: "LZX"}
_BLOCK = 0x8000
_DAMAGED = "a damaged cabinet"


class NotUnpacked(ThrowstackError):
    """A cabinet is damaged or not supported, or there is no space for its contents; the message says which."""


def unpack(packed: Path, target: Path) -> None:
    """Write the first file in the cabinet `packed` to the new file `target`.

    The new file gets the modification time of the cabinet. If anything fails, no file is left.

    Raises:
        NotUnpacked: the cabinet is damaged or not supported, or the disk has no room.
        OSError: `packed` cannot be read or `target` cannot be written.
    """
    try:
        with packed.open("rb") as file:
            size, pieces = _first_file(file)
            free = free_space(target.parent)
            if size > free:
                message = f"its {size >> 20} MB do not fit: {free >> 20} MB are free beside {SPARE >> 20} MB in reserve"
                raise NotUnpacked(message)
            with new_file(target) as out:
                out.writelines(pieces)
        modified = packed.stat().st_mtime_ns
        os.utime(target, ns=(modified, modified))
    except (struct.error, zlib.error):
        raise NotUnpacked(_DAMAGED) from None


def _first_file(file: BinaryIO) -> tuple[int, Iterator[bytes]]:
    """Return the declared size of the first file in a cabinet, and an iterator over its contents in pieces.

    The pieces together are never longer than the declared size.
    """
    signature, files, folders, count, flags, _, _ = _read(file, _HEADER)
    if signature != b"MSCF" or not folders or not count or flags & _IS_PART_OF_A_SET:
        message = "not a cabinet, or one of several"
        raise NotUnpacked(message)
    data_reserved = 0
    if flags & _HAS_RESERVED:
        header_reserved, _, data_reserved = _read(file, _RESERVED)
        file.seek(header_reserved, os.SEEK_CUR)
    data, blocks, method = _read(file, _FOLDER)
    if method & 0xF > 1:
        message = f"compressed with {_METHODS.get(method & 0xF, 'an unknown method')}, which is not read"
        raise NotUnpacked(message)
    file.seek(files)
    size, start = _read(file, _FILE)
    file.seek(data)
    return size, _pieces(file, size, start, blocks, data_reserved, is_packed=bool(method & 0xF))


def _pieces(
    file: BinaryIO, size: int, start: int, blocks: int, data_reserved: int, *, is_packed: bool
) -> Iterator[bytes]:
    before = b""
    for _ in range(blocks):
        packed_size, unpacked_size = _read(file, _DATA)
        file.seek(data_reserved, os.SEEK_CUR)
        block = file.read(packed_size)
        if is_packed:
            block = zlib.decompressobj(-zlib.MAX_WBITS, before).decompress(block[2:], _BLOCK)  # after "CK"
        before = block
        if len(before) != unpacked_size:
            break
        piece = before[start : start + size]
        start = max(0, start - len(before))
        size -= len(piece)
        yield piece
    if size:
        raise NotUnpacked(_DAMAGED)


def _read(file: BinaryIO, what: struct.Struct) -> tuple[Any, ...]:
    return what.unpack(file.read(what.size))
