# SPDX-License-Identifier: Apache-2.0
"""`Target` is a process as code of one architecture sees it, and `ThreadStack` is the stack of one of its threads.

The packages that search stacks and report on threads take these two as their input.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from throwstack.core.budgets import Meter
from throwstack.core.frames import End, Frame, StackBounds, Trust, Walk
from throwstack.core.guard import Guard
from throwstack.core.memory import PAGE_SIZE, Memory
from throwstack.core.regions import Regions
from throwstack.core.registers import SP, Arch, Registers
from throwstack.images.image import ImageMap
from throwstack.names.symbols import Symbols
from throwstack.unwind.code_outside import CodeOutside


class Unwinder(Protocol):
    """What an unwinder of one architecture provides; `throwstack.unwind.x86` and `.x64` each implement one."""

    def walk(self, registers: Registers, stack: StackBounds, *, trust: Trust = Trust.CONTEXT) -> Walk:
        """Unwind from `registers` until the start of the thread, the end of `stack`, or another reason to stop.

        `trust` says how the registers of the first frame were found.
        """
        ...


@dataclass(frozen=True, slots=True)
class Target:
    """The code and memory of a process, as x86 or x64 code sees it.

    A WoW64 process is two targets, one for its 32-bit code and one for its 64-bit code. `images` are the modules loaded
    in `memory`, `symbols` gives the names of their functions, and `unwinder` walks their stacks. `meter` limits the
    work on the process's threads, which are examined one after the other. `regions` are the regions of its memory;
    None if they are not known. `outside` is what is known of code outside the images.
    """

    arch: Arch
    memory: Memory
    images: ImageMap
    symbols: Symbols
    unwinder: Unwinder
    meter: Meter = field(default_factory=Meter, repr=False, compare=False)
    regions: Regions | None = field(default=None, repr=False, compare=False)
    outside: CodeOutside | None = field(default=None, repr=False, compare=False)

    def is_code(self, address: int) -> bool:
        """Say whether `address` is known to be code: in an image's, or in code outside the images."""
        return self.images.is_code(address) or (self.outside is not None and self.outside.is_known_code(address))

    def keeps_frame_pointer(self, address: int) -> bool:
        """Say whether a source of code outside the images says that the code at `address` keeps a frame pointer."""
        if self.outside is None or self.images.find(address) is not None:
            return False
        known = self.outside.function(address)
        return known is not None and known.has_frame_pointer

    def walk(self, registers: Registers, stack: StackBounds, *, trust: Trust = Trust.CONTEXT) -> Walk:
        """Unwind as `unwinder` does, as long as the budget of frames for this thread and process is not spent.

        Once the budget is spent, the walk has the first frame only, and its end is `End.WORK_LIMIT`.
        """
        frames = self.meter.budgets.frames
        if registers.gpr[SP] is not None and not self.meter.left(frames):
            self.meter.refuse(frames)
            return Walk((_first_frame(registers, trust),), End.WORK_LIMIT, "")
        walk = self.unwinder.walk(registers, stack, trust=trust)
        self.meter.take(frames, min(len(walk.frames), self.meter.left(frames)))
        return walk


def guarded_walk(walk: Callable[[Registers, StackBounds], Walk], registers: Registers, stack: StackBounds) -> Walk:
    """Return `walk(registers, stack)`; if that raises an exception, return a walk that says so.

    The stack pointer in `registers` must be known. If `walk` raises an exception, the returned walk has the first frame
    only, its end is `End.FAULT`, and its detail is the reason.
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

    `bounds` is the stack's address range. `registers` is None if the registers could not be read. `missing` says what
    could not be read and why; it is empty if nothing is missing. `exception_list` is, on x86, the address of the
    thread's first exception registration (fs:[0], kept in the TEB); it is None on x64, or if it is not known.
    """

    bounds: StackBounds
    registers: Registers | None
    missing: str = ""
    exception_list: int | None = None


_SWITCHED_STACK = 1 << 20


def current_stack(target: Target, stack: ThreadStack) -> ThreadStack:
    """Return `stack` with the bounds of the memory that the stack pointer is in.

    A thread does not always run on the stack that its TEB records. For example, a goroutine of Go has a stack of its
    own, and Go's runtime switches to it by loading the stack pointer. If the stack pointer is outside the recorded
    bounds, the new bounds are those of `stack_around`. If it is inside or unknown, `stack` is returned unchanged.
    """
    if stack.registers is None or stack.bounds.contains(stack.registers.sp):
        return stack
    bounds = stack_around(target.memory, stack.registers.sp)
    return stack if bounds is None else replace(stack, bounds=bounds)


def stack_around(memory: Memory, sp: int) -> StackBounds | None:
    """Return the readable memory from the page of `sp` on, at most 1 MiB, as a stack; None if that page is absent."""
    start = sp & -PAGE_SIZE
    size = len(memory.read_available(start, _SWITCHED_STACK))
    return StackBounds(start, start + size, is_recorded=False) if size else None


def may_go_on(target: Target, stack: StackBounds) -> bool:
    """Say whether a stack may go on after `stack.base`, on pages that cannot be read.

    It may if nothing records its bounds (`stack_around` made them), and what was readable ended before the region of
    memory did, or before 1 MiB if the region is not known. All pages of a fiber's stack from the stack pointer to the
    end of its region were written, so that one that cannot be read is lost. A stack in a part of a larger region, such
    as a goroutine's, may have ended long before.
    """
    if stack.is_recorded or stack.base - stack.limit >= _SWITCHED_STACK:
        return False
    region = None if target.regions is None else target.regions.find(stack.limit)
    return region is None or stack.base < region.end
