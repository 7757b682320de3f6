# SPDX-License-Identifier: Apache-2.0
"""Writes cabinets as makecab does."""

from __future__ import annotations

import struct
import zlib

STORED, MSZIP, LZX = 0, 1, 0x1503


def cabinet(data: bytes, method: int = MSZIP, flags: int = 0, before: bytes = b"") -> bytes:
    """Pack `data` as a file after `before`, in blocks that refer back to the one before."""
    everything = before + data
    reserve, folder_reserve, data_reserve = (
        (struct.pack("<HBB", 6, 3, 2) + b"r" * 6, b"f" * 3, b"d" * 2) if flags & 4 else (b"",) * 3
    )
    blocks, last = [], b""
    for start in range(0, len(everything), 0x8000):
        piece = everything[start : start + 0x8000]
        packed = piece
        if method == MSZIP:
            deflate = (
                zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, last)
                if last
                else zlib.compressobj(9, zlib.DEFLATED, -15)
            )
            packed = b"CK" + deflate.compress(piece) + deflate.flush()
        last = piece
        blocks.append(struct.pack("<IHH", 0, len(packed), len(piece)) + data_reserve + packed)
    file = struct.pack("<IIHHHH", len(data), len(before), 0, 0, 0, 0x20) + b"app.pdb\0"
    files = 36 + len(reserve) + 8 + len(folder_reserve)
    folder = struct.pack("<IHH", files + len(file), len(blocks), method) + folder_reserve
    body = b"".join(blocks)
    header = struct.pack(
        "<4sIIIIIBBHHHHH", b"MSCF", 0, files + len(file) + len(body), 0, files, 0, 3, 1, 1, 1, flags, 0, 0
    )
    return header + reserve + folder + file + body
