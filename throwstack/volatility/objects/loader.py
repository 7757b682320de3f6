# SPDX-License-Identifier: Apache-2.0
"""Reads the modules of a process, from the loader's list, or from the VADs if that list is not readable.

PEB, PEB_LDR_DATA and LDR_DATA_TABLE_ENTRY are read at the offsets in the kernel's ISF table. For 32-bit code of a WoW64
process they are read at the offsets in the table that throwstack carries.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from volatility3.framework import interfaces

from throwstack.core.budgets import BUDGETS
from throwstack.core.guard import Say
from throwstack.core.memory import Memory, MemoryUnreadable
from throwstack.images.image import Image
from throwstack.images.modules import Module
from throwstack.names.blockers import labels_like
from throwstack.volatility.memory.guarded import guarded_objects
from throwstack.volatility.memory.layout import Layout
from throwstack.volatility.memory.offsets import MissingMembers, offset, take

log = logging.getLogger(__name__)

_MAX_PATH_BYTES = 1024
_IMAGE_NAMES = (".exe", ".dll", ".ocx", ".drv", ".cpl")
_MAX_IMAGE = 1 << 31
_SYSTEM_DLLS = frozenset({"ntdll.dll", "kernel32.dll", "kernelbase.dll"})
"""DLLs in which stuck threads wait, and of which a process has one each, if any."""
WITHOUT_WIN32 = frozenset({"ntdll.dll"})
"""The system DLLs of every process, and of the 64-bit side of a WoW64 process."""
OF_WIN32 = WITHOUT_WIN32 | {"kernel32.dll"}
"""The system DLLs of every process except the few that run without the Win32 subsystem, such as smss."""


@dataclass(frozen=True, slots=True)
class LoaderList:
    """The modules in the loader's list.

    `problem` says why the list may be incomplete, and is empty if it is whole. `nameless` are the base addresses of
    modules whose names are on absent pages. Such a module is called `image` followed by its base address in
    hexadecimal.
    """

    modules: tuple[Module, ...]
    problem: str = ""
    nameless: frozenset[int] = frozenset()

    def named_by(self, others: Iterable[Module]) -> tuple[Module, ...]:
        """Return the modules; a module without a name gets the name of the module with the same base in `others`."""
        known = {module.base: module for module in others}
        return tuple(
            replace(module, name=known[module.base].name, path=known[module.base].path)
            if module.base in self.nameless and module.base in known
            else module
            for module in self.modules
        )


@dataclass(frozen=True, slots=True)
class _Offsets:
    ldr: int = offset("_PEB.Ldr")
    head: int = offset("_PEB_LDR_DATA.InLoadOrderModuleList")
    links: int = offset("_LDR_DATA_TABLE_ENTRY.InLoadOrderLinks")
    base: int = offset("_LDR_DATA_TABLE_ENTRY.DllBase")
    size: int = offset("_LDR_DATA_TABLE_ENTRY.SizeOfImage")
    buffer: int = offset("_UNICODE_STRING.Buffer")
    timestamp: int | None = offset("_LDR_DATA_TABLE_ENTRY.TimeDateStamp", optional=True)
    base_name: int | None = offset("_LDR_DATA_TABLE_ENTRY.BaseDllName", optional=True)
    full_name: int | None = offset("_LDR_DATA_TABLE_ENTRY.FullDllName", optional=True)


class LoaderReader:
    """Reads PEB → Ldr → InLoadOrderModuleList, in the native layout or in the 32-bit layout of WoW64."""

    def __init__(self, layout: Layout, pointer_size: int, suffix: str = "") -> None:
        """Look up the offsets of the structures in `layout`.

        `pointer_size` is the size of a pointer in these structures. `suffix` is the end of their type names ("32" for
        WoW64).
        """
        self._pointer_size = pointer_size
        self._problem = ""
        try:
            self._offsets = take(_Offsets, layout, suffix)
            if self._offsets.base_name is None and self._offsets.full_name is None:
                self._problem = f"the symbols have no _LDR_DATA_TABLE_ENTRY{suffix}.BaseDllName"
        except MissingMembers as error:
            self._problem = f"the symbols have no {', '.join(error.names)}"

    def read(self, memory: Memory, peb: int) -> LoaderList:
        """Return the modules on the loader's list of the PEB at `peb`. Entries that make no sense are left out."""
        if self._problem:
            return LoaderList((), self._problem)
        offsets = self._offsets
        modules: dict[int, Module] = {}
        nameless: set[int] = set()
        try:
            head = self._pointer(memory, peb + offsets.ldr) + offsets.head
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
                module = self._module(memory, link - offsets.links)
            except MemoryUnreadable as error:
                problem = f"module list breaks off at {error.address:#x}"
                return LoaderList(tuple(modules.values()), problem, frozenset(nameless))
            if module is not None:
                modules.setdefault(module.base, module)
                if module.name == _name_by_base(module.base):
                    nameless.add(module.base)
                    problem = f"the name of the module at {module.base:#x} is not readable"
            else:
                problem = f"module list has an entry at {link - offsets.links:#x} that makes no sense"
        if len(seen) > BUDGETS.modules:
            problem = f"the budget of {BUDGETS.modules:,} modules is spent: the rest of the module list is left out"
        elif link != head:
            problem = f"module list does not lead back to its head, but to {link:#x}"
        return LoaderList(tuple(modules.values()), problem, frozenset(nameless))

    def _module(self, memory: Memory, entry: int) -> Module | None:
        offsets = self._offsets
        base = self._pointer(memory, entry + offsets.base)
        size = memory.u32(entry + offsets.size)
        if not base or base & 0xFFF or not 0 < size <= _MAX_IMAGE or (base + size) >> 8 * self._pointer_size:
            return None
        path = self._string(memory, entry, offsets.full_name)
        name = self._string(memory, entry, offsets.base_name) or path.rpartition("\\")[2]
        return Module(name or _name_by_base(base), path, base, size, self._timestamp_of(memory, entry))

    def _timestamp_of(self, memory: Memory, entry: int) -> int:
        timestamp = self._offsets.timestamp
        try:  # the member is far after the others, and may be on a page that the dump lacks
            return 0 if timestamp is None else memory.u32(entry + timestamp)
        except MemoryUnreadable:
            return 0

    def _string(self, memory: Memory, entry: int, at: int | None) -> str:
        if at is None:
            return ""
        address = entry + at
        size = min(memory.u16(address), _MAX_PATH_BYTES) & ~1
        buffer = self._pointer(memory, address + self._offsets.buffer)
        try:
            return memory.read(buffer, size).decode("utf-16-le", "replace")
        except MemoryUnreadable:
            return ""

    def _pointer(self, memory: Memory, address: int) -> int:
        return memory.pointer(address, self._pointer_size)


def _name_by_base(base: int) -> str:
    return f"image{base:x}"


def with_system_names(
    modules: tuple[Module, ...], expected: frozenset[str], from_vads: Callable[[], Iterable[Module]]
) -> tuple[tuple[Module, ...], str]:
    """Return `modules` with the right names of the system DLLs, and a problem, which is "" if no name was wrong.

    The loader's list is in the process's own memory. One flipped bit there makes `kernel32.dll` into `kernel72.dll`.
    Then no thread seems to be stuck, as functions that stuck threads wait in are searched for in KERNEL32. The names in
    the VADs are the kernel's own. `from_vads` gives them, which takes long, so it is called only if the list lacks one
    of the `expected` names.
    """
    names = {module.name.lower() for module in modules}
    if names >= expected:
        return modules, ""
    missing = {module.base: module for module in from_vads() if module.name.lower() in _SYSTEM_DLLS - names}
    wrong = [module for module in modules if module.base in missing]
    if not wrong:
        return modules, ""
    renamed = tuple(
        replace(module, name=missing[module.base].name, path=missing[module.base].path) if module in wrong else module
        for module in modules
    )
    first = wrong[0]
    return renamed, f"the loader calls {missing[first.base].name} at {first.base:#x} {first.name}"


def with_own_names(modules: tuple[Module, ...], memory: Memory) -> tuple[tuple[Module, ...], str]:
    """Return `modules` with the right names of DLLs in which stuck threads wait, and a problem, "" if none was wrong.

    Few processes have mscoree.dll, so that a list without it shows no damage. A module whose name differs in one
    character from that of such a DLL is called what its export directory in `memory` says, if that is the other name.
    """
    named, problem = list(modules), ""
    for index, module in enumerate(modules):
        like = labels_like(module.label)
        own = Image(module, memory).own_name if like else ""
        if own and replace(module, name=own).label.lower() in like:
            named[index] = replace(module, name=own)
            problem = problem or f"the loader calls {own} at {module.base:#x} {module.name}"
    return tuple(named), problem


def modules_from_vads(process: interfaces.objects.ObjectInterface, say: Say) -> Iterator[Module]:
    """Yield the images that the VADs of a process describe, named by their files.

    `process` is the EPROCESS. `say` is called with the reason if images may be missing.
    """
    for base, end, path in mapped_files(process, say):
        name = path.rpartition("\\")[2]
        if name.lower().endswith(_IMAGE_NAMES) and end - base <= _MAX_IMAGE:
            yield Module(name, path, base, end - base)


def mapped_files(process: interfaces.objects.ObjectInterface, say: Say) -> Iterator[tuple[int, int, str]]:
    """Yield (first address, address after the last, path) of every mapped file that the VADs of a process describe.

    `process` is the EPROCESS. `say` is called with the reason if files may be missing.
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
