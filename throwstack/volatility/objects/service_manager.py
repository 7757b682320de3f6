# SPDX-License-Identifier: Apache-2.0
"""Finds which services each process runs, in the memory of the service control manager, services.exe.

The manager has a SERVICE_RECORD for each service, which leads to the process that runs it. Nothing but the manager's
own variables points to the records, and no public symbols name those. But each record has the mark `sErv` (XP and
Server 2003). Since Vista, a SERVICE_HEADER with the mark `serH` points to one of them, and each record to the one
before it. So the private memory of the manager is searched for the marks. The layouts are those of Volatility's plugin
svcscan, whose tables come with Volatility.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from volatility3.framework.symbols import intermed

from throwstack.core.memory import PAGE_SIZE, Memory, MemoryUnreadable
from throwstack.core.text import text_at
from throwstack.pages.resolver import ResolvedPages
from throwstack.volatility.memory.layout import Layout
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.memory.offsets import MissingMembers, offset, take

log = logging.getLogger(__name__)

MANAGER = "services.exe"
_TABLES = {
    True: (
        *((25398, "win10-25398-x64"), (19041, "win10-19041-x64"), (18362, "win10-18362-x64")),
        *((16299, "win10-16299-x64"), (15063, "win10-15063-x64"), (9200, "win8-x64"), (6000, "vista-x64")),
        (2600, "xp-2003-x64"),
    ),
    False: (
        *((19041, "win10-19041-x86"), (18362, "win10-18362-x86"), (17763, "win10-17763-x86")),
        *((16299, "win10-16299-x86"), (15063, "win10-15063-x86"), (9200, "win8-x86"), (6000, "vista-x86")),
        (2600, "xp-x86"),
    ),
}
"""The first build of each layout, the latest first, for 64-bit and 32-bit Windows."""
_HEADERS_SINCE = 6000
_MAX_PAGES = 1 << 14
"""How many pages of the manager's memory are searched. It uses some 2,000."""
_MAX_RECORDS = 1 << 13
_MAX_MARKS = 1 << 14
"""A page that consists of marks can be mapped thousands of times."""
_MAX_NAME = 256
"""The most characters of a service's name (CreateService)."""
_RUNNING = 4
_OF_PROCESS = 0x30
"""SERVICE_WIN32_OWN_PROCESS and SERVICE_WIN32_SHARE_PROCESS (winnt.h)."""
_MAX_PID = 1 << 32


@dataclass(frozen=True, slots=True)
class _Offsets:
    name: int = offset("_SERVICE_RECORD.ServiceName")
    state: int = offset("_SERVICE_RECORD.State")
    type: int = offset("_SERVICE_RECORD.Type")
    process: int = offset("_SERVICE_RECORD.ServiceProcess")
    tag: int = offset("_SERVICE_RECORD.Tag")
    before: int | None = offset("_SERVICE_RECORD.PrevEntry", optional=True)
    first: int = offset("_SERVICE_HEADER.ServiceRecord")
    pid: int = offset("_SERVICE_PROCESS.ProcessId")


def running_services(machine: Machine, build: int, memory: Memory, pages: ResolvedPages) -> dict[int, list[str]]:
    """Return the names of the running services of each process by PID, as far as they can be found.

    `memory` and `pages` are those of the service control manager, and `build` is that of Windows. The result is empty
    if Volatility has no layout for that build.
    """
    name = next((name for first, name in _TABLES[machine.is_64bit] if build >= first), None)
    offsets = None if name is None else _offsets(machine, f"services-{name}")
    if offsets is None:
        return {}
    found: dict[int, list[str]] = {}
    records = _records(machine, memory, pages, offsets, has_headers=build >= _HEADERS_SINCE)
    for record in records:
        try:
            pid = _pid(machine, memory, record, offsets)
            named = "" if pid is None else _name(machine, memory, record, offsets)
        except MemoryUnreadable:
            continue
        if pid is not None and named and named not in found.setdefault(pid, []):
            found[pid].append(named)
    return found


def _offsets(machine: Machine, table: str) -> _Offsets | None:
    context = machine.context
    natives = context.symbol_space[machine.kernel.symbol_table_name].natives
    try:
        name = intermed.IntermediateSymbolTable.create(
            context, "services", "windows/services", table, native_types=natives
        )
        return take(_Offsets, Layout(context, name))
    except (MissingMembers, ValueError, OSError) as error:
        log.info("services of processes are not known: %s: %s", table, error)
        return None


def _records(
    machine: Machine, memory: Memory, pages: ResolvedPages, offsets: _Offsets, *, has_headers: bool
) -> Iterator[int]:
    """Yield the addresses of service records, each once."""
    seen: set[int] = {0}
    for mark in islice(_marks(pages, b"serH" if has_headers else b"sErv"), _MAX_MARKS):
        record = mark - offsets.tag
        if has_headers:
            try:
                record = machine.pointer(memory, mark + offsets.first)
            except MemoryUnreadable:
                continue
        while record not in seen and len(seen) < _MAX_RECORDS:
            seen.add(record)
            yield record
            if not has_headers or offsets.before is None:
                break
            try:
                record = machine.pointer(memory, record + offsets.before)
            except MemoryUnreadable:
                break


def _marks(pages: ResolvedPages, mark: bytes) -> Iterator[int]:
    """Yield the addresses of a mark in private memory; marks are aligned to 4 bytes."""
    left = _MAX_PAGES
    for view in pages.views:
        if not view.is_private:
            continue
        for address in range(view.start, min(view.end, view.start + left * PAGE_SIZE), PAGE_SIZE):
            left -= 1
            page = pages.page(address) or b""
            at = page.find(mark)
            while at >= 0:
                if at % 4 == 0:
                    yield address + at
                at = page.find(mark, at + 1)


def _pid(machine: Machine, memory: Memory, record: int, offsets: _Offsets) -> int | None:
    """Return the process of a running service that has one; else None."""
    if memory.u32(record + offsets.state) != _RUNNING or not memory.u32(record + offsets.type) & _OF_PROCESS:
        return None
    pid = memory.u32(machine.pointer(memory, record + offsets.process) + offsets.pid)
    return pid if 0 < pid < _MAX_PID and pid % 4 == 0 else None


def _name(machine: Machine, memory: Memory, record: int, offsets: _Offsets) -> str:
    name, is_whole = text_at(memory, machine.pointer(memory, record + offsets.name), _MAX_NAME, 2)
    return name if is_whole and name.isprintable() else ""
