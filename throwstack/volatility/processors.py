# SPDX-License-Identifier: Apache-2.0
"""Registers of the threads that were running: KPRCB.ProcessorState.ContextFrame.

A crash dump's writer saves every processor's registers there before it writes. In an image taken from a running
system the member is stale or empty, so what it holds is only believed where its stack pointer lies on the stack of
the processor's current thread.
"""

from __future__ import annotations

from functools import cached_property

from volatility3.framework import exceptions

from throwstack.contexts import Context, read_context
from throwstack.memory import MemoryUnreadable
from throwstack.registers import Arch
from throwstack.volatility.machine import Machine

_MAX_PROCESSORS = 2048


class Processors:
    """The processors of a machine; read on first use."""

    def __init__(self, machine: Machine) -> None:
        """Take the machine."""
        self._machine = machine

    def context(self, thread: int) -> Context | None:
        """Return the registers of the processor that runs the ETHREAD at `thread`, or None."""
        return self._contexts.get(thread)

    @cached_property
    def _contexts(self) -> dict[int, Context]:
        machine = self._machine
        current = machine.layout.find("_KPRCB.CurrentThread")
        frame = machine.layout.find("_KPRCB.ProcessorState.ContextFrame")
        found: dict[int, Context] = {}
        if current is None or frame is None:
            return found
        arch = Arch.X64 if machine.is_64bit else Arch.X86
        for prcb in self._control_blocks():
            try:
                thread = machine.pointer(machine.memory, prcb + current)
                context = read_context(machine.memory, prcb + frame, arch)
            except MemoryUnreadable:
                continue
            if context.has_plausible_flags:
                found[thread] = context
        return found

    def _control_blocks(self) -> list[int]:
        """Return the addresses of the KPRCBs: KiProcessorBlock holds a pointer to each, then zeros."""
        machine, kernel = self._machine, self._machine.kernel
        found: list[int] = []
        try:
            table = machine.canonical(int(kernel.offset + kernel.get_symbol("KiProcessorBlock").address))
            while len(found) < _MAX_PROCESSORS:
                block = machine.pointer(machine.memory, table + len(found) * machine.pointer_size)
                if not block or block in found:
                    break
                found.append(block)
        except (exceptions.SymbolError, MemoryUnreadable):
            pass
        return found
