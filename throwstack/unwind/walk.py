# SPDX-License-Identifier: Apache-2.0
"""The walk loop goes from registers outwards, step by step, until an unwinder gives a reason to stop.

There is one loop for x86 and x64, for user and kernel stacks. An unwinder of an architecture is a `Stepper`: it finds
the caller of one frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from throwstack.core.frames import End, Frame, StackBounds, Trust, Walk
from throwstack.core.registers import Registers
from throwstack.core.stop import Stop


@dataclass(frozen=True, slots=True)
class Step:
    """The result of one step: a frame's registers, how they were found, and the slot that held `registers.ip`.

    `slot` is None for the frame that a walk starts from. If `is_interrupted`, the code was interrupted at
    `registers.ip`. Otherwise it has made a call, and `registers.ip` is the return address.
    """

    registers: Registers
    slot: int | None
    trust: Trust
    is_interrupted: bool = False
    note: str = ""


StepT = TypeVar("StepT", bound=Step)


class Stepper(Protocol[StepT]):
    """An architecture's part of the loop. Its steps may have more members than a `Step`."""

    def step(self, at: StepT, stack: StackBounds) -> StepT | Stop:
        """Return the caller of the frame that `at` has reached, or why there is none."""
        ...

    def frame(self, at: StepT, return_address: int | None, slot: int | None) -> Frame:
        """Return the frame that `at` has reached, given its return address and the slot that holds it."""
        ...


def steps(stepper: Stepper[StepT], first: StepT, stack: StackBounds, limit: int) -> Iterator[StepT | Stop]:
    """Yield at most `limit` steps outwards from `first`. If a step fails, its stop is yielded last."""
    at = first
    for _ in range(limit):
        outcome = stepper.step(at, stack)
        yield outcome
        if isinstance(outcome, Stop):
            return
        at = outcome


def walk(stepper: Stepper[StepT], first: StepT, stack: StackBounds, limit: int) -> Walk:
    """Walk from the frame of `first`, through at most `limit` frames.

    An interruption may lead off `stack`, as a trap frame leads from the kernel's stack to the user's. That ends the
    walk with `End.STACK_BOUND`, and the last frame has the return address and the slot that led there.
    """
    frames: list[Frame] = []
    at = first
    for outcome in steps(stepper, first, stack, limit):
        if isinstance(outcome, Stop):
            frames.append(stepper.frame(at, outcome.return_address, outcome.return_slot))
            return Walk(tuple(frames), outcome.end, outcome.detail)
        registers = outcome.registers
        frames.append(stepper.frame(at, registers.ip, outcome.slot))
        if outcome.is_interrupted and not stack.contains(registers.sp, 0):
            detail = f"interrupted at {registers.ip:#x} on another stack, at {registers.sp:#x}"
            return Walk(tuple(frames), End.STACK_BOUND, detail)
        at = outcome
    return Walk(tuple(frames), End.FRAME_LIMIT, str(limit))
