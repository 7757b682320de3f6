# SPDX-License-Identifier: Apache-2.0
"""Reads the formats of page-table entries from the _MMPTE types of the kernel's symbols.

Since the patches against L1TF (2018), Windows sets high bits in entries that are not valid, so that speculative reads
by the processor reach no memory. For example, the entry of a paged-out page holds its page file index plus
`MiState.Hardware.InvalidPteMask`. The mask is read once here, and removed from entries whose swizzle bit is clear.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from throwstack.core.memory import Memory, MemoryUnreadable
from throwstack.pages.page_table_entries import Bits, PteFormats
from throwstack.pages.page_tables import PagingMode
from throwstack.volatility.memory.layout import Layout
from throwstack.volatility.memory.offsets import MissingMembers, bits, offset, size, take

log = logging.getLogger(__name__)


_BitField = tuple[int, Bits]


@dataclass(frozen=True, slots=True)
class _Offsets:
    valid: _BitField = bits("_MMPTE_HARDWARE.PageFrameNumber")
    transition: _BitField = bits("_MMPTE_TRANSITION.PageFrameNumber")
    prototype: _BitField | None = bits("_MMPTE_PROTOTYPE.ProtoAddress", optional=True)
    page_file: _BitField = bits("_MMPTE_SOFTWARE.PageFileLow")
    page: _BitField = bits("_MMPTE_SOFTWARE.PageFileHigh")
    protection: _BitField = bits("_MMPTE_SOFTWARE.Protection")
    swizzle: _BitField | None = bits("_MMPTE_SOFTWARE.SwizzleBit", optional=True)
    size: int = size("_MMPTE_SOFTWARE")


@dataclass(frozen=True, slots=True)
class _MaskOffset:
    mask: int | None = offset("_MI_SYSTEM_INFORMATION.Hardware.InvalidPteMask", optional=True)


def pte_formats(layout: Layout, mode: PagingMode, invalid_mask: int | None) -> PteFormats | None:
    """Return the formats, or None if the symbols have none of the entry size that `mode` uses.

    `invalid_mask` is the result of `invalid_pte_mask`.
    """
    try:
        found = take(_Offsets, layout)
    except MissingMembers as error:
        log.info("the kernel's symbols have no formats of page-table entries: %s", error)
        return None
    if found.size != mode.value.entry_size:
        log.info("the kernel's symbols have page-table entries of another size than the dump")
        return None
    return PteFormats(
        found.size,
        _bits(found.valid),
        _bits(found.transition),
        None if found.prototype is None else _bits(found.prototype),
        _bits(found.page_file),
        _bits(found.page),
        _bits(found.protection),
        None if found.swizzle is None else _bits(found.swizzle),
        0 if found.swizzle is None else invalid_mask,
    )


def invalid_pte_mask(layout: Layout, memory: Memory, mi_state: int | None) -> int | None:
    """Return the mask that Windows adds to entries that are not valid; 0 for a kernel without one, None if unreadable.

    `mi_state` is the address of the kernel's variable MiState, or None if the symbols lack it.
    """
    at = take(_MaskOffset, layout).mask
    if at is None:
        return 0
    try:
        return None if mi_state is None else memory.u64(mi_state + at)
    except MemoryUnreadable:
        return None


def _bits(field: _BitField) -> Bits:
    """Return the bits of a field of an entry; its offset is not needed, because an entry is a single number."""
    return field[1]
