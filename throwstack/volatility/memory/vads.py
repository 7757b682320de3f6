# SPDX-License-Identifier: Apache-2.0
"""Reads the VADs of a process as bytes, at the offsets in the kernel's symbols.

A VAD describes a range of a process's addresses: private memory, or a view of a section (a mapped file or image). The
VADs of a process are a binary tree. In XP, the EPROCESS points to its root. From Server 2003 to 8, the EPROCESS has an
_MM_AVL_TABLE, whose root is the right child of its BalancedRoot. Since 8.1, the EPROCESS has an _RTL_AVL_TREE. A node
is an _MMVAD_SHORT for private memory, and for a view an _MMVAD, which begins with the same members.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from throwstack.core.budgets import BUDGETS
from throwstack.core.guard import Say
from throwstack.core.memory import PAGE_SIZE, Memory, MemoryUnreadable
from throwstack.pages.page_table_entries import EXECUTE, Bits
from throwstack.pages.page_tables import PagingMode
from throwstack.pages.vad_views import PrototypeRun, VadView, VadViews
from throwstack.volatility.memory.layout import Layout
from throwstack.volatility.memory.offsets import bits, offset, size, take

log = logging.getLogger(__name__)

_MAX_SUBSECTIONS = 1 << 17
"""The limit on subsections of all sections together that one process maps."""
_MAX_PAGES = 1 << 36
_IMAGE_MAP = 2
"""The value of MI_VAD_TYPE for an image."""

_BitField = tuple[int, Bits]


@dataclass(frozen=True, slots=True)
class _Offsets:
    root: int = offset("_EPROCESS.VadRoot.BalancedRoot.RightChild", "_EPROCESS.VadRoot.Root", "_EPROCESS.VadRoot")
    left: int = offset("_MMVAD_SHORT.VadNode.Left", "_MMVAD_SHORT.VadNode.LeftChild", "_MMVAD_SHORT.LeftChild")
    right: int = offset("_MMVAD_SHORT.VadNode.Right", "_MMVAD_SHORT.VadNode.RightChild", "_MMVAD_SHORT.RightChild")
    start: int = offset("_MMVAD_SHORT.StartingVpn")
    end: int = offset("_MMVAD_SHORT.EndingVpn")
    start_high: int | None = offset("_MMVAD_SHORT.StartingVpnHigh", optional=True)
    end_high: int | None = offset("_MMVAD_SHORT.EndingVpnHigh", optional=True)
    is_private: _BitField = bits("_MMVAD_SHORT.u.VadFlags.PrivateMemory", "_MMVAD_SHORT.u1.VadFlags1.PrivateMemory")
    is_committed: _BitField = bits("_MMVAD_SHORT.u.VadFlags.MemCommit", "_MMVAD_SHORT.u1.VadFlags1.MemCommit")
    protection: _BitField | None = bits("_MMVAD_SHORT.u.VadFlags.Protection", optional=True)
    type: _BitField | None = bits("_MMVAD_SHORT.u.VadFlags.VadType", optional=True)
    is_image: _BitField | None = bits("_MMVAD_SHORT.u.VadFlags.ImageMap", optional=True)
    subsection: int | None = offset("_MMVAD.Subsection", optional=True)
    control_area: int | None = offset("_MMVAD.ControlArea", optional=True)
    first_prototype: int = offset("_MMVAD.FirstPrototypePte")
    last_prototype: int = offset("_MMVAD.LastContiguousPte")
    first_subsection: int = size("_CONTROL_AREA")
    """The offset of the first subsection from the control area, which it follows."""
    prototypes: int = offset("_SUBSECTION.SubsectionBase")
    count: int = offset("_SUBSECTION.PtesInSubsection")
    next_subsection: int = offset("_SUBSECTION.NextSubsection")


class VadReader:
    """Reads the VADs of processes; the offsets are looked up once."""

    def __init__(self, layout: Layout, memory: Memory, mode: PagingMode, say: Say) -> None:
        """Look up the offsets in `layout`; a LookupError is raised if the symbols lack a required one.

        `memory` is the kernel's, and `mode` gives the size of its pointers and page-table entries. `say` is called with
        the reason if VADs are left out.
        """
        self._say = say
        self._offsets = take(_Offsets, layout)
        self._subsections_left = 0
        self._memory = memory
        self._entry_size = mode.value.entry_size
        self._pointer = memory.u64 if mode is PagingMode.X64 else memory.u32

    def views(self, process: int) -> VadViews:
        """Return the address ranges of the VADs of the EPROCESS at `process`; unreadable branches are left out."""
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
        pending = [process + self._offsets.root]
        while pending:
            if len(seen) > BUDGETS.vads:
                self._say(
                    f"stuck threads may have been missed: process at {process:#x}: the budget of {BUDGETS.vads} VADs "
                    "is spent: pages that only the others tell of are not found"
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
            pending += [node + self._offsets.right, node + self._offsets.left]

    def _view(self, node: int) -> VadView | None:
        memory, offsets = self._memory, self._offsets
        vpn = memory.u32 if offsets.start_high is not None else self._pointer
        first, last = vpn(node + offsets.start), vpn(node + offsets.end)
        if offsets.start_high is not None and offsets.end_high is not None:
            first |= memory.u8(node + offsets.start_high) << 32
            last |= memory.u8(node + offsets.end_high) << 32
        if not first <= last < _MAX_PAGES:
            return None
        is_private = bool(self._value(node, offsets.is_private))
        is_image = offsets.is_image is not None and bool(self._value(node, offsets.is_image))
        if offsets.type is not None:
            is_image = self._value(node, offsets.type) == _IMAGE_MAP
        prototypes = () if is_private else self._prototypes(node, last - first + 1)
        protection = None if offsets.protection is None else self._value(node, offsets.protection)
        return VadView(
            first * PAGE_SIZE,
            (last + 1) * PAGE_SIZE,
            is_private,
            bool(self._value(node, offsets.is_committed)),
            is_image,
            prototypes,
            bool((protection or 0) & EXECUTE),
            protection,
        )

    def _value(self, address: int, field: _BitField) -> int:
        at, flag = field
        length = 8 if flag.first + flag.width > 32 else 4
        return flag.of(int.from_bytes(self._memory.read(address + at, length), "little"))

    def _prototypes(self, node: int, pages: int) -> tuple[PrototypeRun, ...]:
        """Return the runs of prototype PTEs in order: from FirstPrototypePte, along the chain of subsections."""
        size = self._entry_size
        start = self._pointer(node + self._offsets.first_prototype)
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
        last = self._pointer(node + self._offsets.last_prototype)
        return (PrototypeRun(0, min(pages, (last - start) // size + 1), start),) if last >= start else ()

    def _subsections(self, node: int) -> Iterator[tuple[int, int]]:
        """Yield (address of the prototype PTEs, their number) for each subsection of the section that `node` maps."""
        memory, offsets = self._memory, self._offsets
        try:
            if offsets.subsection is not None:
                part = self._pointer(node + offsets.subsection)
            elif offsets.control_area is not None:
                part = self._pointer(node + offsets.control_area) + offsets.first_subsection
            else:
                return
            seen = {0}
            while part not in seen and self._subsections_left:
                seen.add(part)
                self._subsections_left -= 1
                yield self._pointer(part + offsets.prototypes), memory.u32(part + offsets.count)
                part = self._pointer(part + offsets.next_subsection)
        except MemoryUnreadable:
            return
