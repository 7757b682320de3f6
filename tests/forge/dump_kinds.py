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

Keep = Callable[[bytes], bool]


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
    """Write the complete dump `full` as one of another kind, with the pages that `keep` wants."""
    data = full.read_bytes()
    is_64bit = data[4:8] == b"DU64"
    size = 2 * PAGE if is_64bit else PAGE
    pages = {number: page for number, page in _pages(data, size) if keep(page)}
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


def as_lime(full: Path, out: Path) -> None:
    """Write the complete dump `full` as a LiME image: {magic, version, first and last address} before each page."""
    data = full.read_bytes()
    size = 2 * PAGE if data[4:8] == b"DU64" else PAGE
    with out.open("wb") as file:
        for number, page in _pages(data, size):
            file.write(struct.pack("<IIQQQ", 0x4C694D45, 1, number * PAGE, number * PAGE + PAGE - 1, 0) + page)


def as_elf(full: Path, out: Path) -> None:
    """Write it as an ELF core with a program header for each run, as QEMU's dump-guest-memory does."""
    runs = _joined(full)
    count = len(runs) + 1
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head += struct.pack("<HHIQQQIHHHHHH", 4, 62, 1, 0, 64, 0, 0, 64, 56, count, 0, 0, 0)
    note = struct.pack("<III", 5, 440, 1) + b"QEMU\0\0\0\0" + bytes(440)
    offset = 64 + 56 * count
    table = struct.pack("<IIQQQQQQ", 4, 0, offset, 0, 0, len(note), len(note), 0)
    offset += len(note)
    for start, contents in runs:
        table += struct.pack("<IIQQQQQQ", 1, 0, offset, 0, start, len(contents), len(contents), 0)
        offset += len(contents)
    out.write_bytes(head + table + note + b"".join(bytes(contents) for _, contents in runs))


def as_vmware(full: Path, out: Path) -> None:
    """Write it as VMware does: a .vmem file with the regions of memory in a row, and a .vmsn that says which they are.

    Its group "memory" holds tags {size of the value and indexes << 6, length of the name, name, indexes, value}.
    """
    runs = _joined(full)
    values: dict[tuple[bytes, tuple[int, ...]], int] = {(b"regionsCount", ()): len(runs)}
    at = 0
    for index, (start, contents) in enumerate(runs):
        values[b"regionPPN", (index,)] = start // PAGE
        values[b"regionPageNum", (index,)] = at // PAGE
        values[b"regionSize", (index,)] = len(contents) // PAGE
        at += len(contents)
    tags = b"".join(
        struct.pack(f"<BB{len(name)}s{len(indexes)}II", 4 | len(indexes) << 6, len(name), name, *indexes, value)
        for (name, indexes), value in values.items()
    )
    head = struct.pack("<III64sQQ", 0xBED2BED2, 8, 1, b"memory", 92, len(tags) + 2)
    out.with_suffix(".vmsn").write_bytes(head + tags + bytes(2))
    out.write_bytes(b"".join(bytes(contents) for _, contents in runs))


def _joined(full: Path) -> list[tuple[int, bytearray]]:
    """Return (physical address, contents) of each run of pages."""
    data = full.read_bytes()
    runs: list[tuple[int, bytearray]] = []
    for number, page in _pages(data, 2 * PAGE if data[4:8] == b"DU64" else PAGE):
        if not runs or runs[-1][0] + len(runs[-1][1]) != number * PAGE:
            runs.append((number * PAGE, bytearray()))
        runs[-1][1].extend(page)
    return runs


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
