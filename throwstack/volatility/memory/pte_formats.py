# SPDX-License-Identifier: Apache-2.0
"""The formats of page-table entries, from the _MMPTE types of the kernel's symbols."""

from __future__ import annotations

import logging

from throwstack.core.memory import Memory, MemoryUnreadable
from throwstack.pages.page_table_entries import Bits, PteFormats
from throwstack.pages.page_tables import PagingMode
from throwstack.volatility.memory.layout import Layout

log = logging.getLogger(__name__)


def pte_formats(layout: Layout, mode: PagingMode, invalid_mask: int | None) -> PteFormats | None:
    """Return the formats, or None if the symbols have none of the size that `mode` uses."""
    size = mode.value.entry_size
    valid = _bits(layout, "_MMPTE_HARDWARE.PageFrameNumber")
    transition = _bits(layout, "_MMPTE_TRANSITION.PageFrameNumber")
    number = _bits(layout, "_MMPTE_SOFTWARE.PageFileLow")
    page = _bits(layout, "_MMPTE_SOFTWARE.PageFileHigh")
    protection = _bits(layout, "_MMPTE_SOFTWARE.Protection")
    if valid is None or transition is None or number is None or page is None or protection is None:
        log.info("the kernel's symbols have no formats of page-table entries")
        return None
    if layout.size("_MMPTE_SOFTWARE") != size:
        log.info("the kernel's symbols have page-table entries of another size than the dump")
        return None
    swizzle = _bits(layout, "_MMPTE_SOFTWARE.SwizzleBit")
    return PteFormats(
        size,
        valid,
        transition,
        _bits(layout, "_MMPTE_PROTOTYPE.ProtoAddress"),
        number,
        page,
        protection,
        swizzle,
        invalid_mask if swizzle is not None else 0,
    )


def invalid_pte_mask(layout: Layout, memory: Memory, mi_state: int | None) -> int | None:
    """Return the mask that Windows adds to invalid entries, 0 for a kernel that has none, None if it is unreadable.

    `mi_state` is the address of the kernel's variable MiState, None for symbols without it.
    """
    offset = layout.find("_MI_SYSTEM_INFORMATION.Hardware.InvalidPteMask")
    if offset is None:
        return 0
    try:
        return None if mi_state is None else memory.u64(mi_state + offset)
    except MemoryUnreadable:
        return None


def _bits(layout: Layout, path: str) -> Bits | None:
    found = layout.bits(path)
    return None if found is None else found[1]
