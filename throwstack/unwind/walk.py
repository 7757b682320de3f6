# SPDX-License-Identifier: Apache-2.0
"""The loop of a stack walk: it goes from one frame to its caller, until the unwinder gives a reason to stop.

The same loop serves x86 and x64, and user and kernel stacks. Each architecture's unwinder is a `Stepper`, which finds
the caller of one frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from throwstack.core.frames import End, Frame, StackBounds, Trust, Walk
from throwstack.core.registers import SP, Registers
from throwstack.core.stop import Stop
from throwstack.unwind.kept_frames import FIRST, KeptFrames


@dataclass(slots=True)
class Step:
    """A frame that a walk has reached: its registers, how they were found, and the slot that held `registers.ip`.

    `slot` is a stack address; it is None for the frame that a walk starts from. If `is_interrupted` is True, the code
    was interrupted at `registers.ip`. If it is False, the code has made a call, and `registers.ip` is the return
    address. `trust` says how the registers were found, and `note` is a remark to show with the frame. `gap` is empty
    unless the return address of the frame that led here was lost, or this frame is a guess at it: then it says so, and
    no walk through this frame is complete, although it may reach the start of the thread.

    The class is not frozen, because a walk makes a step for each frame, and a frozen one takes four times as long to
    make. Nothing changes a step.
    """

    registers: Registers
    slot: int | None
    trust: Trust
    is_interrupted: bool = False
    note: str = ""
    gap: str = ""


StepT = TypeVar("StepT", bound=Step)


class Stepper(Protocol[StepT]):
    """An architecture's part of the loop. Its steps may be of a subclass of `Step` that has more members."""

    def step(self, at: StepT, stack: StackBounds) -> StepT | Stop:
        """Return the caller of the frame `at`, or a `Stop` that says why none was found."""
        ...

    def frame(self, at: StepT, return_address: int | None, slot: int | None) -> Frame:
        """Return the `Frame` of `at`, given its return address and the stack slot that holds the return address."""
        ...


def steps(stepper: Stepper[StepT], first: StepT, stack: StackBounds, limit: int) -> Iterator[StepT | Stop]:
    """Yield the callers of `first`, innermost first, at most `limit`. If a caller is not found, a `Stop` comes last."""
    at = first
    for _ in range(limit):
        outcome = stepper.step(at, stack)
        yield outcome
        if isinstance(outcome, Stop):
            return
        at = outcome


def is_on(stack: StackBounds, registers: Registers) -> bool:
    """Say whether the stack pointer in `registers` is on `stack` or at its end; True if it is not known."""
    sp = registers.gpr[SP]
    return sp is None or stack.contains(sp, 0)


def walk(stepper: Stepper[StepT], first: StepT, stack: StackBounds, limit: int) -> Walk:
    """Walk outwards from the frame `first`, through at most `limit` frames.

    If a frame on `stack` has interrupted code as its caller whose stack pointer is outside (a trap frame leads from the
    kernel's stack to the user's), the walk ends with `End.STACK_BOUND`. The last frame then has the interrupted address
    as its return address, and the slot that held it. If the return address of a frame was lost (`Step.gap`), a walk
    that reaches the start of the thread ends with `End.LOST_RETURN_ADDRESS`. Of a deep recursion, frames are left out
    (see `kept_frames`).
    """
    kept = KeptFrames()
    step, frame, add = stepper.step, stepper.frame, kept.first.append
    at = first
    gap = first.gap
    for number in range(limit):
        if number == FIRST:
            add = kept.add
        outcome = step(at, stack)
        if isinstance(outcome, Stop):
            add(frame(at, outcome.return_address, outcome.return_slot))
            if gap and outcome.end is End.THREAD_START:
                return Walk(kept.frames(), End.LOST_RETURN_ADDRESS, gap, gap)
            return Walk(kept.frames(), outcome.end, outcome.detail, gap)
        gap = gap or outcome.gap
        registers = outcome.registers
        add(frame(at, registers.ip, outcome.slot))
        if outcome.is_interrupted and is_on(stack, at.registers) and not is_on(stack, registers):
            detail = f"interrupted at {registers.ip:#x} on another stack, at {registers.sp:#x}"
            return Walk(kept.frames(), End.STACK_BOUND, detail, gap)
        at = outcome
    return Walk(kept.frames(), End.FRAME_LIMIT, str(limit), gap)
