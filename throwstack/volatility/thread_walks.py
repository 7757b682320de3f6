# SPDX-License-Identifier: Apache-2.0
"""Walks whole stacks of threads: the kernel's frames, then the user-mode frames of each selected side.

A thread of a WoW64 process has a 64-bit and a 32-bit side in user mode, each with its own stack; every other thread has
one user-mode side.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from throwstack.core.contexts import Context
from throwstack.core.frames import Frame, StackBounds
from throwstack.core.memory import PAGE_SIZE, MemoryUnreadable
from throwstack.core.sides import Side, Sides
from throwstack.unwind.target import Target, current_stack
from throwstack.volatility.kernel_stack.kernel_target import KernelTargets
from throwstack.volatility.kernel_stack.kernel_walk import KernelSide, KernelWalker
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.objects.switch_frame import SwitchFrame, read_switch_frame
from throwstack.volatility.objects.thread_facts import ThreadFacts
from throwstack.volatility.objects.threads import IS_RUNNING, Thread
from throwstack.volatility.objects.trap_frame import USER_MODE
from throwstack.volatility.processes import NoStack, Process, ProcessReader

_MAX_KERNEL_STACK = 1 << 20


@dataclass(frozen=True, slots=True)
class StackPart:
    """The frames of a thread in the kernel, in native user-mode code, or in 32-bit code of a WoW64 process.

    `ending` says why the frames end early, and is empty if they do not. `bounds` are the stack's bounds in the TEB.
    """

    side: Side
    target: Target
    frames: tuple[Frame, ...]
    ending: str = ""
    bounds: StackBounds | None = None

    @property
    def label(self) -> str:
        """Return the word for the side, such as `kernel`."""
        return self.side.value


class ThreadWalker:
    """Walks the stacks of threads."""

    def __init__(self, machine: Machine, reader: ProcessReader, wanted: Sides) -> None:
        """Keep the machine and the reader of its processes.

        `wanted` selects the user-mode stacks of WoW64 processes to walk.
        """
        self._machine = machine
        self._reader = reader
        self._wanted = wanted
        self._targets = KernelTargets(machine, reader.kernel)
        self._walker = KernelWalker(machine)

    def kernel_target(self, process: Process | None) -> Target:
        """Return the kernel as `process` sees it; `process` is None if it has no user-mode memory."""
        return self._targets.target(None if process is None else process.pages)

    def sides(self, process: Process | None, thread: Thread, facts: ThreadFacts) -> Iterator[StackPart]:
        """Yield the parts of the thread's stack, innermost first.

        `process` is None if it has no user-mode memory. `facts` are those of the thread.
        """
        kernel = self.kernel_target(process)
        context = self._context(thread, facts)
        side = self._kernel_side(kernel, thread, facts, context)
        is_in_user = context is not None and context.cs & USER_MODE == USER_MODE
        if not is_in_user:
            yield StackPart(Side.KERNEL, kernel, side.frames, side.reason)
        yield from self.user_sides(process, thread, facts)

    def user_sides(self, process: Process | None, thread: Thread, facts: ThreadFacts) -> Iterator[StackPart]:
        """Yield the parts of the thread's stack in user mode, as `sides` does."""
        if process is None or not thread.teb:
            return
        if facts.is_running and self._context(thread, facts) is None:
            return
        for which, target in process.selected(self._wanted):
            yield self._user_side(process, thread, which, target)

    def _context(self, thread: Thread, facts: ThreadFacts) -> Context | None:
        """Return the registers of the processor that runs the thread, or None."""
        return self._reader.threads.processors.context(thread.address) if facts.is_running else None

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
        frame = self._reader.trap_frame(thread)
        trap = frame.address if frame is not None and bounds.contains(frame.address) else 0
        return self._walker.walk(target, start, bounds, trap, is_interrupted=is_interrupted)

    def _user_side(self, process: Process, thread: Thread, side: Side, target: Target) -> StackPart:
        target.meter.begin_thread()
        try:
            stack = self._reader.completed(thread, self._reader.stack(process, thread, side))
        except (NoStack, MemoryUnreadable) as reason:
            return StackPart(side, target, (), str(reason))
        if stack.registers is None:
            return StackPart(side, target, (), stack.missing, stack.bounds)
        walk = target.unwinder.walk(stack.registers, current_stack(target, stack).bounds)
        ending = "" if walk.is_complete else walk.end.in_words(walk.detail)
        return StackPart(side, target, walk.frames, ending, stack.bounds)
