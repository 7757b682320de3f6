# SPDX-License-Identifier: Apache-2.0
"""Reads the threads of a process: their ids, states and stacks, and the registers with which they return to user mode.

ETHREAD, KTHREAD and TEB are read at the offsets in the kernel's ISF table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from throwstack.core.budgets import BUDGETS
from throwstack.core.frames import StackBounds
from throwstack.core.memory import Memory, MemoryUnreadable
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.memory.offsets import offset, take
from throwstack.volatility.objects.processors import Processors
from throwstack.volatility.objects.trap_frame import USER_MODE, TrapFrame, TrapFrameReader

_MAX_STACK = 1 << 30
_RUNNING, _TERMINATED = 2, 4
IS_RUNNING = "the thread was running: its registers are not in the dump"


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread as its ETHREAD describes it.

    `wait_ticks` is when its wait began, in clock ticks since boot, modulo 2^32. Pointers are 0 if the symbols lack the
    members.
    """

    address: int
    tid: int
    teb: int
    state: int
    wait_ticks: int | None
    trap_frame: int
    initial_stack: int
    kernel_stack: int
    """The address of the thread's switch frame (`switch_frame`); 0 or out of date for a running thread."""
    has_own_teb: bool = False
    """The state says that the thread has ended, but its TEB, which Windows frees before that, is still its own."""

    @property
    def is_running(self) -> bool:
        """Say whether the thread was on a processor. If so, its switch frame and trap frame are out of date."""
        return self.state == _RUNNING

    @property
    def is_terminated(self) -> bool:
        """Say whether the thread has ended and only its object is left."""
        return self.state == _TERMINATED and not self.has_own_teb


@dataclass(frozen=True, slots=True)
class _Offsets:
    list_head: int = offset("_EPROCESS.ThreadListHead")
    list_entry: int = offset("_ETHREAD.ThreadListEntry")
    tid: int = offset("_ETHREAD.Cid.UniqueThread")
    teb: int = offset("_ETHREAD.Tcb.Teb")
    state: int = offset("_ETHREAD.Tcb.State")
    wait_time: int | None = offset("_ETHREAD.Tcb.WaitTime", optional=True)
    trap_frame: int | None = offset("_ETHREAD.Tcb.TrapFrame", optional=True)
    initial_stack: int | None = offset("_ETHREAD.Tcb.InitialStack", optional=True)
    kernel_stack: int | None = offset("_ETHREAD.Tcb.KernelStack", optional=True)
    stack_base: int | None = offset("_TEB.NtTib.StackBase", optional=True)
    stack_limit: int | None = offset("_TEB.NtTib.StackLimit", optional=True)
    exception_list: int | None = offset("_TEB.NtTib.ExceptionList", optional=True)
    self_pointer: int | None = offset("_TEB.NtTib.Self", optional=True)
    teb_tid: int | None = offset("_TEB.ClientId.UniqueThread", optional=True)


class ThreadReader:
    """Reads the threads of a machine."""

    def __init__(self, machine: Machine) -> None:
        """Look up the offsets of the structures to read in the symbols of `machine`.

        A LookupError is raised if the kernel's ISF table lacks a required member.
        """
        self._machine = machine
        self.processors = Processors(machine)
        self._offsets = take(_Offsets, machine.layout)
        self._trap_frames = TrapFrameReader(machine)

    def threads(self, process: int) -> Iterator[Thread]:
        """Yield the threads of the EPROCESS at `process`.

        The list is followed forwards and then backwards. So one broken link hides no thread, and two broken links hide
        only the threads between them. A thread whose own members cannot be read is left out.
        """
        head = process + self._offsets.list_head
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
                thread = self._read(entry - self._offsets.list_entry)
                if thread is not None:
                    yield thread

    def has_all_threads(self, process: int) -> bool:
        """Say whether the list of threads is whole: whether following its links leads back to its head."""
        return self._machine.is_whole_list(process + self._offsets.list_head)

    def _read(self, address: int) -> Thread | None:
        machine, memory, offsets = self._machine, self._machine.memory, self._offsets
        try:
            return Thread(
                address,
                machine.pointer(memory, address + offsets.tid),
                machine.pointer(memory, address + offsets.teb),
                memory.u8(address + offsets.state),
                None if offsets.wait_time is None else memory.u32(address + offsets.wait_time),
                self._pointer(address, offsets.trap_frame),
                self._pointer(address, offsets.initial_stack),
                self._pointer(address, offsets.kernel_stack),
            )
        except MemoryUnreadable:
            return None

    def _pointer(self, thread: int, at: int | None) -> int:
        return 0 if at is None else self._machine.pointer(self._machine.memory, thread + at)

    def with_teb(self, memory: Memory, thread: Thread) -> Thread:
        """Return `thread`, a thread of the process in `memory`, with `has_own_teb` set if that is so.

        The state of a thread is one byte, and one flipped bit makes Waiting (5) into Terminated (4). A thread that ends
        frees its TEB before its state changes. So if the TEB is still there with the thread's own TID in it, the thread
        has not ended.
        """
        self_pointer, teb_tid = self._offsets.self_pointer, self._offsets.teb_tid
        if thread.state != _TERMINATED or not thread.teb or self_pointer is None or teb_tid is None:
            return thread
        try:
            found = [self._machine.pointer(memory, thread.teb + at) for at in (self_pointer, teb_tid)]
        except MemoryUnreadable:
            return thread
        return replace(thread, has_own_teb=found == [thread.teb, thread.tid])

    def stack_bounds(self, memory: Memory, teb: int) -> StackBounds | None:
        """Return StackLimit and StackBase of the native TEB at `teb`, or None if they are unreadable or impossible."""
        stack_base, stack_limit = self._offsets.stack_base, self._offsets.stack_limit
        if stack_base is None or stack_limit is None:
            return None
        try:
            base = self._machine.pointer(memory, teb + stack_base)
            limit = self._machine.pointer(memory, teb + stack_limit)
        except MemoryUnreadable:
            return None
        return checked_bounds(limit, base)

    def exception_list(self, memory: Memory, teb: int) -> int | None:
        """Return the address of the first exception registration of the x86 thread whose TEB is at `teb`, or None."""
        exception_list = self._offsets.exception_list
        if not self._machine.arch.facts.has_exception_list or exception_list is None:
            return None
        try:
            return memory.u32(teb + exception_list) or None
        except MemoryUnreadable:
            return None

    def trap_frame(self, thread: Thread) -> TrapFrame | None:
        """Return the registers with which `thread` returns to user mode, or None if no trap frame can be read.

        KTHREAD.TrapFrame points to the innermost trap frame. If a thread makes a system call and an interrupt occurs
        while it is in the kernel, that frame has registers of kernel code. The trap frame of the system call is at the
        top of the kernel stack, and is used instead.

        A thread that was running in user mode has no trap frame; its registers are those of its processor.
        """
        if thread.is_running:
            context = self.processors.context(thread.address)
            if context is None:
                return None
            if context.cs & USER_MODE == USER_MODE:
                return TrapFrame(0, context.registers, context.cs)
        size = self._trap_frames.size
        top = 0 if size is None else thread.initial_stack - size
        for address in (thread.trap_frame, top):
            frame = self._trap_frames.user_frame(address) if address > 0 else None
            if frame is not None:
                return frame
        return None


def checked_bounds(limit: int, base: int) -> StackBounds | None:
    """Return the bounds of a stack, or None if they cannot be right: empty, unaligned or larger than 1 GiB."""
    if not 0 < limit < base or base - limit > _MAX_STACK or limit & 0xFFF:
        return None
    return StackBounds(limit, base)
