# SPDX-License-Identifier: Apache-2.0
"""Crash dumps in memory: headers at the offsets of the Windows SDK (DUMP_HEADER32, DUMP_HEADER64), runs, bitmaps."""

from __future__ import annotations

import struct


class Buffer:
    """What `throwstack.crashdump` reads."""

    def __init__(self, data: bytes | bytearray) -> None:
        self._data = bytes(data)
        self.size = len(data)

    def read(self, offset: int, size: int) -> bytes:
        return self._data[offset : offset + size] if offset >= 0 else b""


def header64(dump_type: int = 1) -> bytearray:
    page = bytearray(b"PAGE" * 0x800)
    struct.pack_into("<4sII4Q", page, 4, b"DU64", 15, 19041, 0x1AD000, 1, 0xFFFFF80300001000, 0xFFFFF80300002000)
    struct.pack_into("<4I4Q", page, 0x30, 0x8664, 8, 0xE2, 0, 1, 2, 3, 4)
    struct.pack_into("<Q", page, 0x80, 0xFFFFF80300003000)
    struct.pack_into("<I", page, 0xF98, dump_type)
    struct.pack_into("<QQ", page, 0xFA0, 0x123000, 132700000000000000)
    struct.pack_into("<Q", page, 0x1030, 36_000_000_000)
    return page


def header32(dump_type: int = 1, *, has_pae: bool = True) -> bytearray:
    page = bytearray(b"PAGE" * 0x400)
    struct.pack_into("<4sII4I", page, 4, b"DUMP", 15, 3790, 0x185000, 1, 0x80801000, 0x80802000)
    struct.pack_into("<7I", page, 0x20, 0x14C, 2, 0xD1, 1, 2, 3, 4)
    page[0x5C] = has_pae
    struct.pack_into("<I", page, 0x60, 0x80803000)
    struct.pack_into("<I", page, 0xF88, dump_type)
    struct.pack_into("<Q", page, 0xFB8, 36_000_000_000)
    struct.pack_into("<Q", page, 0xFC0, 128500000000000000)
    return page


PAGE = 0x1000


def with_runs(page: bytearray, runs: list[tuple[int, int]]) -> bytearray:
    is_64bit = len(page) == 2 * PAGE
    struct.pack_into("<I", page, 0x88 if is_64bit else 0x64, len(runs))
    for index, run in enumerate(runs):
        struct.pack_into(
            "<QQ" if is_64bit else "<II", page, (0x98 if is_64bit else 0x6C) + index * (16 if is_64bit else 8), *run
        )
    return page


def bitmap(frames: set[int], size: int, bits: int, signature: bytes = b"SDMP") -> bytes:
    data = bytearray(bits // 8)
    for frame in frames:
        data[frame // 8] |= 1 << frame % 8
    return struct.pack("<4s4s24xQQQ", signature, b"DUMP", size, len(frames), bits) + data
