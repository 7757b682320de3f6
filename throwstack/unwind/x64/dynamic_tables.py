# SPDX-License-Identifier: Apache-2.0
"""Reads ntdll's list of dynamic function tables: the unwind data that a process has registered for generated code.

RtlAddFunctionTable, RtlAddGrowableFunctionTable and RtlInstallFunctionTableCallback put a DYNAMIC_FUNCTION_TABLE on a
list. Microsoft documents the structure; by ntdll's symbols its members are at the same offsets from Server 2003 x64 to
Windows 11, which has added more after them:

    0x00 ListEntry   0x10 FunctionTable   0x20 MinimumAddress   0x28 MaximumAddress   0x30 BaseAddress
    0x38 Callback    0x40 Context         0x48 OutOfProcessCallbackDll                0x50 Type, EntryCount (u32 each)

The head of the list has no exported name. But ntdll exports RtlGetFunctionTableListHead for debuggers, which is
`lea rax, [head]; ret`. A table with a callback has no entries in memory: its code would have to be run to get them.
Such a table only says that there is code in its range. .NET installs these.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from throwstack.core.memory import MemoryUnreadable
from throwstack.images.function_table import FunctionTable, RuntimeFunction
from throwstack.names.symbols import Symbols
from throwstack.unwind.code_outside import OutsideFunction

_TABLE = struct.Struct("<QQQ8xQQQ24xII")
_MAX_TABLES = 4096
_MAX_ENTRIES = 1 << 20
"""The most entries of all tables of a process together; the ranges of the tables beyond are known without entries."""
_ENTRY_SIZE = 12
_MAX_RANGE = 1 << 32
_LEA_RAX = b"\x48\x8d\x05"


class _Type(IntEnum):
    """FUNCTION_TABLE_TYPE."""

    SORTED = 0
    UNSORTED = 1
    CALLBACK = 2
    GROWABLE = 3


@dataclass(frozen=True, slots=True)
class _Table:
    """One dynamic function table: the range of its code, what its entries' RVAs count from, its entries if known."""

    address: int
    first: int
    end: int
    base: int
    entries: FunctionTable | None


class DynamicTables:
    """The dynamic function tables of one process, a `FunctionSource`. The list is read at the first look-up."""

    __slots__ = ("_memory", "_symbols", "_tables")

    def __init__(self, symbols: Symbols) -> None:
        """`symbols` are those of the process's 64-bit code, and know its images."""
        self._symbols = symbols
        self._memory = symbols.images.memory
        self._tables: tuple[_Table, ...] | None = None

    def function_at(self, address: int) -> OutsideFunction | None:
        """Return the function at `address` by the first table whose range covers it; None if none does."""
        if self._tables is None:
            self._tables = self._read()
        covering = next((table for table in self._tables if table.first <= address < table.end), None)
        if covering is None:
            return None
        entry = None if covering.entries is None else covering.entries.find(address - covering.base)
        if not isinstance(entry, RuntimeFunction):
            return OutsideFunction(f"in the range of the dynamic function table at {covering.address:#x}")
        return OutsideFunction(f"dynamic function table at {covering.address:#x}", base=covering.base, entry=entry)

    def _read(self) -> tuple[_Table, ...]:
        head = list_head(self._symbols)
        if head is None:
            return ()
        found: list[_Table] = []
        left = _MAX_ENTRIES
        before, link = head, self._link(head)
        while link is not None and link != head and len(found) < _MAX_TABLES:
            try:
                after, back, functions, first, end, base, kind, count = _TABLE.unpack(
                    self._memory.read(link, _TABLE.size)
                )
            except MemoryUnreadable:
                break
            if back != before:
                break  # no list of Windows' own
            if first < end <= first + _MAX_RANGE and base <= first:
                has_entries = kind in (_Type.SORTED, _Type.UNSORTED, _Type.GROWABLE) and 0 < count <= left
                entries = None
                if has_entries:
                    is_sorted = kind != _Type.UNSORTED
                    entries = FunctionTable(self._memory, functions, count * _ENTRY_SIZE, is_sorted=is_sorted)
                    left -= count
                found.append(_Table(link, first, end, base, entries))
            before, link = link, after
        return tuple(found)

    def _link(self, address: int) -> int | None:
        try:
            return self._memory.u64(address)
        except MemoryUnreadable:
            return None


def list_head(symbols: Symbols) -> int | None:
    """Return the address of the list's head in ntdll, or None if it is not known."""
    ntdll = next((image for image in symbols.images if image.module.name.lower() == "ntdll.dll"), None)
    if ntdll is None:
        return None
    getter = symbols.rva_of(ntdll, "RtlGetFunctionTableListHead")
    if getter is not None:
        code = symbols.images.memory.read_available(ntdll.base + getter, 7)
        if len(code) == 7 and code.startswith(_LEA_RAX):
            head: int = ntdll.base + getter + 7 + struct.unpack_from("<i", code, 3)[0]
            return head if ntdll.module.contains(head) else None
    rva = symbols.rva_of(ntdll, "RtlpDynamicFunctionTable")
    return None if rva is None else ntdll.base + rva
