# SPDX-License-Identifier: Apache-2.0
"""Chooses between rules that disagree about a frame's caller.

A candidate's score is the weight of the rule that found it, plus how well its return address fits, plus a bonus when an
independent rule finds the same slot, less its doubts. Only two things matter: the order of the scores, and whether a
score is above zero. A candidate at or below zero is not believed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from throwstack.core.frames import Trust
from throwstack.unwind.x86.call_frame import Caller
from throwstack.unwind.x86.return_address import Fit


class Rule(Enum):
    """The rules that find callers."""

    FRAME_DATA = "FrameData"
    FPO = "FPO"
    RECORD_HERE = "FrameData or FPO, where the thread was stopped"
    """Records describe neither epilogues nor every step of a prologue, and a thread may be stopped in one."""
    FUNCTION = "function start, from symbols"
    EPILOGUE = "code followed to its return, without a branch or a call"
    FORWARD = "code followed to its return"
    GUESSED_START = "function start, guessed"
    CALLED_NOWHERE = "call of an address that is not code"
    FRAME_DATA_SEARCH = "FrameData or FPO, and a search"
    REGISTRATION = "exception registration"
    FRAME_POINTER = "frame pointer"
    SCAN = "scan"
    CALLBACK = "system call that the kernel called back from"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A caller, the rule that found it, and how its return address fits.

    `has_program` says that it comes from a FrameData program. `trust` is the label of the frame that it leads to.
    """

    rule: Rule
    caller: Caller
    fit: Fit
    note: str = ""
    has_program: bool = False
    trust: Trust = Trust.SCAN


_RULE = {
    Rule.CALLBACK: 60,
    Rule.FRAME_DATA: 60,
    Rule.EPILOGUE: 52,
    Rule.FUNCTION: 50,
    Rule.FPO: 45,
    Rule.RECORD_HERE: 45,
    Rule.FORWARD: 40,
    Rule.GUESSED_START: 30,
    Rule.CALLED_NOWHERE: 40,
    Rule.FRAME_DATA_SEARCH: 25,
    Rule.FRAME_POINTER: 20,
    Rule.REGISTRATION: 15,
    Rule.SCAN: 10,
}
_FIT = {
    Fit.CONFIRMED: 45,
    Fit.CALLS_FUNCTION: 30,
    Fit.POSSIBLE: 15,
    Fit.UNREADABLE: 0,
    Fit.OUTERMOST: -10,
    Fit.ZERO: -20,
    Fit.CONTRADICTED: -50,
    Fit.NOT_A_RETURN: -60,
    Fit.NOT_CODE: -100,
}
_DOUBT = 10
_PAST_HELPER = 15
"""The changes that a helper is going to make to its caller's frame are not in memory yet."""
_INCONSISTENT = 40
_AGREEMENT = 25
_INDEPENDENT = frozenset(
    {Rule.FRAME_DATA, Rule.FPO, Rule.RECORD_HERE, Rule.FUNCTION, Rule.EPILOGUE, Rule.FORWARD, Rule.GUESSED_START}
)
_RECORDS = frozenset({Rule.FRAME_DATA, Rule.FPO, Rule.RECORD_HERE})
_DECODED = frozenset({Rule.FUNCTION, Rule.EPILOGUE, Rule.FORWARD})


def score(candidate: Candidate, others: Iterable[Candidate]) -> int:
    """Return the score of a candidate among `others`."""
    total = _RULE[candidate.rule] + _FIT[candidate.fit] - _DOUBT * candidate.caller.doubt
    if candidate.caller.is_past_helper:
        total -= _PAST_HELPER
    if not candidate.caller.is_consistent:
        total -= _INCONSISTENT
    if candidate.rule in _INDEPENDENT and any(_agrees(candidate, other) for other in others):
        total += _AGREEMENT
    return total


def _agrees(candidate: Candidate, other: Candidate) -> bool:
    return (
        other.rule in _INDEPENDENT
        and other.rule is not candidate.rule
        and other.caller.slot == candidate.caller.slot
        and other.caller.is_consistent
        and not (other.caller.doubt or candidate.caller.doubt)
    )


def best(candidates: list[Candidate]) -> Candidate | None:
    """Return the candidate with the highest score (the first of equals), or None if none is believed."""
    ranked = sorted(candidates, key=lambda candidate: -score(candidate, candidates))
    return ranked[0] if ranked and score(ranked[0], candidates) > 0 else None


def label(candidate: Candidate, others: Iterable[Candidate] = ()) -> Trust:
    """Return the label of the frame that a candidate leads to, no better than the evidence in `others` allows.

    For example, if decoded code contradicts a FrameData program, the frame is not labelled `cfi` but `prologue`.
    """
    if candidate.rule in _RECORDS:
        decoded = [other for other in others if other.rule in _DECODED]
        if decoded and not any(_agrees(candidate, other) for other in decoded):
            return Trust.PROLOGUE
        return Trust.CFI if candidate.has_program else Trust.FPO
    if candidate.rule in _DECODED:
        programs = {other.has_program for other in others if other.rule in _RECORDS and _agrees(candidate, other)}
        return Trust.CFI if True in programs else Trust.FPO if programs else Trust.PROLOGUE
    if candidate.rule is Rule.FRAME_POINTER:
        return Trust.FRAME_POINTER if candidate.fit is Fit.CONFIRMED else Trust.SCAN
    if candidate.rule in {Rule.SCAN, Rule.REGISTRATION, Rule.FRAME_DATA_SEARCH, Rule.CALLED_NOWHERE}:
        return Trust.PROLOGUE if candidate.fit is Fit.CONFIRMED else Trust.SCAN
    return Trust.PROLOGUE
