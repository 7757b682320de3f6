# SPDX-License-Identifier: Apache-2.0
"""Page tables of the three x86 modes, as Windows lays them out (Intel SDM volume 3, chapter 4).

Windows maps the tables into themselves. Volatility finds the kernel's top table by that self-reference, and looks for
it in certain places only: x64 between 0x150000 and 0x2a0000, with one self-reference at an index from 0x100 to 0x1fe;
PAE and non-PAE between 0x30000 and 0x1030000, PAE with the four directories right after the pointer table.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from tests.forge.describe import Paging
from tests.forge.physical import PAGE, PhysicalMemory

PRESENT = 0x001
WRITE = 0x002
USER = 0x004
ACCESSED = 0x020
DIRTY = 0x040
COPY_ON_WRITE = 0x200
PROTOTYPE = 0x400
TRANSITION = 0x800
NO_EXECUTE = 1 << 63

TABLE = PRESENT | WRITE | ACCESSED | DIRTY

_MORE_ENTRIES = 12


@dataclass(frozen=True)
class Mode:
    """One paging mode: the shift and the entry count of each level from the top, the entry's format, its places."""

    levels: tuple[tuple[int, int], ...]
    code: str
    kernel_root: int
    kernel_half: int
    """Index of the top table's first entry that belongs to the kernel."""
    self_index: int

    @property
    def entry_size(self) -> int:
        """Size of an entry in bytes."""
        return struct.calcsize(self.code)


MODES = {
    Paging.X64: Mode(((39, 512), (30, 512), (21, 512), (12, 512)), "<Q", 0x1AD000, 256, 0x1ED),
    Paging.PAE: Mode(((30, 4), (21, 512), (12, 512)), "<Q", 0x185000, 2, 3),
    Paging.X86: Mode(((22, 1024), (12, 1024)), "<I", 0x39000, 512, 0x300),
}

Table = bytearray | memoryview


class AddressSpace:
    """The page tables of one process (or of the kernel, which the others adopt)."""

    def __init__(self, paging: Paging, physical: PhysicalMemory, root: int | None = None) -> None:
        self.paging = paging
        self.mode = MODES[paging]
        self.physical = physical
        if root is None:
            root = physical.allocate()[0] * PAGE
        self.root = root
        """Physical address of the top table."""
        page = memoryview(physical.claim(root // PAGE))
        self._tables: dict[tuple[int, int], tuple[int, Table]] = {(0, 0): (root // PAGE, page[root % PAGE :])}
        self._leaves: dict[int, Table] = {}
        self._leaf_shift = self.mode.levels[-2][0]
        self._leaf_mask = self.mode.levels[-1][1] - 1
        self._entry = struct.Struct(self.mode.code)
        if paging is Paging.PAE:
            self._make_directories()

    def _make_directories(self) -> None:
        """Make PAE's four directories; the kernel's are right after its pointer table."""
        for index in range(4):
            at = self.root // PAGE + 1 + index if self.root == self.mode.kernel_root else None
            self._make_table(1, index, at)
        directory = self._tables[1, 3][1]
        for index in range(4):
            self._put(directory, index, self._tables[1, index][0] * PAGE | TABLE)

    def _put(self, table: Table, index: int, entry: int) -> None:
        self._entry.pack_into(table, index * self._entry.size, entry)

    def _get(self, table: Table, index: int) -> int:
        return int(self._entry.unpack_from(table, index * self._entry.size)[0])

    def _make_table(self, level: int, prefix: int, at: int | None = None) -> Table:
        """Make the table of `level` that covers the addresses with this prefix, and enter it one level up."""
        if at is None:
            number, page = self.physical.allocate()
        else:
            number, page = at, self.physical.claim(at)
        self._tables[level, prefix] = (number, page)
        parent = self._table(level - 1, prefix // self.mode.levels[level - 1][1])
        flags = TABLE
        if self.paging is Paging.PAE and level == 1:
            flags = PRESENT  # the pointer table's other bits are reserved
        elif prefix << self.mode.levels[level - 1][0] < self.kernel_start:
            flags |= USER
        self._put(parent, prefix % self.mode.levels[level - 1][1], number * PAGE | flags)
        return page

    def _table(self, level: int, prefix: int) -> Table:
        found = self._tables.get((level, prefix))
        return found[1] if found else self._make_table(level, prefix)

    @property
    def kernel_start(self) -> int:
        """First address of the kernel's half, counted without sign extension."""
        return self.mode.kernel_half << self.mode.levels[0][0]

    def set_entry(self, address: int, entry: int) -> None:
        """Write the PTE of an address."""
        address &= (self.mode.levels[0][1] << self.mode.levels[0][0]) - 1
        prefix = address >> self._leaf_shift
        leaf = self._leaves.get(prefix)
        if leaf is None:
            leaf = self._leaves[prefix] = self._table(len(self.mode.levels) - 1, prefix)
        self._entry.pack_into(leaf, (address >> 12 & self._leaf_mask) * self._entry.size, entry)

    def page_out_tables(self, save: Callable[[bytes], int]) -> None:
        """Let go of the user half's tables that lead to no page in memory; `save` takes one and returns its entry."""
        above = len(self.mode.levels) - 2
        entries = self.mode.levels[above][1]
        for prefix, table in self._leaves.items():
            used = any(self._get(table, index) & (PRESENT | TRANSITION) for index in range(self._leaf_mask + 1))
            if not used and prefix << self._leaf_shift < self.kernel_start:
                self._put(self._tables[above, prefix // entries][1], prefix % entries, save(bytes(table)))
                table[:] = bytes(PAGE)

    def close_kernel(self) -> None:
        """Give the kernel's own space its self-reference (PAE has it from the start)."""
        if self.paging is not Paging.PAE:
            self._refer_to_self()
        if self.paging is Paging.X86:
            # Hyperspace's table. A self-reference with nothing behind it would pass for an x64 one.
            self._table(1, self.mode.self_index + 1)
        self._fill_top()

    def _fill_top(self) -> None:
        """Give the top table as many entries as Volatility 2.28.0 wants of one: ten, or it takes it for a dummy.

        A real kernel has entries for all its regions; here those that hold nothing share one empty table. With PAE the
        page of the pointer table is looked at: there the processes' own follow it, 32 bytes each.
        """
        top, entries = self._tables[0, 0][1], self.mode.levels[0][1]
        if self.paging is Paging.PAE:
            size = entries * self.mode.entry_size
            for at in range(size, (1 + _MORE_ENTRIES // entries) * size, size):
                top[at : at + size] = top[:size]
            return
        free = [index for index in range(self.mode.kernel_half, entries) if not self._get(top, index)][:_MORE_ENTRIES]
        self._make_table(1, free[0])
        for index in free[1:]:
            self._put(top, index, self._get(top, free[0]))

    def _refer_to_self(self) -> None:
        self._put(self._tables[0, 0][1], self.mode.self_index, self.root // PAGE * PAGE | TABLE)

    def adopt(self, kernel: AddressSpace) -> None:
        """Enter the kernel's half, when it is complete."""
        if self.paging is Paging.PAE:
            self._adopt_directories(kernel)
            return
        top, entries = self._tables[0, 0][1], self.mode.levels[0][1]
        for index in range(self.mode.kernel_half, entries):
            self._put(top, index, self._get(kernel._tables[0, 0][1], index))
        self._refer_to_self()

    def _adopt_directories(self, kernel: AddressSpace) -> None:
        """PAE: share the third directory; the fourth is each process's own, for the self-reference is in it."""
        number = kernel._tables[1, 2][0]
        self._put(self._tables[0, 0][1], 2, number * PAGE | PRESENT)
        mine, theirs = self._tables[1, 3][1], kernel._tables[1, 3][1]
        for index in range(4, 512):
            self._put(mine, index, self._get(theirs, index))
        self._put(mine, 2, number * PAGE | TABLE)
