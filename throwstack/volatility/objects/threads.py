# SPDX-License-Identifier: Apache-2.0
"""Threads of a process: identity, how they wait, their user stacks and the user registers of their trap frames.

ETHREAD, KTHREAD, KTRAP_FRAME and TEB are read at the offsets of the kernel's ISF.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from throwstack.core.budgets import BUDGETS
from throwstack.core.frames import StackBounds
from throwstack.core.memory import Memory, MemoryUnreadable
from throwstack.core.registers import X64, X86, Registers
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.objects.processors import Processors

_MAX_STACK = 1 << 30
_USER_MODE = 3
_WOW64_CS = 0x23
_SERVICE_FRAME = 2
"""KTRAP_FRAME.ExceptionActive of a system call; 0 and 1 are an interrupt's and an exception's."""
_IN_EVERY_FRAME = ("rip", "rsp", "rbp")
_OF_CALLS = (*_IN_EVERY_FRAME, "rbx", "rsi", "rdi")
_OF_INTERRUPTS = (*_IN_EVERY_FRAME, "rax", "rcx", "rdx", "r8", "r9", "r10", "r11")
_RUNNING, _TERMINATED = 2, 4
IS_RUNNING = "the thread was running: its registers are not in the dump"


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread as its ETHREAD describes it. Times are clock ticks since boot, modulo 2^32."""

    address: int
    tid: int
    teb: int
    state: int
    wait_ticks: int | None
    trap_frame: int
    initial_stack: int
    kernel_stack: int
    """Where its switch frame lies; 0 or stale for a thread that is running. Pointers the symbols do not name are 0."""

    @property
    def is_running(self) -> bool:
        """Say whether the thread was on a processor: what the kernel kept when it last switched it out is stale."""
        return self.state == _RUNNING

    @property
    def is_terminated(self) -> bool:
        """Say whether the thread has ended and only its object is left."""
        return self.state == _TERMINATED


@dataclass(frozen=True, slots=True)
class TrapFrame:
    """User-mode registers as a KTRAP_FRAME holds them, and the code selector: 0x33, or 0x23 for 32-bit code on x64.

    `address` is 0 where the thread was running in user mode: the registers are those of its processor, all of them.
    """

    address: int
    registers: Registers
    cs: int

    @property
    def is_32bit_code_on_x64(self) -> bool:
        """Say whether the thread was interrupted in 32-bit code of a WoW64 process."""
        return self.cs == _WOW64_CS and len(self.registers.gpr) == len(X64.register_names)


class ThreadReader:
    """Reads the threads of a machine; the offsets are looked up once."""

    def __init__(self, machine: Machine) -> None:
        """Take offsets from the layout of `machine`; raises LookupError if the kernel's table lacks a required one."""
        self._machine = machine
        self.processors = Processors(machine)
        offset, find = machine.layout.offset, machine.layout.find
        self._list_head = offset("_EPROCESS.ThreadListHead")
        self._list_entry = offset("_ETHREAD.ThreadListEntry")
        self._tid = offset("_ETHREAD.Cid.UniqueThread")
        self._teb = offset("_ETHREAD.Tcb.Teb")
        self._state = offset("_ETHREAD.Tcb.State")
        self._wait_time = find("_ETHREAD.Tcb.WaitTime")
        self._trap_frame = find("_ETHREAD.Tcb.TrapFrame")
        self._initial_stack = find("_ETHREAD.Tcb.InitialStack")
        self._kernel_stack = find("_ETHREAD.Tcb.KernelStack")
        self._trap_size = machine.layout.size("_KTRAP_FRAME") if machine.layout.has_type("_KTRAP_FRAME") else 0
        self._cs = find("_KTRAP_FRAME.SegCs")
        if machine.is_64bit:
            names = {name: f"_KTRAP_FRAME.{name.capitalize()}" for name in (*X64.register_names[:12], X64.ip_name)}
            self._exception_active = find("_KTRAP_FRAME.ExceptionActive")
        else:
            names = {name: f"_KTRAP_FRAME.{name.capitalize()}" for name in (*X86.register_names, X86.ip_name)}
            names["esp"] = "_KTRAP_FRAME.HardwareEsp"
            self._exception_active = None
        found = {name: find(path) for name, path in names.items()}
        self._registers = {name: offset for name, offset in found.items() if offset is not None}
        self._stack_base = find("_TEB.NtTib.StackBase")
        self._stack_limit = find("_TEB.NtTib.StackLimit")
        self._exception_list = find("_TEB.NtTib.ExceptionList")

    def threads(self, process: int) -> Iterator[Thread]:
        """Yield the threads of the EPROCESS at `process`.

        The list is followed both ways, so that one broken link costs the threads behind it only where a second one
        is broken too. A thread whose own fields cannot be read is left out.
        """
        head = process + self._list_head
        seen = {head}
        for direction in (0, self._machine.pointer_size):
            entry = head
            while len(seen) <= BUDGETS.threads:
                try:
                    entry = self._machine.pointer(self._machine.memory, entry + direction)
                except MemoryUnreadable:
                    break
                if entry in seen:
                    break
                seen.add(entry)
                thread = self._read(entry - self._list_entry)
                if thread is not None:
                    yield thread

    def has_all_threads(self, process: int) -> bool:
        """Say whether the list that `threads` goes along is whole."""
        return self._machine.is_whole_list(process + self._list_head)

    def _read(self, address: int) -> Thread | None:
        machine, memory = self._machine, self._machine.memory
        try:
            return Thread(
                address,
                machine.pointer(memory, address + self._tid),
                machine.pointer(memory, address + self._teb),
                memory.u8(address + self._state),
                None if self._wait_time is None else memory.u32(address + self._wait_time),
                self._pointer(address, self._trap_frame),
                self._pointer(address, self._initial_stack),
                self._pointer(address, self._kernel_stack),
            )
        except MemoryUnreadable:
            return None

    def _pointer(self, thread: int, offset: int | None) -> int:
        return 0 if offset is None else self._machine.pointer(self._machine.memory, thread + offset)

    def stack_bounds(self, memory: Memory, teb: int) -> StackBounds | None:
        """Return StackLimit and StackBase of the native TEB at `teb`, or None if they are unreadable or absurd."""
        if self._stack_base is None or self._stack_limit is None:
            return None
        try:
            base = self._machine.pointer(memory, teb + self._stack_base)
            limit = self._machine.pointer(memory, teb + self._stack_limit)
        except MemoryUnreadable:
            return None
        return checked_bounds(limit, base)

    def exception_list(self, memory: Memory, teb: int) -> int | None:
        """Return the first exception registration of the x86 thread whose TEB is at `teb`; None where there is none."""
        if not self._machine.arch.facts.has_exception_list or self._exception_list is None:
            return None
        try:
            return memory.u32(teb + self._exception_list) or None
        except MemoryUnreadable:
            return None

    def trap_frame(self, thread: Thread) -> TrapFrame | None:
        """Return the registers with which `thread` goes on in user mode, or None if no trap frame can be read.

        KTHREAD.TrapFrame is the innermost one and belongs to the kernel when an interrupt hit it there; the frame of
        the entry from user mode is then at the top of the kernel stack, where it always is. A thread that was running
        in user mode has none, and one that was running elsewhere, as far as its processor's registers tell, has.
        """
        if thread.is_running:
            context = self.processors.context(thread.address)
            if context is None:
                return None
            if context.cs & _USER_MODE == _USER_MODE:
                return TrapFrame(0, context.registers, context.cs)
        top = thread.initial_stack - self._trap_size if self._trap_size else 0
        for address in (thread.trap_frame, top):
            frame = self._read_trap_frame(address) if address > 0 else None
            if frame is not None:
                return frame
        return None

    def _read_trap_frame(self, address: int) -> TrapFrame | None:
        machine, memory = self._machine, self._machine.memory
        needed = {machine.arch.facts.ip_name, machine.arch.facts.sp_name}
        if self._cs is None or not needed <= self._registers.keys():
            return None
        try:
            cs = memory.u16(address + self._cs)
            if cs & _USER_MODE != _USER_MODE:
                return None
            values = {name: machine.pointer(memory, address + offset) for name, offset in self._registers.items()}
            if machine.is_64bit:
                # The rest is what some earlier frame left there. KiPageFault and its kin save what a C function may
                # change, and leave rbx, rsi and rdi to the functions they call; KiSystemCall64 does the opposite.
                values = {name: values[name] for name in self._saved(address) if name in values}
        except MemoryUnreadable:
            return None
        return TrapFrame(address, Registers.named(machine.arch, values), cs)

    def _saved(self, address: int) -> tuple[str, ...]:
        """Return the names of the registers that the x64 trap frame at `address` holds."""
        if self._exception_active is None:
            return _IN_EVERY_FRAME
        kind = self._machine.memory.u8(address + self._exception_active)
        return _OF_CALLS if kind == _SERVICE_FRAME else _OF_INTERRUPTS


def checked_bounds(limit: int, base: int) -> StackBounds | None:
    """Return the bounds of a stack, or None if they are not those of one: empty, unaligned or above 1 GiB."""
    if not 0 < limit < base or base - limit > _MAX_STACK or limit & 0xFFF:
        return None
    return StackBounds(limit, base)
