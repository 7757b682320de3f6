# SPDX-License-Identifier: Apache-2.0
"""`Target` is a process as code of one architecture sees it, `ThreadStack` the stack of one of its threads.

The rooms above this one work with these two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from throwstack.core.budgets import Meter
from throwstack.core.frames import End, Frame, StackBounds, Trust, Walk
from throwstack.core.guard import Guard
from throwstack.core.memory import PAGE_SIZE, Memory
from throwstack.core.registers import SP, Arch, Registers
from throwstack.images.image import ImageMap
from throwstack.names.symbols import Symbols


class Unwinder(Protocol):
    """An unwinder of one architecture, as the packages of `throwstack.unwind` have it."""

    def walk(self, registers: Registers, stack: StackBounds, *, trust: Trust = Trust.CONTEXT) -> Walk:
        """Unwind from `registers` to the start of the thread, the end of the stack, or another reason to stop.

        `trust` says how the first frame was found.
        """
        ...


@dataclass(frozen=True, slots=True)
class Target:
    """The code and memory of a process, as x86 or x64 code sees it. A WoW64 process is two targets.

    `meter` counts the work on the process's threads, one after the other.
    """

    arch: Arch
    memory: Memory
    images: ImageMap
    symbols: Symbols
    unwinder: Unwinder
    meter: Meter = field(default_factory=Meter, repr=False, compare=False)

    def walk(self, registers: Registers, stack: StackBounds, *, trust: Trust = Trust.CONTEXT) -> Walk:
        """Unwind as `unwinder` does, within the budget of frames.

        Once that is spent, the walk has the first frame only and the end `End.WORK_LIMIT`.
        """
        frames = self.meter.budgets.frames
        if registers.gpr[SP] is not None and not self.meter.left(frames):
            self.meter.refuse(frames)
            return Walk((_first_frame(registers, trust),), End.WORK_LIMIT, "")
        walk = self.unwinder.walk(registers, stack, trust=trust)
        self.meter.take(frames, min(len(walk.frames), self.meter.left(frames)))
        return walk


def guarded_walk(walk: Callable[[Registers, StackBounds], Walk], registers: Registers, stack: StackBounds) -> Walk:
    """Return the walk from `registers`, whose stack pointer is known. Never raises.

    A walk that fails has the first frame only and the end `End.FAULT`; its detail says why.
    """
    problems: list[str] = []
    with Guard(problems.append):
        return walk(registers, stack)
    return Walk((_first_frame(registers, Trust.CONTEXT),), End.FAULT, problems[0])


def _first_frame(registers: Registers, trust: Trust) -> Frame:
    return Frame(registers, registers.sp, None, None, trust, is_interrupted=True)


@dataclass(frozen=True, slots=True)
class ThreadStack:
    """A thread's stack in a target, and the user-mode registers with which the thread will go on.

    `registers` is None if they could not be read. `missing` says what could not be read and why; empty if nothing is
    missing. `exception_list` is, on x86, the address of the thread's first exception registration (fs:[0], kept in its
    TEB), None if that is not known.
    """

    bounds: StackBounds
    registers: Registers | None
    missing: str = ""
    exception_list: int | None = None


_SWITCHED_STACK = 1 << 20


def current_stack(target: Target, stack: ThreadStack) -> ThreadStack:
    """Return the stack that the thread is on.

    It is not always the stack of the TEB. Example: a goroutine of Go has a stack of its own, and Go's runtime switches
    to it by loading the stack pointer. Then the stack is the readable memory from the stack pointer on.
    """
    if stack.registers is None or stack.bounds.contains(stack.registers.sp):
        return stack
    bounds = stack_around(target.memory, stack.registers.sp)
    return stack if bounds is None else replace(stack, bounds=bounds)


def stack_around(memory: Memory, sp: int) -> StackBounds | None:
    """Return the readable memory from the page of `sp` on as a stack, at most 1 MiB; None if that page is absent."""
    start = sp & -PAGE_SIZE
    size = len(memory.read_available(start, _SWITCHED_STACK))
    return StackBounds(start, start + size) if size else None
