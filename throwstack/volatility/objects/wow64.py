# SPDX-License-Identifier: Apache-2.0
"""Reads the 32-bit structures of a WoW64 process: PEB32, TEB32, and the registers with which 32-bit code resumes.

While a thread of a WoW64 process is in 64-bit code, its 32-bit registers are in its CPU area, to which
TEB64.TlsSlots[1] points: a WOW64_CPURESERVED {u16 Flags, u16 Machine}, followed by a 32-bit CONTEXT. This form is not
documented, so the CONTEXT is checked.

Machine is 0x14C (i386) since Windows 8. On Windows 7 SP1 x64 (6.1.7601) it is 0 in a real process, and the CONTEXT
after it is good. So 0 is accepted as well, if the stack pointer in the CONTEXT is on the thread's 32-bit stack.
"""

from __future__ import annotations

from dataclasses import dataclass

from throwstack.core.contexts import Context, read_context
from throwstack.core.frames import StackBounds
from throwstack.core.memory import Memory, MemoryUnreadable
from throwstack.core.registers import Arch
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.memory.offsets import offset, size, take
from throwstack.volatility.objects.loader import LoaderReader
from throwstack.volatility.objects.threads import checked_bounds

_CPU_SLOT = 1
_NO_MACHINE, _MACHINE_I386 = 0, 0x14C
_USER_LIMIT = 1 << 32
_TEB32_DISTANCE = 0x2000


@dataclass(frozen=True, slots=True)
class _KernelOffsets:
    process: int | None = offset("_EPROCESS.WoW64Process", "_EPROCESS.Wow64Process", optional=True)
    peb: int | None = offset("_EWOW64PROCESS.Peb", optional=True)
    tls_slots: int | None = offset("_TEB.TlsSlots", optional=True)


@dataclass(frozen=True, slots=True)
class _Wow64Offsets:
    context: int = size("_WOW64_CPURESERVED")
    """The offset of the CONTEXT in the CPU area, which is the size of the structure that it follows."""
    machine: int = offset("_WOW64_CPURESERVED.Machine")
    self_pointer: int = offset("_TEB32.NtTib.Self")
    stack_base: int = offset("_TEB32.NtTib.StackBase")
    stack_limit: int = offset("_TEB32.NtTib.StackLimit")
    exception_list: int = offset("_TEB32.NtTib.ExceptionList")


class Wow64Reader:
    """Reads the 32-bit PEBs, TEBs and CPU areas of a machine."""

    def __init__(self, machine: Machine) -> None:
        """Look up offsets in the kernel's symbols of `machine`, and in the table of 32-bit structures of throwstack.

        Raises LookupError if the 32-bit table lacks a required member.
        """
        self._machine = machine
        self._kernel = take(_KernelOffsets, machine.layout)
        self._offsets = take(_Wow64Offsets, machine.wow64)
        self.loader = LoaderReader(machine.wow64, 4, "32")

    def peb32(self, process: int) -> int:
        """Return the address of the PEB32 of the EPROCESS at `process`, or 0 for a 64-bit process.

        Up to Windows 8.1, EPROCESS.Wow64Process is the address of the PEB32. Since Windows 10, it points to an
        EWOW64PROCESS, which has that address.
        """
        memory = self._machine.memory
        if self._kernel.process is None:
            return 0
        value = memory.u64(process + self._kernel.process)
        if value < _USER_LIMIT:
            return value
        # Symbols without EWOW64PROCESS: its first member is the PEB in every Windows that has it.
        return memory.u64(value + (self._kernel.peb or 0)) & (_USER_LIMIT - 1)

    def teb32(self, memory: Memory, teb: int) -> int | None:
        """Return the address of the 32-bit TEB of the thread whose 64-bit TEB is at `teb`, or None.

        The first member of the 64-bit TEB points to it. If that page is absent, the address 0x2000 bytes after the
        64-bit TEB is tried, where Windows puts the 32-bit TEB. An address is accepted only if the self pointer there is
        equal to it.
        """
        try:
            candidates = (memory.u64(teb), teb + _TEB32_DISTANCE)
        except MemoryUnreadable:
            candidates = (0, teb + _TEB32_DISTANCE)
        for candidate in candidates:
            try:
                if 0 < candidate < _USER_LIMIT and memory.u32(candidate + self._offsets.self_pointer) == candidate:
                    return candidate
            except MemoryUnreadable:
                continue
        return None

    def stack_bounds(self, memory: Memory, teb: int) -> StackBounds | None:
        """Return the bounds of the 32-bit stack of the thread whose 64-bit TEB is at `teb`, or None."""
        teb32 = self.teb32(memory, teb)
        if teb32 is None:
            return None
        try:
            limit, base = memory.u32(teb32 + self._offsets.stack_limit), memory.u32(teb32 + self._offsets.stack_base)
        except MemoryUnreadable:
            return None
        return checked_bounds(limit, base)

    def exception_list(self, memory: Memory, teb: int) -> int | None:
        """Return the address of the first 32-bit exception registration of the thread whose 64-bit TEB is at `teb`.

        None is returned if there is none or it cannot be read.
        """
        teb32 = self.teb32(memory, teb)
        if teb32 is None:
            return None
        try:
            return memory.u32(teb32 + self._offsets.exception_list) or None
        except MemoryUnreadable:
            return None

    def cpu_context(self, memory: Memory, teb: int) -> Context | None:
        """Return the 32-bit CONTEXT in the CPU area of the thread whose 64-bit TEB is at `teb`, or None."""
        slots = self._kernel.tls_slots
        if slots is None:
            return None
        try:
            area = memory.u64(teb + slots + 8 * _CPU_SLOT)
            machine = memory.u16(area + self._offsets.machine) if area else None
            if machine not in {_NO_MACHINE, _MACHINE_I386}:
                return None
            context = read_context(memory, area + self._offsets.context, Arch.X86)
        except MemoryUnreadable:
            return None
        if not (context.has_plausible_flags and context.has_user_selectors):
            return None
        bounds = None if machine == _MACHINE_I386 else self.stack_bounds(memory, teb)
        return context if bounds is None or bounds.contains(context.registers.sp) else None
