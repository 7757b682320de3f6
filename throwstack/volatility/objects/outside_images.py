# SPDX-License-Identifier: Apache-2.0
"""Names addresses outside all loaded modules: in mapped files, in other memory, in unloaded DLLs and drivers.

A thread may have crashed in a DLL that was unloaded while the thread used it. ntdll keeps a list of the DLLs unloaded
last, and the kernel keeps one of the drivers unloaded last.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Callable
from functools import cached_property
from operator import itemgetter

from volatility3.framework import interfaces

from throwstack.core.frames import StackBounds
from throwstack.core.registers import Arch
from throwstack.images.image import Image, ImageMap
from throwstack.names.symbols import Name, Symbols, SymbolSource
from throwstack.names.unloaded_images import UnloadedImage, name_of_unloaded, unloaded_dlls, unloaded_drivers
from throwstack.pages.vad_views import VadViews
from throwstack.volatility.memory.guarded import guarded
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.objects.loader import mapped_files

log = logging.getLogger(__name__)

NameOutsideImages = Callable[[int], Name | None]


class MappedFiles:
    """The files that a process maps. Its VADs are read when the first address is looked up."""

    def __init__(self, process: interfaces.objects.ObjectInterface) -> None:
        """Keep `process`, the EPROCESS of the process."""
        self._process = process

    @cached_property
    def _files(self) -> list[tuple[int, int, str]]:
        return sorted(mapped_files(self._process, log.info))

    def name(self, address: int) -> Name | None:
        r"""Return `<Mapped_file.dat>+0x1234` for an address in a view of a file, or None."""
        index = bisect_right(self._files, address, key=itemgetter(0)) - 1
        if index < 0 or address >= self._files[index][1]:
            return None
        start, _, path = self._files[index]
        return Name(address, f"<Mapped_{path.rpartition(chr(92))[2]}>", "", address - start)


def names_outside_images(files: MappedFiles, images: ImageMap, arch: Arch, source: SymbolSource) -> NameOutsideImages:
    """Return a function that names addresses of a process outside its `images`.

    If a file is mapped at an address now, the file's name is used, and not the name of a DLL that was there before.
    `files` are the mapped files. ntdll's list of unloaded DLLs is found by ntdll's exports, or else by its symbols from
    `source`.
    """
    known: list[tuple[UnloadedImage, ...]] = []

    def name(address: int) -> Name | None:
        if not known:
            ntdll = next((image for image in images if image.module.name.lower() == "ntdll.dll"), None)
            known.append(() if ntdll is None else _listed(lambda: unloaded_dlls(ntdll, arch, _array(ntdll, source))))
        return files.name(address) or name_of_unloaded(known[0], address)

    return name


def region_of(address: int, symbols: Symbols, views: VadViews, stack: StackBounds) -> str:
    """Say what an address outside every module belongs to; "" if the VADs cannot be read.

    `symbols` names addresses, `views` are the ranges of the process's VADs, and `stack` are the stack bounds of the
    thread that accessed the address.
    """
    name = symbols.name(address)
    if name.module:
        return str(name)
    view = views.find(address)
    if view is None:
        return "no memory is allocated there" if len(views) else ""
    if view.start <= stack.limit < view.end:
        kind = "the thread's stack"
    else:
        kind = "private memory" if view.is_private else "an image" if view.is_image else "mapped memory"
    return f"{kind}, {view.start:#x} to {view.end - 1:#x}"


def _array(ntdll: Image, source: SymbolSource) -> int | None:
    table = source(ntdll)
    rva = None if table is None else table.rva_of("RtlpUnloadEventTrace")
    return None if rva is None else ntdll.base + rva


def _listed(read: Callable[[], tuple[UnloadedImage, ...]]) -> tuple[UnloadedImage, ...]:
    """Return the result of `read`, or nothing if the list that it reads is damaged."""
    with guarded(lambda reason: log.info("the list of what was unloaded cannot be read: %s", reason)):
        return read()
    return ()


def names_of_unloaded_drivers(machine: Machine) -> NameOutsideImages:
    """Return a function that names addresses of drivers that were unloaded."""
    known: list[tuple[UnloadedImage, ...]] = []

    def name(address: int) -> Name | None:
        if not known:
            variable = machine.symbol("MmUnloadedDrivers")
            known.append(
                ()
                if variable is None
                else _listed(lambda: unloaded_drivers(machine.memory, variable, machine.pointer_size))
            )
        return name_of_unloaded(known[0], address)

    return name
