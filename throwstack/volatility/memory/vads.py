# SPDX-License-Identifier: Apache-2.0
"""The VADs of a process, read as bytes at the offsets of the kernel's symbols.

The tree has had several shapes: XP's root is a pointer in the EPROCESS; from 2003 to 8 an _MM_AVL_TABLE, whose root is
the right child of its BalancedRoot; from 8.1 on an _RTL_AVL_TREE. A node is an _MMVAD_SHORT for private memory and an
_MMVAD, which begins with the same members, for what is mapped.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from throwstack.core.budgets import BUDGETS
from throwstack.core.memory import PAGE_SIZE, Memory, MemoryUnreadable
from throwstack.pages.page_table_entries import Bits
from throwstack.pages.page_tables import PagingMode
from throwstack.pages.vad_views import PrototypeRun, VadView, VadViews
from throwstack.volatility.memory.layout import Layout

log = logging.getLogger(__name__)

_MAX_SUBSECTIONS = 1 << 17
"""Of all sections that one process maps, taken together."""
_MAX_PAGES = 1 << 36
_IMAGE_MAP = 2
"""MI_VAD_TYPE of an image."""

_BitField = tuple[int, Bits]


class VadReader:
    """Reads the VADs of processes; the offsets are looked up once."""

    def __init__(self, layout: Layout, memory: Memory, mode: PagingMode) -> None:
        """Take offsets from `layout`, to read in the kernel's `memory`; raises LookupError if the symbols lack one."""
        self._layout = layout
        self._subsections_left = 0
        self._memory = memory
        self._entry_size = mode.value.entry_size
        self._pointer = memory.u64 if mode is PagingMode.X64 else memory.u32
        first = layout.first
        self._root = self._root_offset()
        self._left = first("_MMVAD_SHORT.VadNode.Left", "_MMVAD_SHORT.VadNode.LeftChild", "_MMVAD_SHORT.LeftChild")
        self._right = first("_MMVAD_SHORT.VadNode.Right", "_MMVAD_SHORT.VadNode.RightChild", "_MMVAD_SHORT.RightChild")
        self._start = layout.offset("_MMVAD_SHORT.StartingVpn")
        self._end = layout.offset("_MMVAD_SHORT.EndingVpn")
        self._start_high = layout.find("_MMVAD_SHORT.StartingVpnHigh")
        self._end_high = layout.find("_MMVAD_SHORT.EndingVpnHigh")
        self._is_private = self._flag("PrivateMemory")
        self._is_committed = self._flag("MemCommit")
        self._type = layout.bits("_MMVAD_SHORT.u.VadFlags.VadType")
        self._is_image = layout.bits("_MMVAD_SHORT.u.VadFlags.ImageMap")
        self._subsection = layout.find("_MMVAD.Subsection")
        self._control_area = layout.find("_MMVAD.ControlArea")
        self._first_prototype = layout.offset("_MMVAD.FirstPrototypePte")
        self._last_prototype = layout.offset("_MMVAD.LastContiguousPte")
        self._first_subsection = layout.size("_CONTROL_AREA")
        self._base = layout.offset("_SUBSECTION.SubsectionBase")
        self._count = layout.offset("_SUBSECTION.PtesInSubsection")
        self._next = layout.offset("_SUBSECTION.NextSubsection")

    def _root_offset(self) -> int:
        find = self._layout.find
        table = find("_EPROCESS.VadRoot.BalancedRoot.RightChild")
        return table if table is not None else self._layout.first("_EPROCESS.VadRoot.Root", "_EPROCESS.VadRoot")

    def _flag(self, name: str) -> _BitField:
        for path in (f"_MMVAD_SHORT.u.VadFlags.{name}", f"_MMVAD_SHORT.u1.VadFlags1.{name}"):
            found = self._layout.bits(path)
            if found is not None:
                return found
        message = f"the symbol table has no VAD flag {name}"
        raise LookupError(message)

    def views(self, process: int) -> VadViews:
        """Return the views of the EPROCESS at `process`. Branches of the tree that cannot be read are left out."""
        found: list[VadView] = []
        broken = 0
        self._subsections_left = _MAX_SUBSECTIONS
        for node in self._nodes(process):
            try:
                view = self._view(node)
            except MemoryUnreadable:
                view = None
            if view is None:
                broken += 1
            else:
                found.append(view)
        if broken:
            log.info("%d VADs of the process at %#x cannot be read", broken, process)
        return VadViews(found)

    def _nodes(self, process: int) -> Iterator[int]:
        seen = {0}
        pending = [process + self._root]
        while pending:
            if len(seen) > BUDGETS.vads:
                log.warning(
                    "stuck threads may have been missed: process at %#x: the budget of %d VADs is spent: pages that "
                    "only the others tell of are not found",
                    *(process, BUDGETS.vads),
                )
                return
            try:
                node = self._pointer(pending.pop())
            except MemoryUnreadable:
                continue
            if node in seen:
                continue
            seen.add(node)
            yield node
            pending += [node + self._right, node + self._left]

    def _view(self, node: int) -> VadView | None:
        memory = self._memory
        vpn = memory.u32 if self._start_high is not None else self._pointer
        first, last = vpn(node + self._start), vpn(node + self._end)
        if self._start_high is not None and self._end_high is not None:
            first |= memory.u8(node + self._start_high) << 32
            last |= memory.u8(node + self._end_high) << 32
        if not first <= last < _MAX_PAGES:
            return None
        is_private = bool(self._value(node, self._is_private))
        is_image = self._is_image is not None and bool(self._value(node, self._is_image))
        if self._type is not None:
            is_image = self._value(node, self._type) == _IMAGE_MAP
        prototypes = () if is_private else self._prototypes(node, last - first + 1)
        return VadView(
            first * PAGE_SIZE,
            (last + 1) * PAGE_SIZE,
            is_private,
            bool(self._value(node, self._is_committed)),
            is_image,
            prototypes,
        )

    def _value(self, address: int, field: _BitField) -> int:
        offset, bits = field
        size = 8 if bits.first + bits.width > 32 else 4
        return bits.of(int.from_bytes(self._memory.read(address + offset, size), "little"))

    def _prototypes(self, node: int, pages: int) -> tuple[PrototypeRun, ...]:
        """Return the runs of prototype PTEs, from FirstPrototypePte on along the chain of subsections."""
        size = self._entry_size
        start = self._pointer(node + self._first_prototype)
        runs: list[PrototypeRun] = []
        page = 0
        for base, count in self._subsections(node):
            skipped = 0
            if not runs and page == 0:
                if not base <= start < base + count * size:
                    continue
                skipped = (start - base) // size
            part = min(count - skipped, pages - page)
            if base:
                runs.append(PrototypeRun(page, part, base + skipped * size))
            page += part
            if page >= pages:
                break
        if runs or not start:
            return tuple(runs)
        last = self._pointer(node + self._last_prototype)
        return (PrototypeRun(0, min(pages, (last - start) // size + 1), start),) if last >= start else ()

    def _subsections(self, node: int) -> Iterator[tuple[int, int]]:
        """Yield (address of the prototype PTEs, their count) of the section's subsections."""
        memory = self._memory
        try:
            if self._subsection is not None:
                part = self._pointer(node + self._subsection)
            elif self._control_area is not None:
                part = self._pointer(node + self._control_area) + self._first_subsection
            else:
                return
            seen = {0}
            while part not in seen and self._subsections_left:
                seen.add(part)
                self._subsections_left -= 1
                yield self._pointer(part + self._base), memory.u32(part + self._count)
                part = self._pointer(part + self._next)
        except MemoryUnreadable:
            return
