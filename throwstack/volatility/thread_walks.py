# SPDX-License-Identifier: Apache-2.0
"""Whole stacks of threads: the kernel's frames, then the user's, 64-bit and 32-bit ones where there are both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from throwstack.core.contexts import Context
from throwstack.core.frames import Frame, StackBounds
from throwstack.core.memory import PAGE_SIZE, MemoryUnreadable
from throwstack.unwind.target import Target, current_stack
from throwstack.volatility.kernel_stack.kernel_target import KernelTargets
from throwstack.volatility.kernel_stack.kernel_walk import KernelSide, KernelWalker
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.objects.switch_frame import SwitchFrame, read_switch_frame
from throwstack.volatility.objects.thread_facts import ThreadFacts
from throwstack.volatility.objects.threads import IS_RUNNING, Thread
from throwstack.volatility.processes import NoStack, Process, ProcessReader

_USER_MODE = 3
_MAX_KERNEL_STACK = 1 << 20


class Wow64View(Enum):
    """Which user stacks of a WoW64 process's threads are walked."""

    X86 = "32"
    NATIVE = "native"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class Side:
    """A part of a thread's stack: `kernel`, `x86`, `x64` or `wow64`. `ending` says why it ends early, or is empty.

    `bounds` are those that the TEB records.
    """

    label: str
    target: Target
    frames: tuple[Frame, ...]
    ending: str = ""
    bounds: StackBounds | None = None


class ThreadWalker:
    """Walks the stacks of threads."""

    def __init__(self, machine: Machine, reader: ProcessReader, view: Wow64View) -> None:
        """Take the machine and what reads its processes."""
        self._machine = machine
        self._reader = reader
        self._view = view
        self._targets = KernelTargets(machine, reader.kernel)
        self._walker = KernelWalker(machine)

    def kernel_target(self, process: Process | None) -> Target:
        """Return the kernel as a process sees it (None: one without user-mode memory)."""
        return self._targets.target(None if process is None else process.pages)

    def sides(self, process: Process | None, thread: Thread, facts: ThreadFacts) -> Iterator[Side]:
        """Yield the parts of the stack of `thread`, innermost first; `process` is None for one without user memory."""
        kernel = self.kernel_target(process)
        context = self._reader.threads.processors.context(thread.address) if facts.is_running else None
        side = self._kernel_side(kernel, thread, facts, context)
        is_in_user = context is not None and context.cs & _USER_MODE == _USER_MODE
        if not is_in_user:
            yield Side("kernel", kernel, side.frames, side.reason)
        if process is None or not thread.teb:
            return
        if facts.is_running and context is None:
            return
        yield from self._user_sides(process, thread)

    def _kernel_side(self, target: Target, thread: Thread, facts: ThreadFacts, context: Context | None) -> KernelSide:
        if facts.is_running:
            return self._running_side(target, thread, context)
        base, pointer = thread.initial_stack, thread.kernel_stack
        if facts.is_resident == 0:
            return KernelSide((), "the kernel stack is paged out")
        if not pointer or not 0 < base - pointer < _MAX_KERNEL_STACK:
            return KernelSide((), f"KernelStack {pointer:#x} is not on the kernel stack that ends at {base:#x}")
        start = read_switch_frame(self._machine, pointer)
        if start is None:
            return KernelSide((), f"the kernel stack at {pointer:#x} is not readable")
        if not target.images.is_code(start.registers.ip):
            return KernelSide((), f"there is no switch frame at {pointer:#x}")
        return self._walk_kernel(target, start, StackBounds(pointer & -PAGE_SIZE, base), thread, is_interrupted=False)

    def _running_side(self, target: Target, thread: Thread, context: Context | None) -> KernelSide:
        if context is None:
            return KernelSide((), IS_RUNNING)
        base = thread.initial_stack
        bounds = StackBounds(max(base - _MAX_KERNEL_STACK, 0), base)
        if not bounds.contains(context.registers.sp):
            return KernelSide((), "the registers of its processor are not those of this thread")
        return self._walk_kernel(target, SwitchFrame(context.registers), bounds, thread, is_interrupted=True)

    def _walk_kernel(
        self, target: Target, start: SwitchFrame, bounds: StackBounds, thread: Thread, *, is_interrupted: bool
    ) -> KernelSide:
        frame = self._reader.threads.trap_frame(thread)
        trap = frame.address if frame is not None and bounds.contains(frame.address) else 0
        return self._walker.walk(target, start, bounds, trap, is_interrupted=is_interrupted)

    def _user_sides(self, process: Process, thread: Thread) -> Iterator[Side]:
        if process.wow64 is None or self._view is not Wow64View.X86:
            yield self._user_side(process, thread, process.native)
        if process.wow64 is not None and self._view is not Wow64View.NATIVE:
            yield self._user_side(process, thread, process.wow64)

    def _user_side(self, process: Process, thread: Thread, target: Target) -> Side:
        reader, is_wow64 = self._reader, target is process.wow64
        target.meter.begin_thread()
        label = "wow64" if is_wow64 else target.arch.value
        try:
            stack = reader.wow64_stack(process, thread) if is_wow64 else reader.stack(process, thread)
            stack = stack if is_wow64 else reader.completed(thread, stack)
        except (NoStack, MemoryUnreadable) as reason:
            return Side(label, target, (), str(reason))
        if stack.registers is None:
            return Side(label, target, (), stack.missing, stack.bounds)
        walk = target.unwinder.walk(stack.registers, current_stack(target, stack).bounds)
        ending = "" if walk.is_complete else f"{walk.end.value} {walk.detail}".rstrip()
        return Side(label, target, walk.frames, ending, stack.bounds)
