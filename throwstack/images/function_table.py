# SPDX-License-Identifier: Apache-2.0
"""An image's table of RUNTIME_FUNCTIONs (.pdata), which is searched for the entry that covers an RVA.

The linker sorts the table, so that a look-up is a bisection that reads few pages. If the bisection meets an absent page
or an entry out of order, the readable part of the table is indexed once and searched instead. A function without an
entry is taken for a leaf function. So the result is "no entry" only if no lost entry can cover the RVA. Follows "x64
exception handling" in Microsoft's documentation.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from dataclasses import dataclass

from throwstack.core.errors import ThrowstackError
from throwstack.core.frames import End
from throwstack.core.memory import PAGE_SIZE, Memory, MemoryUnreadable
from throwstack.core.stop import Stop

_ENTRY = struct.Struct("<III")
_MAX_IMAGE_SIZE = 1 << 31
_MAX_INDEXED = 1 << 20
"""The most entries of a table that are indexed, because it is damaged. A bisection needs no index."""


@dataclass(frozen=True, slots=True)
class RuntimeFunction:
    """A RUNTIME_FUNCTION: the RVAs of a code range (`begin` <= RVA < `end`) and of its unwind information."""

    begin: int
    end: int
    unwind: int

    @classmethod
    def read(cls, memory: Memory, address: int) -> RuntimeFunction:
        """Read the entry at `address`. Raises MemoryUnreadable."""
        return cls(*_ENTRY.unpack(memory.read(address, _ENTRY.size)))

    @property
    def is_plausible(self) -> bool:
        """Say whether this can be an entry: the range of code is not empty, and all its RVAs are below 2 GiB.

        The range can begin at RVA 0: a dynamic function table may count from the begin of its only function.
        """
        return self.begin < self.end < _MAX_IMAGE_SIZE and 0 < self.unwind < _MAX_IMAGE_SIZE


class _OutOfOrder(ThrowstackError):
    """A bisection met an entry that is not plausible, or that is not sorted in at its position."""


class FunctionTable:
    """The table of RUNTIME_FUNCTIONs of one image in memory."""

    __slots__ = (
        *("_address", "_begins", "_count", "_entries", "_is_sorted", "_memory", "_missing", "_missing_ends", "_slots"),
    )

    def __init__(self, memory: Memory, address: int, size: int, *, is_sorted: bool = True) -> None:
        """The table is in `memory` at `address` and has `size` bytes. Nothing is read yet.

        `is_sorted` is False if it is known that the entries are in any order, so that a bisection may find nothing.
        """
        self._is_sorted = is_sorted
        self._memory = memory
        self._address = address
        self._count = size // _ENTRY.size
        self._entries: list[tuple[RuntimeFunction, int]] | None = None
        self._begins: list[int] = []
        self._missing: list[int] = []
        self._missing_ends: list[int] = []
        self._slots = self._count

    def find(self, rva: int) -> RuntimeFunction | Stop | None:
        """Return the entry that covers `rva`, or None if there is none; a `Stop` if a lost entry may cover `rva`."""
        entry = self.nearest(rva)
        return None if isinstance(entry, RuntimeFunction) and rva >= entry.end else entry

    def nearest(self, rva: int) -> RuntimeFunction | Stop | None:
        """Return the entry that covers `rva` or else the last entry before `rva`.

        None if the first entry begins after `rva`. A `Stop` if a nearer entry may be on an absent page or damaged.
        """
        if self._entries is None and self._is_sorted:
            try:
                return self._bisect(rva)
            except (MemoryUnreadable, _OutOfOrder):
                pass
        if self._count > _MAX_INDEXED:
            return Stop(End.BAD_UNWIND_DATA, f"damaged function table of {self._count:,} entries at {self._address:#x}")
        return self._search_index(rva)

    def _bisect(self, rva: int) -> RuntimeFunction | None:
        before: RuntimeFunction | None = None
        low, high = 0, self._count
        lowest, highest = 0, 1 << 32
        while low < high:
            middle = (low + high) // 2
            entry = RuntimeFunction.read(self._memory, self._address + middle * _ENTRY.size)
            if not entry.is_plausible or not lowest <= entry.begin <= highest:
                raise _OutOfOrder
            if rva < entry.begin:
                high, highest = middle, entry.begin
            elif rva >= entry.end:
                low, lowest, before = middle + 1, entry.begin, entry
            else:
                return entry
        return before

    def _search_index(self, rva: int) -> RuntimeFunction | Stop | None:
        if self._entries is None:
            self._entries = self._load()
        position = bisect_right(self._begins, rva)
        before: RuntimeFunction | None = None
        low, high = -1, self._slots
        if position:
            before, low = self._entries[position - 1]
            if rva < before.end:
                return before
        if position < len(self._entries):
            high = self._entries[position][1]
        if low + 1 == high:
            return before
        last = bisect_right(self._missing, high) - 1
        is_missing = last >= 0 and self._missing_ends[last] > low + 1
        end = End.UNREADABLE if is_missing else End.BAD_UNWIND_DATA
        return Stop(end, f"no entry for RVA {rva:#x} in what is left of the function table at {self._address:#x}")

    def _load(self) -> list[tuple[RuntimeFunction, int]]:
        """Return the plausible entries, sorted by begin, each with its position in the table; note the unreadable ones.

        For functions that it discarded, GNU ld leaves entries whose begin and end are 0 and whose unwind RVA is kept.
        Such entries are left out, and positions are counted without them. An entry of zeros only is damage.
        """
        entries = []
        discarded = 0
        index = 0
        while index < self._count:
            at = self._address + index * _ENTRY.size
            try:
                entry = RuntimeFunction.read(self._memory, at)
            except MemoryUnreadable as error:
                # All that have a byte on this page; whether the next page is there, its own first entry tells.
                page_end = (error.address & -PAGE_SIZE) + PAGE_SIZE
                after = min(-(-(page_end - self._address) // _ENTRY.size), self._count)
                self._missing.append(index - discarded)
                self._missing_ends.append(after - discarded)
                index = after
                continue
            if entry.unwind and not entry.begin and not entry.end:
                discarded += 1
            elif entry.is_plausible:
                entries.append((entry, index - discarded))
            index += 1
        self._slots = self._count - discarded
        entries.sort(key=lambda pair: (pair[0].begin, pair[1]))
        self._begins = [entry.begin for entry, _ in entries]
        return entries
