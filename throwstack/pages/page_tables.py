# SPDX-License-Identifier: Apache-2.0
"""Translates virtual addresses through the page tables of x86 (two-level and PAE) and x64.

Follows the Intel SDM, volume 3A, chapter 4. Entries whose present bit is clear have a meaning for Windows only. This
module knows one such kind: if bit 11 is set and bit 10 is clear, the page is in transition. Such a page has left a
working set, but is still in memory at the frame number in the entry. All other kinds are decoded by
`throwstack.pages.page_table_entries`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from throwstack.core.memory import PAGE_SIZE, PageSource

_PRESENT = 1 << 0
_LARGE = 1 << 7
_ACCESSED_AND_DIRTY = 3 << 5
_PROTOTYPE = 1 << 10
_TRANSITION = 1 << 11
_SWIZZLE = 1 << 4
_CANONICAL = frozenset({0, 0x1FFFF})


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
    """A format of page tables: size of an entry, width of a physical address in bits, levels from the top down.

    On x64 physical addresses are cut to 45 bits, because Windows has flags in the bits above in transition entries.
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


class TableWalk(NamedTuple):
    """The result of a walk of the page tables for one address.

    `frame` is the page's frame number, or None if the walk did not reach a page in memory. `entry` is the entry at
    which the walk ended, or None if the table that has this entry is not in the dump. `is_leaf` is True if that entry
    is for the page itself, and False if it is for a table. `is_valid` is True if the page was reached and is mapped,
    and False for a page in transition.
    """

    frame: int | None
    entry: int | None
    is_leaf: bool
    is_valid: bool


class AddressSpace:
    """One virtual address space of the machine.

    It is a `PageSource` that translates virtual addresses through page tables and reads the pages from a `PageSource`
    of physical memory.
    """

    __slots__ = ("_invalid_mask", "_is_64bit", "_mask", "_physical", "_size", "_steps", "_top", "_unpack")

    def __init__(self, physical: PageSource, mode: PagingMode, directory_base: int, *, invalid_mask: int = 0) -> None:
        """`physical` is the physical memory, and `mode` is the format of the page tables.

        `directory_base` is the physical address of the top table (CR3; its low flag bits may be set). With PAE it is
        aligned to 32 bytes, otherwise to a page. `invalid_mask` has the bits that Windows may have set in entries that
        are not valid: see `throwstack.pages.page_table_entries`.
        """
        self._physical = physical
        self._is_64bit = mode is PagingMode.X64
        self._top = directory_base & (0xFFFFFFE0 if mode is PagingMode.PAE else mode.physical_mask)
        self._steps = tuple((level.shift, (1 << level.bits) - 1, level.may_be_large) for level in mode.value.levels)
        self._mask = mode.physical_mask
        self._invalid_mask = invalid_mask
        self._size = mode.value.entry_size
        self._unpack = struct.Struct("<I" if self._size == 4 else "<Q").unpack_from

    @property
    def has_no_execute(self) -> bool:
        """Say whether entries have a bit that forbids to run code (bit 63). The four-byte entries of x86 do not."""
        return self._size == 8

    def page(self, address: int) -> bytes | None:
        """Return the page at the page-aligned virtual `address`, or None if it is absent."""
        physical = self.translate(address)
        return None if physical is None else self._physical.page(physical)

    def translate(self, address: int) -> int | None:
        """Return the physical address of the page that holds `address`; None if the tables do not lead to one."""
        if not self._is_canonical(address):
            return None
        table, page, unpack, size = self._top, self._physical.page, self._unpack, self._size
        for shift, indexes, may_be_large in self._steps:
            where = table + (address >> shift & indexes) * size
            data = page(where & -PAGE_SIZE)
            if data is None:
                return None
            entry: int = unpack(data, where & PAGE_SIZE - 1)[0]
            if not entry & _PRESENT:
                frame = self.walk(address).frame
                return None if frame is None else frame * PAGE_SIZE
            if may_be_large and entry & _LARGE:
                return self._in_large(entry, shift, address)
            table = entry & self._mask
        return table

    def walk(self, address: int, paged_out: Callable[[int], bytes | None] | None = None) -> TableWalk:
        """Follow the page tables for `address` as far as possible.

        A table can be in transition or paged out, as any page can. `paged_out` is called with the entry of a table that
        is not in memory, and returns the table's 4096 bytes, or None if they cannot be read.
        """
        if not self._is_canonical(address):
            return _NOWHERE
        table, contents = self._top, None
        is_valid = True
        for shift, indexes, may_be_large in self._steps:
            at = (address >> shift & indexes) * self._size
            entry = self._read_entry(table + at) if contents is None else self._unpack(contents, at)[0]
            contents = None
            is_leaf = shift == 12
            if entry is None:
                return TableWalk(None, None, is_leaf, is_valid=False)
            if not entry & _PRESENT:
                frame = self._transition(entry)
                if frame is None and not is_leaf and paged_out is not None:
                    contents = paged_out(entry)
                if frame is None and contents is None:
                    return TableWalk(None, entry, is_leaf, is_valid=False)
                is_valid = not is_leaf
                table = frame or 0
                continue
            if may_be_large and entry & _LARGE:
                frame = self._in_large(entry, shift, address) // PAGE_SIZE
                return TableWalk(frame, entry, is_leaf=True, is_valid=True)
            table = entry & self._mask
        return TableWalk(table // PAGE_SIZE, entry, is_leaf=True, is_valid=is_valid)

    def tables(self, first: int, last: int) -> tuple[int | None, ...]:
        """Return a number for each last-level page table that maps addresses from `first` to `last`.

        Two address spaces with equal numbers have the same pages in this range. The number is the table's physical
        address. If there is a large page instead of a table, or the table is paged out, the number is the bitwise
        complement of the entry. It is None if the entry is zero or cannot be read.
        """
        step = 1 << self._steps[-2][0]
        return tuple(self._table_entry(address) for address in range(first & -step, last + 1, step))

    def _table_entry(self, address: int) -> int | None:
        if not self._is_canonical(address):
            return None
        table = self._top
        for shift, indexes, may_be_large in self._steps[:-1]:
            entry = self._read_entry(table + (address >> shift & indexes) * self._size)
            if entry is None:
                return None
            is_large = may_be_large and entry & _PRESENT and entry & _LARGE
            frame = entry & self._mask if entry & _PRESENT else self._transition(entry)
            if is_large or frame is None:
                # The processor sets the accessed and dirty bits of a large page at any time: they must not count.
                return ~(entry & ~_ACCESSED_AND_DIRTY if is_large else entry) if entry else None
            table = frame
        return table

    def mapped(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Yield the parts of `first` <= address <= `last` that have page tables or large pages, as (start, end).

        They are in address order. A part is what one last-level table or one large page maps. A table that is paged out
        counts as one; if that is a table of tables, the part is all that it maps.
        """
        yield from self._mapped(self._top, 0, 0, (first, last), set())

    def _mapped(
        self, table: int, level: int, base: int, wanted: tuple[int, int], empty: set[tuple[int, int]]
    ) -> Iterator[tuple[int, int]]:
        """Yield the parts of one table. `empty` has tables that map nothing, and their levels.

        A hostile dump can enter such a table a hundred million times.
        """
        (shift, indexes, may_be_large), (first, last) = self._steps[level], wanted
        size, is_empty = 1 << shift, True
        for index in range(max(first - base, 0) >> shift, min((last - base) >> shift, indexes) + 1):
            entry = self._read_entry(table + index * self._size)
            if not entry:
                continue
            start = base + index * size
            frame = entry & self._mask if entry & _PRESENT else self._transition(entry)
            is_large = may_be_large and entry & _PRESENT and entry & _LARGE
            if is_large or frame is None or self._steps[level + 1][0] == 12:
                is_empty = False
                yield max(start, first), min(start + size, last + 1)
            elif (frame, level + 1) not in empty:
                for part in self._mapped(frame, level + 1, start, wanted, empty):
                    is_empty = False
                    yield part
        if is_empty and first <= base and base + size * (indexes + 1) - 1 <= last:
            empty.add((table, level))

    def _is_canonical(self, address: int) -> bool:
        if self._is_64bit:
            return address >> 47 in _CANONICAL
        return not address >> 32

    def _in_large(self, entry: int, shift: int, address: int) -> int:
        return (entry & self._mask & -(1 << shift)) | (address & (1 << shift) - 1 & -PAGE_SIZE)

    def _transition(self, entry: int) -> int | None:
        if entry & _TRANSITION and not entry & _PROTOTYPE:
            if not entry & _SWIZZLE:
                entry &= ~self._invalid_mask
            return entry & self._mask
        return None

    def _read_entry(self, address: int) -> int | None:
        page = self._physical.page(address & -PAGE_SIZE)
        if page is None:
            return None
        value: int = self._unpack(page, address & (PAGE_SIZE - 1))[0]
        return value


_NOWHERE = TableWalk(None, 0, is_leaf=True, is_valid=False)
"""The result for an address that the processor refuses, such as a non-canonical address on x64."""
