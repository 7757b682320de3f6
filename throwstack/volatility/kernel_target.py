# SPDX-License-Identifier: Apache-2.0
"""The kernel as a target: the images of nt and its drivers, their names, and what unwinds them.

Drivers of a session (win32k) lie in memory that only the processes of that session map, so there is a target per
session, read through the page tables of one of its processes. Names come from PDBs, then from the ISF table that
Volatility loaded for the kernel (and ISF files of drivers), then from exports.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

from volatility3.framework import exceptions

from throwstack.images import Image, ImageMap
from throwstack.memory import Memory, MemoryUnreadable
from throwstack.modules import Module, ModuleMap
from throwstack.registers import Arch
from throwstack.symbols import SymbolKind, Symbols, SymbolTable, first_of
from throwstack.target import Target
from throwstack.unwind import x86
from throwstack.volatility.elsewhere import elsewhere_in_kernel
from throwstack.volatility.kernel import KernelStacks
from throwstack.volatility.machine import Machine

KERNEL_NAME = "nt"
"""What debuggers call the kernel, whatever its file is called."""
_UNKNOWN_SIZE = 1 << 24


class KernelTargets:
    """Makes the kernel's targets, one per session."""

    def __init__(self, machine: Machine, stacks: KernelStacks) -> None:
        """Take the machine, and what knows its kernel modules."""
        self._machine = machine
        self._stacks = stacks
        self._session = machine.layout.find("_EPROCESS.Session")
        self._targets: dict[int, Target] = {}

    def target(self, process: int, memory: Memory | None) -> Target:
        """Return the kernel as the EPROCESS at `process`, whose memory is `memory` (None: System's), sees it."""
        session = self._session_of(process) if memory is not None else 0
        if session not in self._targets:
            self._targets[session] = self._make(memory if session and memory is not None else self._machine.memory)
        return self._targets[session]

    def _session_of(self, process: int) -> int:
        if self._session is None:
            return process
        try:
            return self._machine.pointer(self._machine.memory, process + self._session)
        except MemoryUnreadable:
            return 0

    def _make(self, memory: Memory) -> Target:
        machine, sources = self._machine, self._machine.sources
        images = ImageMap(memory, self._modules, machine.images)
        symbols = Symbols(
            images,
            first_of(sources.symbols, self._isf_of_kernel),
            fallback=sources.exports_on_disk,
            elsewhere=elsewhere_in_kernel(machine),
        )
        if machine.is_64bit:
            return Target(Arch.X64, memory, images, symbols, self._stacks.unwinder_of(images))
        return Target(Arch.X86, memory, images, symbols, x86.Unwinder(images, symbols, sources.frame_data))

    @cached_property
    def _modules(self) -> ModuleMap:
        """The kernel's modules; the kernel itself under its short name, and also where the list has lost it."""
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
