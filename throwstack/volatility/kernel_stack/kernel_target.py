# SPDX-License-Identifier: Apache-2.0
"""The kernel as a `Target`: the images of nt and its drivers, their names, and their unwinder.

The drivers of a session (win32k) are in memory that only the processes of that session map. They are read through the
page tables of the process whose thread is walked; everything else is read through the kernel's own page tables. Two
processes share a `Target` only if their page tables map the session drivers to the same physical pages. So damaged or
forged page tables of one process affect only the `Target` of that process. Names come from PDBs, then from the ISF
table that Volatility loaded for the kernel (and from ISF files of drivers), then from exports.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

from volatility3.framework import exceptions

from throwstack.core.memory import PAGE_SIZE, Memory, PageSource
from throwstack.core.registers import Arch
from throwstack.images.image import Image, ImageMap
from throwstack.images.modules import Module, ModuleMap
from throwstack.names.symbols import SymbolKind, Symbols, SymbolTable, first_of
from throwstack.pages.resolver import ResolvedPages
from throwstack.unwind import x86
from throwstack.unwind.target import Target
from throwstack.volatility.kernel_stack.user_registers import KernelStacks
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.objects.outside_images import names_of_unloaded_drivers

KERNEL_NAME = "nt"
"""The name that debuggers give the kernel, whatever the name of its image file is."""
_UNKNOWN_SIZE = 1 << 24
_MAX_SESSION = 1 << 30
"""The limit on the total size of the session drivers, in bytes."""
_MAX_TARGETS = 64
"""The limit on kept targets. A machine has fewer sessions, but in a hostile dump each process may have other tables."""


class _OfSession:
    """A `PageSource` that reads session drivers through a process's page tables and all else through the kernel's."""

    def __init__(self, drivers: ModuleMap, session: PageSource, kernel: PageSource) -> None:
        self._drivers = drivers
        self._session = session
        self._kernel = kernel

    def page(self, address: int) -> bytes | None:
        """Return the page at the page-aligned `address`, or None."""
        return (self._kernel if self._drivers.find(address) is None else self._session).page(address)


class KernelTargets:
    """Makes a `Target` (memory, images, symbols, unwinder) for the kernel as a process sees it.

    Processes whose page tables map the session drivers (win32k) to the same physical pages share a `Target`.
    """

    def __init__(self, machine: Machine, stacks: KernelStacks) -> None:
        """Keep the machine and the reader of the kernel's module list.

        `machine` is the machine whose kernel is meant. `stacks` supplies the images of that kernel and its drivers.
        """
        self._machine = machine
        self._stacks = stacks
        self._targets: dict[tuple[object, ...], Target] = {}

    def target(self, pages: ResolvedPages | None) -> Target:
        """Return the kernel as a process sees it.

        `pages` is the user-mode memory of the process. If `pages` is None, or maps no session driver, the session
        drivers are read through the kernel's own page tables, as the process System sees them.
        """
        drivers, kernel = self._session_drivers, self._machine.memory
        ends = ((driver.base, driver.base + driver.size - 1) for driver in drivers)
        tables = () if pages is None else tuple(table for first, last in ends for table in pages.tables(first, last))
        if pages is None or not any(tables):
            tables, memory = (), kernel
        else:
            memory = Memory(_OfSession(drivers, pages, kernel))
        if tables not in self._targets:
            if len(self._targets) >= _MAX_TARGETS:
                self._targets.clear()
            self._targets[tables] = self._make(memory)
        return self._targets[tables]

    @cached_property
    def _session_drivers(self) -> ModuleMap:
        """Return the modules whose headers cannot be read through the kernel's own page tables."""
        memory, left = self._machine.memory, _MAX_SESSION
        found: list[Module] = []
        for module in self._modules:
            if module.size <= left and memory.page(module.base & -PAGE_SIZE) is None:
                found.append(module)
                left -= module.size
        return ModuleMap(found)

    def _make(self, memory: Memory) -> Target:
        machine, sources = self._machine, self._machine.sources
        images = ImageMap(memory, self._modules, machine.images)
        symbols = Symbols(
            images,
            first_of(sources.symbols, self._isf_of_kernel),
            fallback=sources.exports_on_disk,
            name_outside=names_of_unloaded_drivers(machine),
        )
        if machine.is_64bit:
            return Target(Arch.X64, memory, images, symbols, self._stacks.unwinder_of(images))
        return Target(Arch.X86, memory, images, symbols, x86.Unwinder(images, symbols, sources.frame_data))

    @cached_property
    def _modules(self) -> ModuleMap:
        """Return the kernel's modules.

        The module of the kernel itself gets the name `nt`. If the kernel's module list lacks it, it is added.
        """
        base = self._machine.canonical(self._machine.kernel.offset)
        listed = [
            replace(module, name=KERNEL_NAME) if module.base == base else module
            for module in self._stacks.images.modules
        ]
        if not any(module.base == base for module in listed):
            headers = Image(Module(KERNEL_NAME, "", base, _UNKNOWN_SIZE), self._machine.memory).headers
            size = _UNKNOWN_SIZE if headers is None else headers.image_size
            listed.append(Module(KERNEL_NAME, "", base, size))
        return ModuleMap(listed)

    def _isf_of_kernel(self, image: Image) -> SymbolTable | None:
        return self._kernel_table if image.module.name == KERNEL_NAME else None

    @cached_property
    def _kernel_table(self) -> SymbolTable:
        return SymbolTable(SymbolKind.ISF, sorted(self._kernel_symbols()))

    def _kernel_symbols(self) -> Iterator[tuple[int, str]]:
        machine = self._machine
        table = machine.context.symbol_space[machine.kernel.symbol_table_name]
        for name in table.symbols:
            try:
                address = int(table.get_symbol(name).address)
            except exceptions.SymbolError:
                continue
            if address:
                yield address, name
