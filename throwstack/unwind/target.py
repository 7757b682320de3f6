# SPDX-License-Identifier: Apache-2.0
"""A process as one architecture sees it, and a thread of it: what everything above unwinding works on."""

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
    """What the packages of `throwstack.unwind` offer."""

    def walk(self, registers: Registers, stack: StackBounds, *, trust: Trust = Trust.CONTEXT) -> Walk:
        """Unwind from `registers` until the thread's start, the stack's end or a reason to stop."""
        ...


@dataclass(frozen=True, slots=True)
class Target:
    """The code and memory of a process, as x86 or as x64 code sees it. A WoW64 process is two targets.

    `meter` counts the work on its threads, one after the other.
    """

    arch: Arch
    memory: Memory
    images: ImageMap
    symbols: Symbols
    unwinder: Unwinder
    meter: Meter = field(default_factory=Meter, repr=False, compare=False)

    def walk(self, registers: Registers, stack: StackBounds, *, trust: Trust = Trust.CONTEXT) -> Walk:
        """Unwind as `unwinder` does, for a search; once the budget of frames is spent, no further than the first."""
        frames = self.meter.budgets.frames
        if registers.gpr[SP] is not None and not self.meter.left(frames):
            self.meter.refuse(frames)
            return Walk((_first_frame(registers, trust),), End.WORK_LIMIT, "")
        walk = self.unwinder.walk(registers, stack, trust=trust)
        self.meter.take(frames, min(len(walk.frames), self.meter.left(frames)))
        return walk


def guarded_walk(walk: Callable[[Registers, StackBounds], Walk], registers: Registers, stack: StackBounds) -> Walk:
    """Return what `walk` finds from `registers`, all of which are known.

    Never raises: a walk that fails ends with the first frame and `End.FAULT`, its detail says why.
    """
    problems: list[str] = []
    with Guard(problems.append):
        return walk(registers, stack)
    return Walk((_first_frame(registers, Trust.CONTEXT),), End.FAULT, problems[0])


def _first_frame(registers: Registers, trust: Trust) -> Frame:
    return Frame(registers, registers.sp, None, None, trust, is_interrupted=True)


@dataclass(frozen=True, slots=True)
class ThreadStack:
    """A thread's stack in a target, and the user-mode registers with which it will go on.

    `registers` is None where they could not be read; `missing` says what could not be, and why. `exception_list` is,
    on x86, the address of the thread's first exception registration (fs:[0], kept in its TEB); None where it is not
    known.
    """

    bounds: StackBounds
    registers: Registers | None
    missing: str = ""
    exception_list: int | None = None


_SWITCHED_STACK = 1 << 20


def current_stack(target: Target, stack: ThreadStack) -> ThreadStack:
    """Return the stack the thread is on: a fiber, or code that switched stacks, is not on the one of its TEB."""
    if stack.registers is None or stack.bounds.contains(stack.registers.sp):
        return stack
    bounds = stack_around(target.memory, stack.registers.sp)
    return stack if bounds is None else replace(stack, bounds=bounds)


def stack_around(memory: Memory, sp: int) -> StackBounds | None:
    """Return the memory that can be read from the page of `sp` on, as a stack, or None if that page cannot."""
    start = sp & -PAGE_SIZE
    size = len(memory.read_available(start, _SWITCHED_STACK))
    return StackBounds(start, start + size) if size else None
