# SPDX-License-Identifier: Apache-2.0
"""The switch frame, which the kernel leaves on a thread's kernel stack when it switches the thread out.

KTHREAD.KernelStack points to it. Its return address is in KiSwapContext, where the walk of the kernel stack begins. No
kernel's PDB describes the frame. On x64 it has been KSWITCH_FRAME from Windows 7 to 11: five words of home space,
flags, rbp and the return address, 0x40 bytes. On x86 it has been KSWITCHFRAME since XP: exception list, flags and the
return address, 12 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from throwstack.core.memory import MemoryUnreadable
from throwstack.core.registers import Arch, Registers
from throwstack.volatility.memory.machine import Machine

_X64_RBP, _X64_RETURN, _X64_SIZE = 0x30, 0x38, 0x40
_X86_EXCEPTIONS, _X86_RETURN, _X86_SIZE = 0, 8, 12


@dataclass(frozen=True, slots=True)
class SwitchFrame:
    """The registers after SwapContext returns.

    `exception_list` is the address of the first exception registration on the kernel stack; it is None on x64.
    """

    registers: Registers
    exception_list: int | None = None


def read_switch_frame(machine: Machine, pointer: int) -> SwitchFrame | None:
    """Return the switch frame at `pointer`, or None if it cannot be read."""
    memory = machine.memory
    try:
        if machine.is_64bit:
            values = {"rip": memory.u64(pointer + _X64_RETURN), "rbp": memory.u64(pointer + _X64_RBP)}
            return SwitchFrame(Registers.named(Arch.X64, {**values, "rsp": pointer + _X64_SIZE}))
        values = {"eip": memory.u32(pointer + _X86_RETURN), "esp": pointer + _X86_SIZE}
        return SwitchFrame(Registers.named(Arch.X86, values), memory.u32(pointer + _X86_EXCEPTIONS))
    except MemoryUnreadable:
        return None
