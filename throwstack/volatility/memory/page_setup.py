# SPDX-License-Identifier: Apache-2.0
"""Makes address spaces that find a page wherever it is: in the dump, in a page file, in the compressed store.

For that the engine (`throwstack.pages.resolver`) needs the machine's formats of page-table entries, its page files and
its VADs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from volatility3.framework import interfaces

from throwstack.core.memory import Memory, PageSource
from throwstack.pages.page_tables import AddressSpace, PagingMode
from throwstack.pages.resolver import ResolvedPages
from throwstack.pages.vad_views import VadViews
from throwstack.volatility.memory.guarded import guarded
from throwstack.volatility.memory.layout import Layout
from throwstack.volatility.memory.page_files import SwapLayers, compressed_stores
from throwstack.volatility.memory.page_losses import PageLosses
from throwstack.volatility.memory.pte_formats import invalid_pte_mask, pte_formats
from throwstack.volatility.memory.store_setup import StoreFinder
from throwstack.volatility.memory.vads import VadReader


class PageSetup:
    """Makes the address spaces of one machine."""

    def __init__(
        self,
        physical: PageSource,
        mode: PagingMode,
        layout: Layout,
        *,
        symbol: Callable[[str], int | None],
        swap: dict[int, interfaces.layers.DataLayerInterface],
        directory_base: int,
    ) -> None:
        """Prepare what the machine's address spaces share.

        `physical` are the dump's physical pages, and `mode` is how the processor translates addresses. `layout` has the
        offsets of the kernel's structures, `symbol` returns the address of a kernel variable, and `directory_base` is
        the physical address of the kernel's page tables. `swap` are the layers of the page files that were given, by
        number.
        """
        self._physical = physical
        self._mode = mode
        resident = Memory(AddressSpace(physical, mode, directory_base))
        self._mask = invalid_pte_mask(layout, resident, symbol("MiState"))
        self._formats = pte_formats(layout, mode, self._mask)
        pointer_size = 8 if mode is PagingMode.X64 else 4
        compressed = compressed_stores(layout, resident, symbol("MiSystemPartition"), pointer_size)
        # The store's own memory is pageable: a part of it may be in a page file, but none of it is in the store again.
        without_store = partial(self._resolved, page_files=SwapLayers(swap, compressed))
        kernel = Memory(without_store(directory_base))
        self.stored = StoreFinder(layout, kernel, pointer_size, symbol=symbol, space=without_store)
        self._page_files = SwapLayers(swap, compressed, self.stored)
        # Prototype PTEs are in paged pool, which may itself be paged out; the pages of paged pool have none.
        paged = Memory(self._resolved(directory_base))
        self.kernel_memory = Memory(self._resolved(directory_base, kernel=paged))
        self.losses = PageLosses()
        try:
            self._vads: VadReader | None = VadReader(layout, self.kernel_memory, mode, self.losses.say)
        except LookupError as error:
            self.losses.say(f"pages that only the VADs tell of cannot be read: {error}")
            self._vads = None

    def process(self, directory_base: int, process: int) -> ResolvedPages:
        """Return the pages of the EPROCESS at `process`, whose page tables are at the physical `directory_base`."""
        views = None if self._vads is None else partial(self._views, self._vads, process)
        return self._resolved(directory_base, kernel=self.kernel_memory, views=views)

    def _views(self, vads: VadReader, process: int) -> VadViews:
        # Any read of the process's memory may be the first to ask for the VADs. An error in them has to cost the pages
        # that only they tell of, not the thread that happens to read.
        with guarded(
            lambda reason: self.losses.say(f"the VADs of the process at {process:#x} cannot be read: {reason}")
        ):
            return vads.views(process)
        return VadViews(())

    def _resolved(
        self,
        directory_base: int,
        *,
        kernel: Memory | None = None,
        views: Callable[[], VadViews] | None = None,
        page_files: SwapLayers | None = None,
    ) -> ResolvedPages:
        tables = AddressSpace(self._physical, self._mode, directory_base, invalid_mask=self._mask or 0)
        files = page_files or self._page_files
        return ResolvedPages(self._physical, tables, self._formats, kernel=kernel, views=views, page_files=files)
