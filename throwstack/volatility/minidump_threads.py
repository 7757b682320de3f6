# SPDX-License-Identifier: Apache-2.0
"""The threads of a process for a minidump: the user-mode registers with which each goes on, as a CONTEXT, and facts.

Registers come from the trap frame of a thread that waits, from the CONTEXT in the CPU area of 32-bit code that waits in
64-bit code, or from the processor of a thread that was running. The latter two are whole CONTEXTs and are copied as
they are. A trap frame also has flags and selectors, which the walk of a stack does not need, but a debugger shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from throwstack.core.memory import Memory, MemoryUnreadable
from throwstack.core.registers import Arch, Registers
from throwstack.core.sides import Side
from throwstack.core.text import decode_wide, escape
from throwstack.minidump.dumped import DumpedThread, MadeContext
from throwstack.minidump.thread_context import made_context, raw_context
from throwstack.unwind.target import ThreadStack
from throwstack.volatility.memory.layout import Member
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.memory.offsets import member, offset, take
from throwstack.volatility.minidump_system import SystemFacts
from throwstack.volatility.objects.thread_facts import ThreadFacts, ThreadFactsReader
from throwstack.volatility.objects.threads import Thread
from throwstack.volatility.objects.wow64 import Wow64Reader
from throwstack.volatility.processes import NoStack, Process, ProcessReader

_USER_CS = {Arch.X86: 0x1B, Arch.X64: 0x33}
_USER_SELECTORS = {
    0x1B: {"ss": 0x23, "ds": 0x23, "es": 0x23, "fs": 0x3B, "gs": 0},
    0x23: {"ss": 0x2B, "ds": 0x2B, "es": 0x2B, "fs": 0x53, "gs": 0x2B},
    0x33: {"ss": 0x2B, "ds": 0x2B, "es": 0x2B, "fs": 0x53, "gs": 0x2B},
}
"""The selectors of all user code by its cs: of 32-bit Windows, of 32-bit code on 64-bit Windows, of 64-bit code."""
_VOLATILE = 3
"""eax, ecx and edx, the first registers of x86. The kernel does not save them when a system call begins: in the trap
frame there is what an earlier one at the same place had."""
_BEFORE = 16
_SYSENTER, _INT_2E, _NOP = b"\x0f\x34", b"\xcd\x2e", b"\x90"
_MAX_NAME = 256
_LONG = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class _Offsets:
    eflags: int | None = offset("_KTRAP_FRAME.EFlags", optional=True)
    created: int | None = offset("_ETHREAD.CreateTime", optional=True)
    fault_count: int | None = offset("_ETHREAD.NestedFaultCount", optional=True)
    """Where it exists (XP, Server 2003), it is in the low three bits of CreateTime."""
    exit_status: Member | None = member("_ETHREAD.ExitStatus", optional=True)
    name: int | None = offset("_ETHREAD.ThreadName", optional=True)


class MinidumpThreads:
    """Gathers threads of one machine's processes."""

    def __init__(self, machine: Machine, reader: ProcessReader, facts: SystemFacts) -> None:
        """Look up the offsets of what is read."""
        self._machine = machine
        self._reader = reader
        self._times = facts
        self._facts = ThreadFactsReader(machine)
        self._offsets = take(_Offsets, machine.layout)
        self._wow64 = Wow64Reader(machine) if machine.is_64bit else None

    def threads(self, process: Process, side: Side, known: Mapping[int, ThreadStack]) -> tuple[DumpedThread, ...]:
        """Return the threads of `process` that have a stack on `side`. `known` are stacks by ETHREAD, read before."""
        found = []
        for thread in process.threads:
            if thread.is_terminated or not thread.teb:
                continue
            found.append(self._thread(process, thread, side, known.get(thread.address)))
        return tuple(found)

    def peb(self, process: Process, side: Side) -> int:
        """Return the address of the PEB that code of `side` uses; 0 if it is not known."""
        if self._is_wow64(process, side) and self._wow64 is not None:
            try:
                return self._wow64.peb32(process.address)
            except MemoryUnreadable:
                return 0
        return process.peb

    def _thread(self, process: Process, thread: Thread, side: Side, known: ThreadStack | None) -> DumpedThread:
        stack, problem = known, "" if known is None else known.missing
        if stack is None:
            try:
                stack = self._reader.completed(thread, self._reader.stack(process, thread, side))
                problem = stack.missing
            except (NoStack, MemoryUnreadable) as reason:
                problem = str(reason)
        registers = None if stack is None else stack.registers
        facts = self._facts.read(thread.address)
        return DumpedThread(
            thread.tid,
            teb=self._teb(process, thread, side),
            context=None if registers is None else self._context(process, thread, side, registers),
            registers=registers,
            stack=None if stack is None else stack.bounds,
            problem=escape(problem),
            name=self._name(thread),
            **self._numbers(thread, facts),
        )

    def _numbers(self, thread: Thread, facts: ThreadFacts) -> dict[str, int]:
        offsets, memory = self._offsets, self._machine.memory
        created, status = 0, 0
        try:
            if offsets.created is not None:
                created = memory.u64(thread.address + offsets.created)
                created >>= 0 if offsets.fault_count is None else 3
            if offsets.exit_status is not None:
                status = offsets.exit_status.read(memory, thread.address)
        except MemoryUnreadable:
            pass
        return {
            "suspend_count": facts.suspend_count or 0,
            "priority": facts.base_priority or 0,
            "exit_status": status,
            "created": created,
            "kernel_time": self._times.duration(facts.kernel_ticks),
            "user_time": self._times.duration(facts.user_ticks),
            "start": (facts.win32_start or facts.start or 0) & _LONG,
        }

    def _is_wow64(self, process: Process, side: Side) -> bool:
        return process.is_wow64 and side is Side.X86

    def _teb(self, process: Process, thread: Thread, side: Side) -> int:
        if self._is_wow64(process, side) and self._wow64 is not None:
            return self._wow64.teb32(process.memory, thread.teb) or 0
        return thread.teb

    def _context(self, process: Process, thread: Thread, side: Side, registers: Registers) -> MadeContext:
        """Return the CONTEXT of a thread whose registers are `registers`: as it is in memory if it is whole there."""
        arch = process.sides[side].arch
        try:
            whole = self._whole(process, thread, side, registers)
        except MemoryUnreadable:
            whole = None
        if whole is not None:
            return whole
        cs = _USER_CS[arch]
        others: dict[str, int] = {}
        frame = self._reader.trap_frame(thread)
        if frame is not None and frame.address:
            is_own = frame.registers.ip == registers.ip and frame.registers.sp == registers.sp
            if is_own or frame.is_32bit_code_on_x64:
                cs = frame.cs & 0xFFFF
                others = self._eflags(frame.address)
            if is_own and arch is Arch.X86 and waits_in_system_call(process.memory, registers.ip):
                registers = replace(registers, gpr=(*[None] * _VOLATILE, *registers.gpr[_VOLATILE:]))
        if self._is_wow64(process, side):
            cs = 0x23
        return made_context(arch, registers, {"cs": cs, **_USER_SELECTORS.get(cs, {}), **others})

    def _whole(self, process: Process, thread: Thread, side: Side, registers: Registers) -> MadeContext | None:
        arch = process.sides[side].arch
        if self._is_wow64(process, side) and self._wow64 is not None:
            of_area = self._wow64.cpu_context(process.memory, thread.teb)
            if of_area is not None and of_area.registers == registers:
                return raw_context(process.memory, of_area.address, arch)
        if thread.is_running:
            of_processor = self._reader.threads.processors.context(thread.address)
            if of_processor is not None and of_processor.registers == registers:
                return raw_context(self._machine.memory, of_processor.address, arch)
        return None

    def _eflags(self, frame: int) -> dict[str, int]:
        at = self._offsets.eflags
        try:
            return {} if at is None else {"eflags": self._machine.memory.u32(frame + at)}
        except MemoryUnreadable:
            return {}

    def _name(self, thread: Thread) -> str:
        """Return the description of a thread (SetThreadDescription); "" if it has none."""
        machine, at = self._machine, self._offsets.name
        if at is None:
            return ""
        try:
            text = machine.pointer(machine.memory, thread.address + at)
            return _unicode_string(machine.memory, text, machine.pointer_size) if text else ""
        except MemoryUnreadable:
            return ""


def waits_in_system_call(memory: Memory, ip: int) -> bool:
    """Say whether 32-bit code at `ip` goes on after a system call: `sysenter`, or `int 2Eh`, is before it.

    XP has five bytes of padding between `sysenter` and `KiFastSystemCallRet`, Server 2003 none. If the code is absent,
    it may be one: of nearly all threads that wait, it is.
    """
    try:
        before = memory.read(ip - _BEFORE, _BEFORE)
    except MemoryUnreadable:
        return True
    return before.rstrip(_NOP).endswith((_SYSENTER, _INT_2E))


def _unicode_string(memory: Memory, address: int, pointer_size: int) -> str:
    length = min(memory.u16(address), 2 * _MAX_NAME)
    return escape(decode_wide(memory.read(memory.pointer(address + pointer_size, pointer_size), length)), _MAX_NAME)
