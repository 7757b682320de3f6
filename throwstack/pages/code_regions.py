# SPDX-License-Identifier: Apache-2.0
"""Says of an address of a process which region it is in and whether code can run there, by VADs and page tables.

The protection in a VAD is the one with which the region was allocated. VirtualProtect changes the page-table entries
and not the VAD. For example, a JIT compiler allocates 64 KiB as PAGE_READWRITE, writes code into the first page, and
makes that page PAGE_EXECUTE_READ: the VAD still says read-write. So the page-table entry decides, and the VAD only
where there is no entry or the entry does not say it.
"""

from __future__ import annotations

from throwstack.core.regions import Region, RegionKind
from throwstack.pages.resolver import ResolvedPages


class CodeRegions:
    """The regions of one process (see `throwstack.core.regions.Regions`). Its VADs are read at the first look-up."""

    __slots__ = ("_pages",)

    def __init__(self, pages: ResolvedPages) -> None:
        """`pages` are the pages of the process, which know its VADs and its page tables."""
        self._pages = pages

    def find(self, address: int) -> Region | None:
        """Return the region that holds `address`; None if no readable VAD does."""
        view = self._pages.views.find(address)
        if view is None:
            return None
        kind = RegionKind.PRIVATE if view.is_private else RegionKind.IMAGE if view.is_image else RegionKind.MAPPED
        of_page = self._pages.is_executable(address)
        return Region(view.start, view.end, kind, view.is_executable if of_page is None else of_page)
