# SPDX-License-Identifier: Apache-2.0
"""Crash dumps of the kinds beyond those of `dump_files`: made from a complete one, by laying its pages out anew.

Layouts: SUMMARY_DUMP32/64 of the Windows SDK for the bitmap of Windows 7 and earlier, the one with 64-bit figures for
later ones, and the page ranges ("RDMP") that current debuggers write.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from enum import Enum
from pathlib import Path

PAGE = 0x1000

Keep = Callable[[int], bool]


class MoreKinds(Enum):
    """DUMP_HEADER.DumpType."""

    SUMMARY = 2
    TRIAGE = 4
    BITMAP_KERNEL = 6
    AUTOMATIC = 7
    LIVE_KERNEL = 8
    LIVE_USER = 9
    LIVE_FULL = 10


def rewrite(full: Path, out: Path, kind: MoreKinds, keep: Keep = lambda _: True) -> None:
    """Write the complete dump `full` as one of another kind, with the page frames that `keep` wants."""
    data = full.read_bytes()
    is_64bit = data[4:8] == b"DU64"
    size = 2 * PAGE if is_64bit else PAGE
    pages = {number: page for number, page in _pages(data, size) if keep(number)}
    header = bytearray(data[:size])
    struct.pack_into("<I", header, 0xF98 if is_64bit else 0xF88, kind.value)
    if kind is MoreKinds.TRIAGE:
        out.write_bytes(bytes(header) + b"\0" * 0xE000)
        return
    if kind is MoreKinds.SUMMARY:
        head = _old_bitmap(pages, size, is_64bit)
    elif kind in {MoreKinds.BITMAP_KERNEL, MoreKinds.AUTOMATIC}:
        head = _bitmap(pages, size)
    else:
        head = _ranges(sorted(pages), size)
    # A dump with a bitmap or ranges says nothing of runs in its header.
    start, end = (0x88, 0x344) if is_64bit else (0x64, 0x320)
    header[start:end] = (b"PAGE" * 175)[: end - start]
    with out.open("wb") as file:
        file.write(bytes(header) + head)
        for number in sorted(pages):
            file.write(pages[number])


def _pages(data: bytes, offset: int) -> Iterable[tuple[int, bytes]]:
    at, form = (0x98, "<QQ") if offset == 2 * PAGE else (0x6C, "<II")
    (runs,) = struct.unpack_from("<I", data, at - struct.calcsize(form))
    for index in range(runs):
        first, count = struct.unpack_from(form, data, at + index * struct.calcsize(form))
        for number in range(first, first + count):
            yield number, data[offset : offset + PAGE]
            offset += PAGE


def _bits(pages: dict[int, bytes]) -> bytes:
    bits = bytearray(max(pages) // 64 * 8 + 8)
    for number in pages:
        bits[number // 8] |= 1 << number % 8
    return bytes(bits)


def _padded(head: bytes, before: int) -> bytes:
    return head + b"\0" * (-(before + len(head)) % PAGE)


def _bitmap(pages: dict[int, bytes], size: int) -> bytes:
    bits = _bits(pages)
    length = len(_padded(bytes(0x38) + bits, size))
    head = struct.pack("<8s24xQQQ", b"SDMPDUMP", size + length, len(pages), len(bits) * 8)
    return _padded(head + bits, size)


def _old_bitmap(pages: dict[int, bytes], size: int, is_64bit: bool) -> bytes:
    bits = _bits(pages)
    form = "<8sIIIIIIQ" if is_64bit else "<8sIIIIII"
    length = len(_padded(bytes(struct.calcsize(form)) + bits, size))
    count = len(bits) * 8
    fields = (b"SDMPDUMP", 0, size + length, count, len(pages), count, 0)
    return _padded(struct.pack(form, *fields, *([0] if is_64bit else [])) + bits, size)


def _ranges(numbers: list[int], size: int) -> bytes:
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and sum(ranges[-1]) == number:
            ranges[-1][1] += 1
        else:
            ranges.append([number, 1])
    entries = b"".join(struct.pack("<QQ", *item) for item in ranges) + bytes(16)
    length = len(_padded(bytes(0x30) + entries, size))
    metadata = size + length - size - 0x20
    head = struct.pack("<I8sIQQIIQ", 0x40, b"RDMPDUMP", 0, metadata, size + length, len(ranges), 0, len(numbers))
    return _padded(head + entries, size)
