# SPDX-License-Identifier: Apache-2.0
"""The modules of a process: from the loader's lists, or from the VADs where the loader's data is not readable."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from volatility3.framework import interfaces

from throwstack.core.budgets import BUDGETS
from throwstack.core.guard import Say
from throwstack.core.memory import Memory, MemoryUnreadable
from throwstack.images.modules import Module
from throwstack.volatility.memory.guarded import guarded_objects
from throwstack.volatility.memory.layout import Layout

log = logging.getLogger(__name__)

_MAX_PATH_BYTES = 1024
_IMAGE_NAMES = (".exe", ".dll", ".ocx", ".drv", ".cpl")
_MAX_IMAGE = 1 << 30


@dataclass(frozen=True, slots=True)
class LoaderList:
    """What a walk of the loader's list gave; `problem` says where it broke off, if it did.

    `nameless` are the bases of modules whose names are on absent pages: they are called after their bases.
    """

    modules: tuple[Module, ...]
    problem: str = ""
    nameless: frozenset[int] = frozenset()

    def named_by(self, others: Iterable[Module]) -> tuple[Module, ...]:
        """Return the modules, those without a name as `others` have them."""
        known = {module.base: module for module in others}
        return tuple(
            replace(module, name=known[module.base].name, path=known[module.base].path)
            if module.base in self.nameless and module.base in known
            else module
            for module in self.modules
        )


class LoaderReader:
    """Reads PEB → Ldr → InLoadOrderModuleList, in the native layout or in the 32-bit one of WoW64."""

    def __init__(self, layout: Layout, pointer_size: int, suffix: str = "") -> None:
        """Take the offsets from `layout`, whose type names carry `suffix` ("32" for WoW64)."""
        entry = f"_LDR_DATA_TABLE_ENTRY{suffix}"
        self._missing: list[str] = []

        def offset(path: str) -> int:
            found = layout.find(path)
            if found is None:
                self._missing.append(path)
            return found or 0

        self._pointer_size = pointer_size
        self._ldr = offset(f"_PEB{suffix}.Ldr")
        self._head = offset(f"_PEB_LDR_DATA{suffix}.InLoadOrderModuleList")
        self._links = offset(f"{entry}.InLoadOrderLinks")
        self._base = offset(f"{entry}.DllBase")
        self._size = offset(f"{entry}.SizeOfImage")
        self._buffer = offset(f"_UNICODE_STRING{suffix}.Buffer")
        self._timestamp = layout.find(f"{entry}.TimeDateStamp")
        self._base_name = layout.find(f"{entry}.BaseDllName")
        self._full_name = layout.find(f"{entry}.FullDllName")
        if self._base_name is None and self._full_name is None:
            self._missing += [f"{entry}.BaseDllName"]

    def read(self, memory: Memory, peb: int) -> LoaderList:
        """Follow the list that starts in the PEB at `peb`. Entries that make no sense are left out."""
        if self._missing:
            return LoaderList((), f"the symbols have no {', '.join(self._missing)}")
        modules: dict[int, Module] = {}
        nameless: set[int] = set()
        try:
            head = self._pointer(memory, peb + self._ldr) + self._head
        except MemoryUnreadable as error:
            return LoaderList(
                (), f"PEB at {peb:#x} is not readable" if error.address >> 12 == peb >> 12 else str(error)
            )
        seen = {head}
        link = head
        problem = ""
        while len(seen) <= BUDGETS.modules:
            try:
                link = self._pointer(memory, link)
                if link in seen:
                    break
                seen.add(link)
                module = self._module(memory, link - self._links)
            except MemoryUnreadable as error:
                problem = f"module list breaks off at {error.address:#x}"
                return LoaderList(tuple(modules.values()), problem, frozenset(nameless))
            if module is not None:
                modules.setdefault(module.base, module)
                if module.name == _name_by_base(module.base):
                    nameless.add(module.base)
                    problem = f"the name of the module at {module.base:#x} is not readable"
            else:
                problem = f"module list has an entry at {link - self._links:#x} that makes no sense"
        if len(seen) > BUDGETS.modules:
            problem = f"the budget of {BUDGETS.modules:,} modules is spent: the rest of the module list is left out"
        elif link != head:
            problem = f"module list does not lead back to its head, but to {link:#x}"
        return LoaderList(tuple(modules.values()), problem, frozenset(nameless))

    def _module(self, memory: Memory, entry: int) -> Module | None:
        base = self._pointer(memory, entry + self._base)
        size = memory.u32(entry + self._size)
        if not base or base & 0xFFF or not 0 < size <= _MAX_IMAGE or (base + size) >> 8 * self._pointer_size:
            return None
        path = self._string(memory, entry, self._full_name)
        name = self._string(memory, entry, self._base_name) or path.rpartition("\\")[2]
        return Module(name or _name_by_base(base), path, base, size, self._timestamp_of(memory, entry))

    def _timestamp_of(self, memory: Memory, entry: int) -> int:
        try:  # the member lies far behind the others: it may be on a page that the dump lacks
            return 0 if self._timestamp is None else memory.u32(entry + self._timestamp)
        except MemoryUnreadable:
            return 0

    def _string(self, memory: Memory, entry: int, offset: int | None) -> str:
        if offset is None:
            return ""
        address = entry + offset
        size = min(memory.u16(address), _MAX_PATH_BYTES) & ~1
        buffer = self._pointer(memory, address + self._buffer)
        try:
            return memory.read(buffer, size).decode("utf-16-le", "replace")
        except MemoryUnreadable:
            return ""

    def _pointer(self, memory: Memory, address: int) -> int:
        return memory.pointer(address, self._pointer_size)


def _name_by_base(base: int) -> str:
    return f"image{base:x}"


def modules_from_vads(process: interfaces.objects.ObjectInterface, say: Say) -> Iterator[Module]:
    """Yield the images that the VADs of a process map, named by their files; `say` learns why there may be more."""
    for base, end, path in mapped_files(process, say):
        name = path.rpartition("\\")[2]
        if name.lower().endswith(_IMAGE_NAMES) and end - base <= _MAX_IMAGE:
            yield Module(name, path, base, end - base)


def mapped_files(process: interfaces.objects.ObjectInterface, say: Say) -> Iterator[tuple[int, int, str]]:
    """Yield start, end and path of every view of a file that the VADs of a process tell of.

    `say` learns why there may be more.
    """
    breaks_off = guarded_objects(lambda reason: say(f"the VADs break off: {reason}"))
    one_view = guarded_objects(lambda reason: log.info("what a VAD maps cannot be read: %s", reason))
    vads: Iterator[interfaces.objects.ObjectInterface] = iter(())
    found = 0
    with breaks_off:
        vads = process.get_vad_root().traverse()
    for vad in breaks_off.each(islice(vads, BUDGETS.vads)):
        view = None
        with one_view:
            view = _file_view(vad)
        if view is None:
            continue
        found += 1
        yield view
        if found >= BUDGETS.views:
            say(f"a process maps more files than the budget of {BUDGETS.views:,}: the others have no names")
            return


def _file_view(vad: interfaces.objects.ObjectInterface) -> tuple[int, int, str] | None:
    path, base, end = vad.get_file_name(), int(vad.get_start()), int(vad.get_end())
    return (base, end + 1, path) if isinstance(path, str) and path and base <= end else None
