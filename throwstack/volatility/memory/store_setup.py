# SPDX-License-Identifier: Apache-2.0
"""Finds the compressed stores of a machine by the kernel's symbols, or says why they cannot be read."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from throwstack.core.guard import Guard
from throwstack.core.memory import Memory, MemoryUnreadable, PageSource
from throwstack.pages.compressed_store import CompressedStores, NotInStore
from throwstack.pages.store_layout import store_layout
from throwstack.volatility.memory.layout import Layout
from throwstack.volatility.memory.offsets import MissingMembers, offset, take

log = logging.getLogger(__name__)

_GLOBALS = ("?SmGlobals@@3U_SM_GLOBALS@@A", "SmGlobals")
"""The names of the variable SmGlobals. It is a C++ variable, so PDBs have its decorated name."""
_OWNER = b"MemCompression\0"
"""EPROCESS.ImageFileName of the process whose memory holds the stores."""


@dataclass(frozen=True, slots=True)
class _Offsets:
    image_name: int = offset("_EPROCESS.ImageFileName")
    directory_base: int = offset("_EPROCESS.Pcb.DirectoryTableBase")


class StoreFinder:
    """Finds the compressed stores when the first page is requested."""

    def __init__(
        self,
        layout: Layout,
        memory: Memory,
        pointer_size: int,
        *,
        symbol: Callable[[str], int | None],
        space: Callable[[int], PageSource],
    ) -> None:
        """Keep what is needed to find the stores.

        `layout` has the offsets of the kernel's structures, and `memory` is the kernel's. `symbol` returns the address
        of a kernel variable. `space` makes the address space for the physical address of page tables.
        """
        try:
            self._offsets: _Offsets | None = take(_Offsets, layout)
        except MissingMembers:
            self._offsets = None
        self._memory = memory
        self._pointer_size = pointer_size
        self._symbol = symbol
        self._space = space
        self._owners: dict[int, Memory | None] = {}
        self._reasons: dict[str, None] = {}

    def page(self, number: int, index: int) -> bytes | None:
        """Return page `index` of page file `number`, which is the compressed store, or None if it cannot be read."""
        stores = self._stores
        if isinstance(stores, str):
            self._say(stores)
            return None
        with Guard(self._say, (NotInStore, MemoryUnreadable)):
            return stores.page(number, index)
        return None

    def _say(self, reason: str) -> None:
        if reason not in self._reasons:
            self._reasons[reason] = None
            log.warning("pages in the compressed store are missing: %s", reason)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Return the reasons why pages could not be read, each once; empty if all could be read."""
        return tuple(self._reasons)

    @cached_property
    def _stores(self) -> CompressedStores | str:
        """Return the stores, or a sentence that says why they cannot be read."""
        build_number = self._symbol("NtBuildNumber")
        sm_globals = next((found for name in _GLOBALS if (found := self._symbol(name)) is not None), None)
        if sm_globals is None or build_number is None:
            return "the kernel's symbols do not name SmGlobals and NtBuildNumber"
        try:
            build = self._memory.u32(build_number) & 0xFFFF  # the upper bits say what kind of build
        except MemoryUnreadable:
            return "the kernel's build number is not in the dump"
        is_64bit = self._pointer_size == 8
        layout = store_layout(build, is_64bit=is_64bit)
        if layout is None:
            return f"the store's layout in build {build} ({'x64' if is_64bit else 'x86'}) is not known well enough"
        return CompressedStores(self._memory, sm_globals, layout, self._owner)

    def _owner(self, process: int) -> Memory | None:
        """Return the memory of the EPROCESS at `process`, or None if it is not the process MemCompression."""
        if process not in self._owners:
            self._owners[process] = self._open(process)
        return self._owners[process]

    def _open(self, process: int) -> Memory | None:
        offsets, memory = self._offsets, self._memory
        if offsets is None:
            return None
        try:
            if memory.read(process + offsets.image_name, len(_OWNER)) != _OWNER:
                return None
            directory = memory.read(process + offsets.directory_base, self._pointer_size)
        except MemoryUnreadable:
            return None
        return Memory(self._space(int.from_bytes(directory, "little")))
