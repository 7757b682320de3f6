# SPDX-License-Identifier: Apache-2.0
"""Reads the loader's own list of function tables, for modules whose headers are not readable.

The exception dispatcher does not look for .pdata in headers, because ntdll and the kernel keep an
INVERTED_FUNCTION_TABLE. This table has an entry for each loaded module, in the order of their addresses (since Windows
8 with ntdll itself first). By the kernel's symbols its layout is the same from XP x64 to Windows 11. It begins with
the u32 members CurrentSize and MaximumSize and two more u32; the entries start at offset 0x10. An entry is
FunctionTable and ImageBase (u64 each), then SizeOfImage and SizeOfTable (u32 each).
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from throwstack.core.memory import Memory, MemoryUnreadable
from throwstack.images.modules import Module

_ENTRIES_AT = 0x10
_ENTRY = struct.Struct("<QQII")
_MAX_ENTRIES = 512
_FUNCTION_SIZE = 12


class InvertedTable:
    """The INVERTED_FUNCTION_TABLE of a process or of the kernel. It is read when it is first needed."""

    __slots__ = ("_find_address", "_memory", "_tables")

    def __init__(self, memory: Memory, find_address: Callable[[], int | None]) -> None:
        """`find_address` returns the address of the table in `memory`, or None if the address is not known."""
        self._memory = memory
        self._find_address = find_address
        self._tables: dict[int, tuple[int, int]] | None = None

    def function_table(self, module: Module) -> tuple[int, int] | None:
        """Return address and size in bytes of the function table of `module`.

        None if the list has no entry for the module's base address, or if the table is not inside the module.
        """
        if self._tables is None:
            self._tables = self._read()
        address, size = self._tables.get(module.base, (0, 0))
        is_inside = module.contains(address) and address + size <= module.base + module.size
        return (address, size) if size and is_inside and not size % _FUNCTION_SIZE else None

    def _read(self) -> dict[int, tuple[int, int]]:
        start = self._find_address()
        if start is None:
            return {}
        try:
            count = min(self._memory.u32(start), _MAX_ENTRIES)
        except MemoryUnreadable:
            return {}
        found: dict[int, tuple[int, int]] = {}
        for at in range(start + _ENTRIES_AT, start + _ENTRIES_AT + count * _ENTRY.size, _ENTRY.size):
            try:
                table, base, _, size = _ENTRY.unpack(self._memory.read(at, _ENTRY.size))
            except MemoryUnreadable:
                continue
            found.setdefault(base, (table, size))
        return found
