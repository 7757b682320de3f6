# SPDX-License-Identifier: Apache-2.0
"""Reads the handles of a process from its handle table, for a minidump.

EPROCESS.ObjectTable points to a HANDLE_TABLE. The low two bits of its TableCode say how many levels of pages there are:
none (a page of entries), or one or two levels of pages with pointers to pages. The first entry of a page of entries is
not a handle's. A handle is four times the number of its entry. An entry leads to the header of its object:

- up to Windows 7, `Object` is its address, with flags in the low three bits
- since 8, on x64, `ObjectPointerBits` are its bits 4 to 47, and on x86 `InfoTable` is as `Object` was

A page of the table that is not in the dump costs the handles in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from throwstack.core.memory import PAGE_SIZE, MemoryUnreadable
from throwstack.minidump.dumped import DumpedHandle
from throwstack.pages.page_table_entries import Bits
from throwstack.volatility.memory.layout import Member
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.memory.offsets import bits, member, offset, size, take
from throwstack.volatility.objects.object_headers import ObjectHeaders

_LEVELS, _MAX_LEVEL = 3, 2
_MAX_HANDLES = 1 << 16
_MAX_PAGES = 1 << 10
_HANDLE_UNIT = 4
_FLAGS = 7
_ACCESS = (1 << 25) - 1
"""The bits of an access mask that an entry keeps; the others are flags of its own."""


@dataclass(frozen=True, slots=True)
class _Offsets:
    table: int | None = offset("_EPROCESS.ObjectTable", optional=True)
    code: int | None = offset("_HANDLE_TABLE.TableCode", optional=True)
    entry: int | None = size("_HANDLE_TABLE_ENTRY", optional=True)
    object: int | None = offset("_HANDLE_TABLE_ENTRY.Object", "_HANDLE_TABLE_ENTRY.InfoTable", optional=True)
    pointer: tuple[int, Bits] | None = bits("_HANDLE_TABLE_ENTRY.ObjectPointerBits", optional=True)
    access: Member | None = member(
        "_HANDLE_TABLE_ENTRY.GrantedAccess", "_HANDLE_TABLE_ENTRY.GrantedAccessBits", optional=True
    )
    body: int | None = offset("_OBJECT_HEADER.Body", optional=True)
    handles: Member | None = member("_OBJECT_HEADER.HandleCount", optional=True)
    pointers: Member | None = member("_OBJECT_HEADER.PointerCount", optional=True)


class HandleReader:
    """Reads the handles of one machine's processes."""

    def __init__(self, machine: Machine) -> None:
        """Look up the offsets of what is read."""
        self._machine = machine
        self._offsets = take(_Offsets, machine.layout)
        self._headers = ObjectHeaders(machine)

    def handles(self, process: int) -> tuple[DumpedHandle, ...]:
        """Return the handles of the EPROCESS at `process`, as far as its table can be read."""
        machine, offsets = self._machine, self._offsets
        if offsets.table is None or offsets.code is None or not offsets.entry:
            return ()
        try:
            table = machine.pointer(machine.memory, process + offsets.table)
            code = machine.pointer(machine.memory, table + offsets.code) if table else 0
        except MemoryUnreadable:
            return ()
        found: list[DumpedHandle] = []
        per_page = PAGE_SIZE // offsets.entry
        pages = self._pages(code & ~_LEVELS, code & _LEVELS) if code & _LEVELS <= _MAX_LEVEL else iter(())
        for number, page in enumerate(pages):
            for index in range(1, per_page if page else 0):
                handle = self._handle((number * per_page + index) * _HANDLE_UNIT, page + index * offsets.entry)
                if handle is not None:
                    found.append(handle)
            if len(found) >= _MAX_HANDLES or number >= _MAX_PAGES:
                break
        return tuple(found[:_MAX_HANDLES])

    def _pages(self, address: int, level: int) -> Iterator[int]:
        """Yield the pages of entries, in order, 0 for one that does not exist or is absent."""
        machine = self._machine
        if not level or not address:
            yield address if address and machine.memory.is_readable(address) else 0
            return
        for at in range(address, address + PAGE_SIZE, machine.pointer_size):
            try:
                below = machine.pointer(machine.memory, at)
            except MemoryUnreadable:
                return
            if not below:
                return
            yield from self._pages(below, level - 1)

    def _handle(self, value: int, entry: int) -> DumpedHandle | None:
        memory, offsets = self._machine.memory, self._offsets
        try:
            header = self._header(entry)
            if not header or offsets.body is None:
                return None
            body = header + offsets.body
            kind = self._headers.type_name(body)
            access = 0 if offsets.access is None else offsets.access.read(memory, entry) & _ACCESS
            counts = (0 if one is None else one.read(memory, header) for one in (offsets.handles, offsets.pointers))
            return DumpedHandle(value, kind, self._headers.name(body, kind), 0, access, *counts)
        except MemoryUnreadable:
            return None

    def _header(self, entry: int) -> int:
        machine, offsets = self._machine, self._offsets
        if offsets.pointer is not None:
            at, field = offsets.pointer
            word = int.from_bytes(machine.memory.read(entry + at, 8), "little")
            return machine.canonical(field.of(word) << 4)
        if offsets.object is None:
            return 0
        return machine.pointer(machine.memory, entry + offsets.object) & ~_FLAGS
