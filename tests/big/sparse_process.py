# SPDX-License-Identifier: Apache-2.0
"""A dump with a process that has reserved 64 GiB and uses 4 GiB of it, as a sparse file.

The forge writes the machine with the VAD alone. Then the dump gets a run of physical pages more: page tables, which are
written, and the pages themselves, which are a hole in the file. Every 32 MiB of the reserved range have one table, so 2
MiB in use.
"""

from __future__ import annotations

import struct
from pathlib import Path

from tests.forge.build import build
from tests.forge.cases import builders
from tests.forge.describe import Region
from tests.forge.physical import PAGE

BASE = 0x10000000000
RESERVED, USED = 64 << 30, 4 << 30
_FIRST = 0x100000
"""The number of the first page of the run that is added: it is at 4 GiB of physical memory."""
_ENTRIES = 512
_TABLE_SPAN = _ENTRIES * PAGE
_PRESENT = 0x067
"""Present, writable, user, accessed, dirty."""
_HEADER_SIZE, _DIRECTORY_BASE, _RUNS, _PAGES, _SPACE = 0x2000, 0x10, 0x88, 0x90, 0xFA0
_RUN = struct.Struct("<QQ")


def write_sparse_dump(out: Path, *, reserved: int = RESERVED, used: int = USED) -> tuple[Path, int]:
    """Write MEMORY.DMP and isf/ into `out`; return the dump's path and the PID of the process."""
    machine = builders()["quiet"][0]().machine
    process = next(process for process in machine.processes if process.regions)
    process.regions.append(Region(BASE, bytes(PAGE), reserve=reserved - PAGE))
    dump = build(machine, out).dump
    root = _process_root(dump, process.pid)
    _add_pages(dump, root, reserved, used)
    return dump, process.pid


def _process_root(dump: Path, pid: int) -> int:
    """Return the physical address of the process's top page table."""
    import throwstack  # noqa: PLC0415

    with throwstack.open(dump, symbols=dump.parent / "isf", symbol_path="", offline=True) as opened:
        machine = opened._machine
        for item in machine.processes():
            if int(item.UniqueProcessId) == pid:
                return int(item.Pcb.DirectoryTableBase)
    raise LookupError(pid)


def _add_pages(dump: Path, root: int, reserved: int, used: int) -> None:
    count = used // _TABLE_SPAN
    stride = reserved // count
    directories = -(-reserved // (1 << 30))
    first_table = _FIRST + 1 + directories
    first_page = first_table + count
    with dump.open("r+b") as file:
        header = bytearray(file.read(_HEADER_SIZE))
        runs = _runs(header)
        _set_entry(file, runs, root, BASE >> 39, _FIRST)
        pointers, tables = bytearray(PAGE), [bytearray(PAGE) for _ in range(directories)]
        for index in range(directories):
            struct.pack_into("<Q", pointers, 8 * index, (_FIRST + 1 + index) * PAGE | _PRESENT)
        file.seek(0, 2)
        at = file.tell()
        leaves = []
        for number in range(count):
            where = number * stride
            entry = (first_table + number) * PAGE | _PRESENT
            struct.pack_into("<Q", tables[where >> 30], 8 * (where >> 21 & 511), entry)
            page = first_page + number * _ENTRIES
            leaves.append(struct.pack("<512Q", *((page + index) * PAGE | _PRESENT for index in range(_ENTRIES))))
        file.write(b"".join((pointers, *tables, *leaves)))
        pages = 1 + directories + count + count * _ENTRIES
        file.truncate(at + pages * PAGE)
        _add_run(header, len(runs), pages)
        file.seek(0)
        file.write(header)


def _runs(header: bytes) -> list[tuple[int, int]]:
    (count,) = struct.unpack_from("<I", header, _RUNS)
    return [_RUN.unpack_from(header, _RUNS + 0x10 + index * _RUN.size) for index in range(count)]


def _add_run(header: bytearray, count: int, pages: int) -> None:
    (before,) = struct.unpack_from("<Q", header, _PAGES)
    struct.pack_into("<I", header, _RUNS, count + 1)
    struct.pack_into("<Q", header, _PAGES, before + pages)
    struct.pack_into("<Q", header, _SPACE, _HEADER_SIZE + (before + pages) * PAGE)
    _RUN.pack_into(header, _RUNS + 0x10 + count * _RUN.size, _FIRST, pages)


def _set_entry(file, runs: list[tuple[int, int]], table: int, index: int, page: int) -> None:
    """Write an entry of the table at a physical address."""
    offset = _HEADER_SIZE
    for first, count in runs:
        if first <= table // PAGE < first + count:
            file.seek(offset + (table // PAGE - first) * PAGE + 8 * index)
            file.write(struct.pack("<Q", page * PAGE | _PRESENT))
            return
        offset += count * PAGE
    raise LookupError(table)
