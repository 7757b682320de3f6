# SPDX-License-Identifier: Apache-2.0
"""Writes a line of the trace for each step of an x64 walk: which rule was applied to the frame, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from throwstack.core.frames import Frame, StackBounds
from throwstack.core.stop import Stop
from throwstack.unwind import trace
from throwstack.unwind.walk import Step, Stepper


@dataclass(frozen=True, slots=True)
class Traced:
    """A stepper that does what `stepper` does, and says so. `rule_of` names the rule that applies to a frame."""

    stepper: Stepper[Step]
    rule_of: Callable[[Step], str]

    def step(self, at: Step, stack: StackBounds) -> Step | Stop:
        """Return the caller of the frame `at`, or why none was found, after a line about it."""
        outcome = self.stepper.step(at, stack)
        trace.step(at.registers.ip, self.rule_of(at), _in_words(outcome))
        return outcome

    def frame(self, at: Step, return_address: int | None, slot: int | None) -> Frame:
        """Return the `Frame` of `at`."""
        return self.stepper.frame(at, return_address, slot)


def _in_words(outcome: Step | Stop) -> str:
    if isinstance(outcome, Stop):
        return f"the walk ends: {outcome.end.in_words(outcome.detail)}"
    how = "interrupted at" if outcome.is_interrupted else "returns to"
    where = "" if outcome.slot is None else f" by the word at {outcome.slot:#x}"
    notes = "".join(f"; {text}" for text in dict.fromkeys((outcome.note, outcome.gap)) if text)
    return f"{how} {outcome.registers.ip:#x}{where}, {outcome.trust.value}{notes}"
