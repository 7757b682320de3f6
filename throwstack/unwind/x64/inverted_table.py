# SPDX-License-Identifier: Apache-2.0
"""The loader's own list of function tables, for modules whose headers are not readable.

The exception dispatcher does not look for .pdata in headers: ntdll and the kernel keep an INVERTED_FUNCTION_TABLE. It
has an entry for each loaded module, in the order of their addresses (since Windows 8 ntdll itself first). By the
kernel's symbols it is the same from XP x64 to Windows 11: u32 CurrentSize, MaximumSize, two more words, and from 0x10
on entries of FunctionTable, ImageBase (u64), SizeOfImage, SizeOfTable (u32).
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
    """The table in `memory` at the address that `find_address` returns. It is read when it is first needed."""

    __slots__ = ("_find_address", "_memory", "_tables")

    def __init__(self, memory: Memory, find_address: Callable[[], int | None]) -> None:
        """`find_address` returns the table's address, or None if it is not known."""
        self._memory = memory
        self._find_address = find_address
        self._tables: dict[int, tuple[int, int]] | None = None

    def function_table(self, module: Module) -> tuple[int, int] | None:
        """Return address and size in bytes of the function table of `module`, or None if no entry fits it."""
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
