# SPDX-License-Identifier: Apache-2.0
"""Reads the machine's page files: the copies that were given with the dump, and the compressed store.

The page-table entry of a paged-out page has the number of a page file, 0 to 15, and the page's index in that file.
Windows numbers its page files in the order in which it opens them; if pagefile.sys is the only one, its number is 0.
Volatility takes the files in the order of these numbers (`--single-swap-locations`).

Windows 10 and later keep compressed pages in memory. Page-table entries refer to this compressed store as to one more
page file, often number 2, for which no file exists. Its _MMPAGING_FILE has the flag VirtualStorePagefile.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from volatility3.framework import exceptions, interfaces

from throwstack.core.memory import PAGE_SIZE, Memory, MemoryUnreadable
from throwstack.pages.page_table_entries import Bits
from throwstack.volatility.memory.layout import Layout
from throwstack.volatility.memory.offsets import MissingMembers, bits, offset, take

_MAX_FILES = 16


class StoredPages(Protocol):
    """A reader of pages in the compressed store."""

    def page(self, number: int, index: int) -> bytes | None:
        """Return page `index` of page file `number`, which is the compressed store, or None if it cannot be read."""
        ...


class SwapLayers:
    """The `PageFiles` of a dump, which are read through the layers that Volatility made of the files."""

    def __init__(
        self,
        layers: dict[int, interfaces.layers.DataLayerInterface],
        compressed: Collection[int] = (),
        stored: StoredPages | None = None,
    ) -> None:
        """Keep Volatility's layers by the number of the page file.

        `compressed` are the numbers of page files that are the compressed store, and `stored` reads their pages.
        """
        self._layers = layers
        self._compressed = frozenset(compressed)
        self._stored = stored

    def page(self, number: int, index: int) -> bytes | None:
        """Return page `index` of page file `number`, or None if the file was not given or has no such page."""
        if number in self._compressed:
            return None if self._stored is None else self._stored.page(number, index)
        layer = self._layers.get(number)
        if layer is None:
            return None
        try:
            data: bytes = layer.read(index * PAGE_SIZE, PAGE_SIZE)
        except exceptions.InvalidAddressException:
            return None
        return data if len(data) == PAGE_SIZE else None

    def is_compressed_store(self, number: int) -> bool:
        """Say whether page file `number` is the compressed store, which has no file."""
        return number in self._compressed


def swap_layers(
    context: interfaces.context.ContextInterface, layer: interfaces.layers.DataLayerInterface
) -> dict[int, interfaces.layers.DataLayerInterface]:
    """Return the layers of the page files that belong to the address space `layer`, by the page file's number."""
    found = {}
    for number in range(_MAX_FILES):
        name = layer.config.get(f"swap_layers.swap_layers{number}", None)
        if name and name in context.layers:
            found[number] = context.layers[name]
    return found


@dataclass(frozen=True, slots=True)
class _Offsets:
    files: int = offset("_MI_PARTITION.Vp.PagingFile")
    is_store: tuple[int, Bits] = bits("_MMPAGING_FILE.VirtualStorePagefile")


def compressed_stores(
    layout: Layout, memory: Memory, system_partition: int | None, pointer_size: int
) -> tuple[int, ...]:
    """Return the numbers of the page files that are the compressed store.

    `memory` is the kernel's. `system_partition` is the address of the kernel's MiSystemPartition, or None for a kernel
    that does not have it.
    """
    if system_partition is None:
        return ()
    try:
        offsets = take(_Offsets, layout)
    except MissingMembers:
        return ()
    at, flag = offsets.is_store
    found = []
    for number in range(_MAX_FILES):
        try:
            where = system_partition + offsets.files + number * pointer_size
            address = int.from_bytes(memory.read(where, pointer_size), "little")
            if address and flag.of(memory.u32(address + at)):
                found.append(number)
        except MemoryUnreadable:
            continue
    return tuple(found)
