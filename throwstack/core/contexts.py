# SPDX-License-Identifier: Apache-2.0
"""Reads CONTEXT records, in which Windows saves the registers when an exception is dispatched.

The layouts are those of winnt.h (CONTEXT of x86 and of AMD64). Only integer, control and segment registers are read.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from throwstack.core.memory import Memory
from throwstack.core.registers import Arch, Registers

_CONTROL_AND_INTEGER = 0x3
_EXCEPTION_REPORTING = 0xF8000000
"""CONTEXT_EXCEPTION_REPORTING and related flags, which Windows adds for a debugger or for the exception dispatcher."""

_X86_INTEGER = struct.Struct("<12I")
_X86_SEGMENTS = struct.Struct("<4I")
_X64_SEGMENTS = struct.Struct("<6HI")
_X64_INTEGER = struct.Struct("<17Q")


@dataclass(frozen=True, slots=True)
class Context:
    """A saved CONTEXT: its address, its ContextFlags, general registers, EFLAGS and segment selectors."""

    arch: Arch
    address: int
    context_flags: int
    registers: Registers
    eflags: int
    cs: int
    ss: int
    ds: int
    es: int
    fs: int
    gs: int

    @property
    def has_plausible_flags(self) -> bool:
        """Say whether ContextFlags name this architecture and include control and integer registers."""
        flags = self.context_flags & ~_EXCEPTION_REPORTING
        is_complete = flags & _CONTROL_AND_INTEGER == _CONTROL_AND_INTEGER
        return is_complete and flags & 0xFFFF0000 == self.arch.facts.context_flag

    @property
    def has_user_selectors(self) -> bool:
        """Say whether cs and ss are those of user mode: 0x1b/0x23 on x86, 0x23/0x2b under WoW64, 0x33/0x2b on x64."""
        return (self.cs, self.ss) in self.arch.facts.user_selectors


def read_context(memory: Memory, address: int, arch: Arch) -> Context:
    """Read the CONTEXT at `address`; raises `MemoryUnreadable` if a needed part is absent."""
    return _READERS[arch](memory, address)


def _read_x86(memory: Memory, address: int) -> Context:
    gs, fs, es, ds = _X86_SEGMENTS.unpack(memory.read(address + 0x8C, 16))
    edi, esi, ebx, edx, ecx, eax, ebp, eip, cs, eflags, esp, ss = _X86_INTEGER.unpack(memory.read(address + 0x9C, 48))
    registers = Registers(eip, (eax, ecx, edx, ebx, esp, ebp, esi, edi))
    segments = (value & 0xFFFF for value in (cs, ss, ds, es, fs, gs))
    return Context(Arch.X86, address, memory.u32(address), registers, eflags, *segments)


def _read_x64(memory: Memory, address: int) -> Context:
    cs, ds, es, fs, gs, ss, eflags = _X64_SEGMENTS.unpack(memory.read(address + 0x38, 16))
    *gpr, rip = _X64_INTEGER.unpack(memory.read(address + 0x78, 17 * 8))
    flags = memory.u32(address + 0x30)
    return Context(Arch.X64, address, flags, Registers(rip, tuple(gpr)), eflags, cs, ss, ds, es, fs, gs)


_READERS = {Arch.X86: _read_x86, Arch.X64: _read_x64}
