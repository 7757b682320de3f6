# SPDX-License-Identifier: Apache-2.0
"""Finds where the physical pages are in the file of a crash dump. There are three layouts.

- Runs (type 1): PHYSICAL_MEMORY_DESCRIPTOR in the header lists them; the pages follow the header in that order.
- Bitmap (types 2, 5, 6, 7): a second header, "SDMP" or "FDMP" and "DUMP", follows the dump's header. After it comes a
  bit for each page frame, then the pages whose bits are set, by frame number. Up to Windows 7 the second header's
  figures have 32 bits (SUMMARY_DUMP32/64 of the SDK); from Windows 8 on they have 64 bits and other offsets.
- Ranges (types 8, 9, 10): a second header (0x40, "RDMP" and "DUMP") follows the dump's header. After it come pairs of
  frame number and page count, then the pages.

A truncated file still lists the pages that it lost. Their runs are kept although they are beyond the end of the file,
so that the lost pages can be counted and reported as missing. The work that a hostile list can cause is bounded.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from throwstack.core.errors import ThrowstackError
from throwstack.core.memory import PAGE_SIZE
from throwstack.crashdump.file_bytes import ByteSource
from throwstack.crashdump.header import DumpHeader, DumpKind

_MAX_BITMAP = 1 << 31
"""The most bits of a bitmap. There is one for each page, so this allows 8 TiB of memory."""
_MAX_RANGES = 1 << 20
_MAX_FRAME = 1 << 40
_MAX_LOST_RUNS = 1 << 16
"""The most runs beyond the end of the file that are kept one by one."""
_BITMAP_KINDS = frozenset({DumpKind.SUMMARY, DumpKind.BITMAP_FULL, DumpKind.BITMAP_KERNEL, DumpKind.AUTOMATIC})
_RANGE_KINDS = frozenset({DumpKind.LIVE_KERNEL, DumpKind.LIVE_USER, DumpKind.LIVE_FULL})
_WITHOUT_MEMORY = {
    DumpKind.TRIAGE: " (a small dump, of one thread's kernel stack)",
    DumpKind.HEADER: " (the header alone)",
}
_CUT_LIST = "the file ends within the list of its pages, before the first page"
_SET = re.compile(rb"\xff+|[^\x00]", re.DOTALL)


@dataclass(frozen=True, slots=True)
class PageRun:
    """A run of pages: the first frame number, the number of pages, and the first page's offset in the file.

    The pages have consecutive frame numbers, and follow each other in the file.
    """

    first: int
    count: int
    offset: int


class NoRuns(ThrowstackError):
    """The list of a dump's pages cannot be read; the message says why."""


def read_runs(data: ByteSource, header: DumpHeader) -> tuple[PageRun, ...]:
    """Return the runs of a dump's pages, by frame number and without overlaps. Raises `NoRuns` if there is none."""
    if header.kind is DumpKind.FULL:
        runs = _described(data, header)
    elif header.kind in _BITMAP_KINDS:
        runs = _from_bitmap(data, header)
    elif header.kind in _RANGE_KINDS:
        runs = _from_ranges(data, header)
    else:
        kind = "" if header.kind is None else _WITHOUT_MEMORY.get(header.kind, "")
        message = f"dump type {header.dump_type:#x}{kind} holds no physical memory"
        raise NoRuns(message)
    clean = tuple(_disjoint(runs))
    if not clean:
        message = "the dump names no page of physical memory"
        raise NoRuns(message)
    return clean


def _disjoint(runs: Iterator[PageRun]) -> Iterator[PageRun]:
    end = 0
    for run in sorted(runs, key=lambda run: run.first):
        if run.count <= 0 or run.first < end or run.first + run.count > _MAX_FRAME:
            continue
        end = run.first + run.count
        yield run


def _described(data: ByteSource, header: DumpHeader) -> Iterator[PageRun]:
    where, form, start = (0x88, "<QQ", 0x10) if header.is_64bit else (0x64, "<II", 8)
    block = data.read(where, 700)
    (count,) = struct.unpack_from("<I", block)
    entry = struct.Struct(form)
    most = (len(block) - start) // entry.size
    if not 0 < count <= most:
        message = f"the header's list of memory runs is not valid ({count} of them, room for {most})"
        raise NoRuns(message)
    offset = header.size
    for index in range(count):
        first, pages = entry.unpack_from(block, start + index * entry.size)
        yield PageRun(first, pages, offset)
        offset += pages * PAGE_SIZE


@dataclass(frozen=True, slots=True)
class _Bitmap:
    pages_at: int
    bits: int
    bits_at: int


def _from_bitmap(data: ByteSource, header: DumpHeader) -> Iterator[PageRun]:
    head = data.read(header.size, 0x38)
    if len(head) < 0x38 or head[:4] not in {b"SDMP", b"FDMP"} or head[4:8] != b"DUMP":
        message = "the dump's bitmap has no header"
        raise NoRuns(message)
    bitmap = _bitmap(head, header)
    if not header.size < bitmap.pages_at or not 0 < bitmap.bits <= _MAX_BITMAP:
        message = f"the dump's bitmap is not valid ({bitmap.bits} bits, pages from {bitmap.pages_at:#x} on)"
        raise NoRuns(message)
    bits = data.read(bitmap.bits_at, (bitmap.bits + 7) // 8)
    if len(bits) < (bitmap.bits + 7) // 8:
        raise NoRuns(_CUT_LIST)
    return _set_bits(bits, bitmap.pages_at, data.size)


def _bitmap(head: bytes, header: DumpHeader) -> _Bitmap:
    pages_at, _, bits = struct.unpack_from("<QQQ", head, 0x20)
    old_pages_at, old_bits = struct.unpack_from("<II", head, 0xC)
    if header.kind is DumpKind.SUMMARY and old_pages_at and old_pages_at % PAGE_SIZE == 0:
        return _Bitmap(old_pages_at, old_bits, header.size + (0x28 if header.is_64bit else 0x20))
    return _Bitmap(pages_at, bits, header.size + 0x38)


def _set_bits(bitmap: bytes, offset: int, end: int) -> Iterator[PageRun]:
    """Yield a `PageRun` for each run of set bits. The first page is at `offset` in the file, whose size is `end`.

    A small file can have a large bitmap, with millions of runs beyond the end of the file. Only some of these runs are
    yielded one by one. The last run then includes all further pages, so that they are counted; none can be read.
    """
    first = count = lost = 0
    for match in _SET.finditer(bitmap):
        piece, at = match[0], match.start() * 8
        for start, length in ((0, len(piece) * 8),) if piece[0] == 0xFF else _RUNS_IN_BYTE[piece[0]]:
            if count and at + start == first + count:
                count += length
                continue
            if count:
                yield PageRun(first, count, offset)
                offset += count * PAGE_SIZE
            first, count = at + start, length
            lost += offset >= end
        if lost > _MAX_LOST_RUNS:
            rest = bytes([bitmap[first // 8] >> first % 8]) + bitmap[first // 8 + 1 :]
            count = int.from_bytes(rest, "little").bit_count()
            break
    if count:
        yield PageRun(first, count, offset)


def _runs_in_byte(byte: int) -> tuple[tuple[int, int], ...]:
    """Return (first bit, number of bits) for each run of set bits in a byte, lowest first."""
    return tuple((match.start(), len(match[0])) for match in re.finditer("1+", f"{byte:08b}"[::-1]))


_RUNS_IN_BYTE = tuple(map(_runs_in_byte, range(256)))


def _from_ranges(data: ByteSource, header: DumpHeader) -> Iterator[PageRun]:
    head = data.read(header.size, 0x30)
    if len(head) < 0x30 or head[4:12] != b"RDMPDUMP":
        message = "the dump's list of page ranges has no header"
        raise NoRuns(message)
    _, offset = struct.unpack_from("<QQ", head, 0x10)
    start = header.size + 0x30
    total = struct.unpack_from("<Q", head, 0x28)[0] if header.kind is DumpKind.LIVE_FULL else None
    if not start < offset <= start + _MAX_RANGES * 16:
        message = f"the dump's list of page ranges cannot end at {offset:#x}"
        raise NoRuns(message)
    entries = data.read(start, (offset - start) // 16 * 16)
    if len(entries) < (offset - start) // 16 * 16:
        raise NoRuns(_CUT_LIST)
    return _ranges(entries, offset, total)


def _ranges(entries: bytes, offset: int, total: int | None) -> Iterator[PageRun]:
    seen = 0
    for first, count in struct.iter_unpack("<QQ", entries):
        if not first or not count or (total is not None and seen >= total):
            return
        if first + count > _MAX_FRAME:
            return
        yield PageRun(first, count, offset)
        offset += count * PAGE_SIZE
        seen += count
