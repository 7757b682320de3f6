# SPDX-License-Identifier: Apache-2.0
"""Reads a KTRAP_FRAME: the registers that the kernel saves on its stack when it is entered.

An x64 trap frame has members for more registers than the kernel saves in it; the other members hold what an earlier
call left there. KiPageFault and the other handlers of faults and interrupts save the volatile registers (rax, rcx, rdx,
r8 to r11), and leave rbx, rsi and rdi to the functions that they call. KiSystemCall64 does the opposite. Example: a
thread waits in a system call; rcx and r11 in its frame are from the page fault before the call. So which members are
used depends on how the kernel was entered, which ExceptionActive says.
"""

from __future__ import annotations

from dataclasses import dataclass

from throwstack.core.memory import MemoryUnreadable
from throwstack.core.registers import SP, X64, X86, Arch, Registers
from throwstack.volatility.memory.layout import Layout
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.memory.offsets import offset, size, take

USER_MODE = 3
"""The bits of a code selector that hold the privilege level of the processor. Both are set in user mode."""
_WOW64_CS = 0x23
_SERVICE_FRAME = 2
"""The value of KTRAP_FRAME.ExceptionActive for a system call; 0 means an interrupt and 1 an exception."""
_IN_EVERY_FRAME = ("rip", "rsp", "rbp")
_OF_CALLS = (*_IN_EVERY_FRAME, "rbx", "rsi", "rdi")
_OF_INTERRUPTS = (*_IN_EVERY_FRAME, "rax", "rcx", "rdx", "r8", "r9", "r10", "r11")
_X64_SAVED = X64.register_names[:12]


@dataclass(frozen=True, slots=True)
class TrapFrame:
    """User-mode registers from a KTRAP_FRAME or from a processor.

    `cs` is the code selector: 0x33 for 64-bit code, 0x23 for 32-bit code on x64. `address` is 0 if the thread was
    running in user mode; the registers are then those of its processor, and complete.
    """

    address: int
    registers: Registers
    cs: int

    @property
    def is_32bit_code_on_x64(self) -> bool:
        """Say whether the thread was interrupted in 32-bit code of a WoW64 process."""
        return self.cs == _WOW64_CS and len(self.registers.gpr) == len(X64.register_names)


@dataclass(frozen=True, slots=True)
class TrapFrameOffsets:
    """Offsets of members of a KTRAP_FRAME; some exist only on x86 or only on x64.

    `sp` is the offset of the interrupted code's stack pointer: Rsp or HardwareEsp.
    """

    size: int | None = size("_KTRAP_FRAME", optional=True)
    cs: int | None = offset("_KTRAP_FRAME.SegCs", optional=True)
    ip: int | None = offset("_KTRAP_FRAME.Rip", "_KTRAP_FRAME.Eip", optional=True)
    sp: int | None = offset("_KTRAP_FRAME.Rsp", "_KTRAP_FRAME.HardwareEsp", optional=True)
    exception_active: int | None = offset("_KTRAP_FRAME.ExceptionActive", optional=True)
    argument_mark: int | None = offset("_KTRAP_FRAME.DbgArgMark", optional=True)


def general_registers(layout: Layout, arch: Arch) -> dict[str, int]:
    """Return the offsets of the general registers, except the stack pointer, in a KTRAP_FRAME, by register name."""
    names = X86.register_names if arch is Arch.X86 else _X64_SAVED
    found = {name: layout.find(f"_KTRAP_FRAME.{name.capitalize()}") for name in names if name != names[SP]}
    return {name: at for name, at in found.items() if at is not None}


class TrapFrameReader:
    """Reads trap frames; the offsets are looked up once."""

    def __init__(self, machine: Machine) -> None:
        """Look up the offsets of a trap frame in the symbols of `machine`."""
        self._machine = machine
        self._offsets = take(TrapFrameOffsets, machine.layout)
        self._arch = Arch.X64 if machine.is_64bit else Arch.X86
        self._registers = general_registers(machine.layout, self._arch)
        names = {"rsp": self._offsets.sp, "rip": self._offsets.ip}
        if self._arch is Arch.X86:
            names = {"esp": self._offsets.sp, "eip": self._offsets.ip}
        self._registers |= {name: at for name, at in names.items() if at is not None}

    @property
    def size(self) -> int | None:
        """Return the size of a trap frame in bytes, or None if the symbols lack the structure."""
        return self._offsets.size

    def user_frame(self, address: int) -> TrapFrame | None:
        """Return the trap frame at `address`, or None if it cannot be read or did not save user-mode registers."""
        machine, memory, offsets = self._machine, self._machine.memory, self._offsets
        if offsets.cs is None or offsets.ip is None or offsets.sp is None:
            return None
        try:
            cs = memory.u16(address + offsets.cs)
            if cs & USER_MODE != USER_MODE:
                return None
            values = {name: machine.pointer(memory, address + at) for name, at in self._registers.items()}
            if machine.is_64bit:
                values = {name: values[name] for name in self._saved(address) if name in values}
        except MemoryUnreadable:
            return None
        return TrapFrame(address, Registers.named(self._arch, values), cs)

    def _saved(self, address: int) -> tuple[str, ...]:
        """Return the names of the registers that the x64 trap frame at `address` holds."""
        if self._offsets.exception_active is None:
            return _IN_EVERY_FRAME
        kind = self._machine.memory.u8(address + self._offsets.exception_active)
        return _OF_CALLS if kind == _SERVICE_FRAME else _OF_INTERRUPTS
