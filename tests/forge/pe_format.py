# SPDX-License-Identifier: Apache-2.0
"""The parts of a PE file that say where things are: headers, export directory, RSDS record (PE/COFF specification)."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from tests.forge.symbols import Pdb

PAGE = 0x1000
I386, AMD64 = 0x14C, 0x8664


def pages(size: int) -> int:
    """Round up to whole pages."""
    return (size + PAGE - 1) & ~(PAGE - 1)


def padded(data: bytes) -> bytes:
    return data + bytes(pages(len(data)) - len(data))


def rsds(pdb: Pdb) -> bytes:
    guid = bytes.fromhex(pdb.guid)
    mixed = guid[3::-1] + guid[5:3:-1] + guid[7:5:-1] + guid[8:]
    return b"RSDS" + mixed + pdb.age.to_bytes(4, "little") + pdb.name.encode() + b"\0"


def export_directory(name: str, exports: Mapping[str, int], base: int, rva: int) -> bytes:
    names = sorted(exports)
    count = len(names)
    tables = 40
    strings = tables + count * 10
    blob = bytearray()
    name_rvas = []
    for item in (name, *names):
        name_rvas.append(rva + strings + len(blob))
        blob += item.encode() + b"\0"
    directory = struct.pack(
        "<IIHHIIIIIII",
        *(0, 0, 0, 0, name_rvas[0], 1, count, count),
        *(rva + tables, rva + tables + 4 * count, rva + tables + 8 * count),
    )
    functions = b"".join(struct.pack("<I", exports[item] - base) for item in names)
    pointers = b"".join(struct.pack("<I", item) for item in name_rvas[1:])
    ordinals = b"".join(struct.pack("<H", index) for index in range(count))
    return directory + functions + pointers + ordinals + bytes(blob)


def headers(
    name: str,
    *,
    machine: int,
    base: int,
    entry: int,
    timestamp: int,
    size: int,
    sections: list[tuple[str, int, int, int]],
    directories: Mapping[int, tuple[int, int]],
) -> bytes:
    wide = machine == AMD64
    dos = b"MZ" + bytes(58) + (0x80).to_bytes(4, "little")
    optional_size = 240 if wide else 224
    is_dll = not name.lower().endswith(".exe")
    traits = (0x2022 if wide else 0x2102) if is_dll else (0x22 if wide else 0x102)
    file_header = struct.pack("<HHIIIHH", machine, len(sections), timestamp, 0, 0, optional_size, traits)
    text = sections[0][2]
    optional = struct.pack(
        "<HBBIIIII", 0x20B if wide else 0x10B, 8, 0, text, size - text - PAGE, 0, entry - base if entry else 0, PAGE
    )
    optional += b"" if wide else struct.pack("<I", PAGE + text)
    optional += struct.pack("<Q" if wide else "<I", base)
    version = (10, 0, 10, 0, 10, 0) if wide else (5, 2, 5, 2, 4, 0)
    optional += struct.pack("<II6HIIIIHH", PAGE, 0x200, *version, 0, size, 0x400, 0, 3, 0)
    optional += struct.pack("<4Q" if wide else "<4I", 0x100000, 0x1000, 0x100000, 0x1000)
    optional += struct.pack("<II", 0, 16)
    optional += b"".join(struct.pack("<II", *directories.get(index, (0, 0))) for index in range(16))
    table = b"".join(
        struct.pack("<8sIIIIIIHHI", title.encode(), length, rva, pages(length), rva, 0, 0, 0, 0, flags)
        for title, rva, length, flags in sections
    )
    header = dos.ljust(0x80, b"\0") + b"PE\0\0" + file_header + optional + table
    return header.ljust(PAGE, b"\0")
