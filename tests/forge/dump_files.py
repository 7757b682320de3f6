# SPDX-License-Identifier: Apache-2.0
"""Physical memory as a file: complete crash dump, bitmap crash dump, raw image.

Header offsets are those of DUMP_HEADER and DUMP_HEADER64, and SUMMARY_DUMP for the bitmap's header (the ISF tables
`crash`, `crash64` and `crash_common` that Volatility ships name them).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from tests.forge.physical import PAGE, PhysicalMemory


class DumpKind(Enum):
    """The kinds of file. The values of the first two are DUMP_HEADER.DumpType."""

    FULL = 1
    BITMAP = 5
    RAW = 0


@dataclass(frozen=True)
class DumpFacts:
    """What a dump's header says beside the memory."""

    is_64bit: bool
    is_pae: bool
    build: int
    directory_base: int
    debugger_data: int
    module_list: int
    process_list: int
    processors: int
    bug_check: tuple[int, int, int, int, int]
    system_time: int
    up_time: int


_RUNS = {True: (0x88, 0x348, "<QQ"), False: (0x64, 0x320, "<II")}
"""Where the runs start and end in the header, and a run's form."""


def write_dump(path: Path, kind: DumpKind, physical: PhysicalMemory, facts: DumpFacts) -> None:
    """Write memory to a file."""
    with path.open("wb") as file:
        if kind is DumpKind.RAW:
            for number, page in physical.contents():
                file.seek(number * PAGE)
                file.write(page)
            return
        start, end, form = _RUNS[facts.is_64bit]
        runs = physical.runs((end - start) // struct.calcsize(form) - 1)
        header = _header(facts, kind, runs)
        if kind is DumpKind.BITMAP:
            header = _with_bitmap(header, physical)
        file.write(header)
        for _, page in physical.contents():
            file.write(page)


def write_page_file(path: Path, pages: dict[int, bytes]) -> None:
    """Write a page file that holds these pages."""
    with path.open("wb") as file:
        for number, page in pages.items():
            file.seek(number * PAGE)
            file.write(page)


def _header(facts: DumpFacts, kind: DumpKind, runs: list[tuple[int, int]]) -> bytes:
    """Return the header, of one page (x86) or two (x64). Room that nothing is said of holds PAGE, as Windows has it."""
    size = 2 * PAGE if facts.is_64bit else PAGE
    header = bytearray(b"PAGE" * (size // 4))
    pages = sum(count for _, count in runs)
    start, end, form = _RUNS[facts.is_64bit]
    header[start:end] = bytes(end - start)
    code, *parameters = facts.bug_check
    if facts.is_64bit:
        pointers = (facts.directory_base, 0, facts.module_list, facts.process_list)
        struct.pack_into("<4sII4Q", header, 4, b"DU64", 0xF, facts.build, *pointers)
        struct.pack_into("<IIII4Q", header, 0x30, 0x8664, facts.processors, code, 0, *parameters)
        header[0x60:0x80] = bytes(0x20)
        struct.pack_into("<QIIQ", header, 0x80, facts.debugger_data, len(runs), 0, pages)
        times, where = (facts.system_time, facts.up_time), (0xF98, 0xFA0, 0xFA8, 0x1030)
        runs_at = start + 0x10
        header[0x348:0xF98] = bytes(0xF98 - 0x348)
    else:
        pointers = (facts.directory_base, 0, facts.module_list, facts.process_list)
        struct.pack_into("<4sII4I", header, 4, b"DUMP", 0xF, facts.build, *pointers)
        struct.pack_into("<III4I", header, 0x20, 0x14C, facts.processors, code, *(p & 0xFFFFFFFF for p in parameters))
        header[0x3C:0x60] = bytes(0x24)
        header[0x5C] = facts.is_pae
        struct.pack_into("<III", header, 0x60, facts.debugger_data, len(runs), pages)
        times, where = (facts.system_time, facts.up_time), (0xF88, 0xFA0, 0xFC0, 0xFB8)
        runs_at = start + 8
        header[0x320:0xF88] = bytes(0xF88 - 0x320)
    struct.pack_into("<I", header, where[0], kind.value)
    for offset, value in zip(where[1:], (size + pages * PAGE, *times), strict=True):
        struct.pack_into("<Q", header, offset, value)
    for index, run in enumerate(runs):
        struct.pack_into(form, header, runs_at + index * struct.calcsize(form), *run)
    return bytes(header)


def _with_bitmap(header: bytes, physical: PhysicalMemory) -> bytes:
    """Return header and bitmap: a bit for each page frame, set for those whose page is in the file."""
    bits = max(physical.pages) // 32 * 32 + 32
    bitmap = bytearray(bits // 8)
    for number in physical.pages:
        bitmap[number // 8] |= 1 << number % 8
    fixed = 0x38
    size = -(-(len(header) + fixed + len(bitmap)) // PAGE) * PAGE
    summary = bytearray(fixed)
    struct.pack_into("<4s4s", summary, 0, b"SDMP", b"DUMP")
    struct.pack_into("<QQQ", summary, 0x20, size, len(physical.pages), bits)
    return (header + bytes(summary) + bytes(bitmap)).ljust(size, b"\0")
