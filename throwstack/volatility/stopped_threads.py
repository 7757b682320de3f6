# SPDX-License-Identifier: Apache-2.0
"""Finds threads that an exception has stopped in the kernel: they wait there for a debugger or for the error port.

KiDispatchException handles each exception of a thread. If a debugger is attached, or if no handler took the exception,
it calls DbgkForwardException, which sends a message and waits for the answer. The registers of the exception are then
in the thread's trap frame. The user-mode stack need not show it: at the second chance NtRaiseException has put the
registers of the throw into the trap frame, so that the walk begins there and misses the dispatcher.

A thread is only taken to be stopped if three things are there: a frame of DbgkForwardException that was not guessed, on
a walk of the kernel stack; further out on this stack an EXCEPTION_RECORD; and in it the address at which the trap frame
says the thread was. Where one of them cannot be read, nothing is said: ordinary threads wait in page faults, for APCs
and after interrupts, and look no different then.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property

from throwstack.core.exception_record import ExceptionRecord, read_record
from throwstack.core.frames import StackBounds
from throwstack.core.memory import PAGE_SIZE, Memory, MemoryUnreadable
from throwstack.core.registers import SP, Arch, Registers
from throwstack.core.stack_words import CodeRanges, pages_between
from throwstack.exceptions.debugger_signals import is_debugger_signal
from throwstack.names.frame_names import name_of
from throwstack.names.stable_names import plain_name
from throwstack.unwind.proven import first_guess
from throwstack.unwind.target import ThreadStack
from throwstack.volatility.kernel_stack.kernel_target import KernelTargets
from throwstack.volatility.kernel_stack.kernel_walk import KernelWalker
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.memory.offsets import offset, take
from throwstack.volatility.objects.switch_frame import read_switch_frame
from throwstack.volatility.objects.threads import Thread
from throwstack.volatility.objects.trap_frame import TrapFrame
from throwstack.volatility.processes import Process, ProcessReader

log = logging.getLogger(__name__)

FORWARDS = "DbgkForwardException"
"""The kernel's function that sends an exception to a debugger or to the error port, and waits."""
_LONGEST = 0x800
_MAX_KERNEL_STACK = 1 << 20
_SYSTEM_CALLS = frozenset({b"\x0f\x05", b"\x0f\x34", b"\xcd\x2e"})
"""syscall, sysenter, int 2Eh."""
_CALL_SIZE = 2
_DEBUGGERS_OWN = frozenset({0x80000003, 0x80000004, 0x4000001E, 0x4000001F})
"""Breakpoint and single step, and the same in 32-bit code of WoW64. A debugger that is attached made them itself."""


@dataclass(frozen=True, slots=True)
class _Offsets:
    debug_port: int | None = offset("_EPROCESS.DebugPort", optional=True)


class StoppedThreads:
    """Says which threads an exception has stopped in the kernel."""

    def __init__(self, machine: Machine, reader: ProcessReader) -> None:
        """Keep the machine and the reader of its processes; the function's address is looked up on first use."""
        self._machine = machine
        self._reader = reader
        self._arch = Arch.X64 if machine.is_64bit else Arch.X86
        self._offsets = take(_Offsets, machine.layout)

    def exception(self, process: Process, thread: Thread, stack: ThreadStack) -> ExceptionRecord | None:
        """Return the record of the exception that has stopped `thread` of `process`, or None.

        The record is on the kernel stack. `stack` is the thread's user-mode stack; the registers there must be those of
        the trap frame, and not those of a CPU area (WoW64). The record's code is never one that only tells a debugger
        something. Raises MemoryUnreadable if the thread's trap frame cannot be read.
        """
        if thread.is_running or stack.registers is None or _is_in_call(process.memory, stack.registers.ip):
            return None
        frame = self._reader.trap_frame(thread)
        if frame is None or not _is_at(stack.registers, frame.registers):
            return None
        if not 0 < frame.address - thread.kernel_stack < _MAX_KERNEL_STACK:
            return None
        is_suspect = self._may_forward(thread.kernel_stack, frame.address)
        forwards = self._forwards(thread, frame) if is_suspect else None
        record = None if forwards is None else self._record(forwards, frame)
        if record is None or is_debugger_signal(record.code):
            return None
        return None if record.code in _DEBUGGERS_OWN and self._is_debugged(process.address) else record

    @cached_property
    def _ranges(self) -> CodeRanges:
        address = self._machine.symbol(FORWARDS)
        ranges = [] if address is None else [(address + 1, address + _LONGEST)]
        return CodeRanges(ranges, self._machine.pointer_size)

    @cached_property
    def _targets(self) -> KernelTargets:
        return KernelTargets(self._machine, self._reader.kernel)

    @cached_property
    def _walker(self) -> KernelWalker:
        return KernelWalker(self._machine)

    def _may_forward(self, low: int, high: int) -> bool:
        """Say whether a word of the kernel stack is in the function: the cheap test, which nearly no thread passes."""
        if not len(self._ranges):
            return False
        for address, page in pages_between(self._machine.memory, low, high):
            if page is not None and any(low <= address + at < high for at in self._ranges.offsets(page)):
                return True
        return False

    def _forwards(self, thread: Thread, frame: TrapFrame) -> int | None:
        """Return where on the thread's kernel stack a frame of the function is for certain, or None."""
        start = read_switch_frame(self._machine, thread.kernel_stack)
        target = self._targets.target(None)
        if start is None or not target.images.is_code(start.registers.ip):
            return None
        bounds = StackBounds(thread.kernel_stack & -PAGE_SIZE, thread.initial_stack)
        frames = self._walker.walk(target, start, bounds, frame.address).frames
        guess = first_guess(target, frames)
        for found in frames[:guess]:
            name = name_of(target.symbols, found)
            if found.sp < frame.address and name.is_certain and plain_name(name.symbol) == FORWARDS:
                return found.sp
        return None

    def _record(self, low: int, frame: TrapFrame) -> ExceptionRecord | None:
        """Return the first record from `low` on of an exception at the place where the thread was; None if none.

        The address in the record of a breakpoint is that of the int3; the thread may be at the next byte.
        """
        memory, size, ip = self._machine.memory, self._machine.pointer_size, frame.registers.ip
        for at in range((low + size - 1) & -size, frame.address, size):
            with_address = _word(memory, at, size)
            if with_address is None or with_address not in {ip, ip - 1}:
                continue
            try:
                record = read_record(memory, at - _address_offset(self._arch), self._arch)
            except MemoryUnreadable:
                continue
            is_at = record.address == ip or record.code in _DEBUGGERS_OWN
            if is_at and record.code and record.is_well_formed:
                return record
        return None

    def _is_debugged(self, process: int) -> bool:
        """Say whether a debugger is attached to the process at `process`, or may be."""
        at = self._offsets.debug_port
        try:
            return at is None or bool(self._machine.pointer(self._machine.memory, process + at))
        except MemoryUnreadable:
            return True


def _is_at(registers: Registers, interrupted: Registers) -> bool:
    return (registers.ip, registers.gpr[SP]) == (interrupted.ip, interrupted.gpr[SP])


def _is_in_call(memory: Memory, ip: int) -> bool:
    """Say whether the instruction before `ip` is a system call: nearly every thread waits in one."""
    return memory.read_available(ip - _CALL_SIZE, _CALL_SIZE) in _SYSTEM_CALLS


def _word(memory: Memory, address: int, size: int) -> int | None:
    try:
        return memory.pointer(address, size)
    except MemoryUnreadable:
        return None


def _address_offset(arch: Arch) -> int:
    """Return the offset of ExceptionAddress in an EXCEPTION_RECORD: after code, flags and a pointer."""
    return 8 + arch.pointer_size
