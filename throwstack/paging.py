# SPDX-License-Identifier: Apache-2.0
"""Translation of virtual addresses through the page tables of x86 (two-level and PAE) and x64.

Follows the Intel SDM, volume 3A, chapter 4, and Windows' own use of entries whose present bit is clear: bit 11 set
and bit 10 clear is a page in transition, which is still in memory under the frame number the entry holds.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum

from throwstack.memory import PAGE_SIZE, PageSource

_PRESENT = 1 << 0
_LARGE = 1 << 7
_PROTOTYPE = 1 << 10
_TRANSITION = 1 << 11


@dataclass(frozen=True, slots=True)
class _Level:
    shift: int
    bits: int
    may_be_large: bool


@dataclass(frozen=True, slots=True)
class _Tables:
    entry_size: int
    physical_bits: int
    levels: tuple[_Level, ...]


_PAGE_LEVEL = _Level(12, 9, may_be_large=False)


class PagingMode(Enum):
    """The shape of the page tables.

    Windows keeps flags of its own above bit 44 of an x64 entry that is in transition, so frame numbers end there.
    """

    X86 = _Tables(4, 32, (_Level(22, 10, may_be_large=True), _Level(12, 10, may_be_large=False)))
    PAE = _Tables(8, 40, (_Level(30, 2, may_be_large=False), _Level(21, 9, may_be_large=True), _PAGE_LEVEL))
    X64 = _Tables(
        8,
        45,
        (
            _Level(39, 9, may_be_large=False),
            _Level(30, 9, may_be_large=True),
            _Level(21, 9, may_be_large=True),
            _PAGE_LEVEL,
        ),
    )

    @property
    def physical_mask(self) -> int:
        """Return the bits of an entry that hold a physical page address."""
        return (1 << self.value.physical_bits) - PAGE_SIZE


class AddressSpace:
    """One address space of the machine: a `PageSource` of virtual pages over one of physical pages."""

    __slots__ = ("_entry", "_levels", "_mask", "_mode", "_physical", "_top")

    def __init__(self, physical: PageSource, mode: PagingMode, directory_base: int) -> None:
        """Translate through the tables at the physical address `directory_base` (CR3; its low flag bits may be set).

        A PAE directory base is aligned to 32 bytes, all others to a page.
        """
        self._physical = physical
        self._mode = mode
        self._top = directory_base & (0xFFFFFFE0 if mode is PagingMode.PAE else mode.physical_mask)
        self._levels = mode.value.levels
        self._mask = mode.physical_mask
        self._entry = struct.Struct("<I" if mode.value.entry_size == 4 else "<Q")

    def page(self, address: int) -> bytes | None:
        """Return the page at the page-aligned virtual `address`, or None."""
        physical = self.translate(address)
        return None if physical is None else self._physical.page(physical)

    def translate(self, address: int) -> int | None:
        """Return the physical address of the page that holds `address`, or None if the tables do not say."""
        if self._mode is PagingMode.X64:
            if address >> 47 not in {0, 0x1FFFF}:
                return None
        elif address >> 32:
            return None
        table = self._top
        for level in self._levels:
            index = (address >> level.shift) & ((1 << level.bits) - 1)
            entry = self._read_entry(table + index * self._entry.size)
            if entry is None:
                return None
            if not entry & _PRESENT:
                return self._transition(entry) if level.shift == 12 else None
            if level.may_be_large and entry & _LARGE:
                within = address & ((1 << level.shift) - 1) & -PAGE_SIZE
                return (entry & self._mask & -(1 << level.shift)) | within
            table = entry & self._mask
        return table

    def _transition(self, entry: int) -> int | None:
        if entry & _TRANSITION and not entry & _PROTOTYPE:
            return entry & self._mask
        return None

    def _read_entry(self, address: int) -> int | None:
        page = self._physical.page(address & -PAGE_SIZE)
        if page is None:
            return None
        value: int = self._entry.unpack_from(page, address & (PAGE_SIZE - 1))[0]
        return value
