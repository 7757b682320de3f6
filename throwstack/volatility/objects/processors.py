# SPDX-License-Identifier: Apache-2.0
"""Reads the registers of threads that were running, from KPRCB.ProcessorState.ContextFrame.

Before Windows writes a crash dump, it saves every processor's registers there. In an image that was taken from a
running system, the member is empty or has older registers. So whoever uses the registers has to check that the stack
pointer is on the stack of the thread.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from throwstack.core.contexts import Context, read_context
from throwstack.volatility.memory.guarded import guarded
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.memory.offsets import MissingMembers, offset, take

log = logging.getLogger(__name__)

_MAX_PROCESSORS = 2048


@dataclass(frozen=True, slots=True)
class _Offsets:
    thread: int = offset("_KPRCB.CurrentThread")
    registers: int = offset("_KPRCB.ProcessorState.ContextFrame")


class Processors:
    """The processors of a machine, which are read on first use."""

    def __init__(self, machine: Machine) -> None:
        """Keep `machine`, the processors of which are meant."""
        self._machine = machine

    def context(self, thread: int) -> Context | None:
        """Return the registers of the processor that runs the ETHREAD at `thread`, or None if no processor runs it."""
        return self._contexts.get(thread)

    @cached_property
    def _contexts(self) -> dict[int, Context]:
        machine = self._machine
        found: dict[int, Context] = {}
        try:
            offsets = take(_Offsets, machine.layout)
        except MissingMembers as error:
            log.info("registers of running threads are not known: %s", error)
            return found
        arch = machine.arch
        guard = guarded(lambda reason: log.info("a processor's registers cannot be read: %s", reason))
        for prcb in guard.each(self._control_blocks()):
            with guard:
                thread = machine.pointer(machine.memory, prcb + offsets.thread)
                context = read_context(machine.memory, prcb + offsets.registers, arch)
                if context.has_plausible_flags:
                    found[thread] = context
        return found

    def _control_blocks(self) -> Iterator[int]:
        """Yield the addresses of the KPRCBs. KiProcessorBlock is an array of pointers to them that ends with zeros."""
        machine = self._machine
        table = machine.symbol("KiProcessorBlock")
        found: set[int] = set()
        while table is not None and len(found) < _MAX_PROCESSORS:
            block = machine.pointer(machine.memory, table + len(found) * machine.pointer_size)
            if not block or block in found:
                break
            found.add(block)
            yield block
