# SPDX-License-Identifier: Apache-2.0
"""Chooses between rules that disagree about a frame's caller.

A candidate is a caller that a rule has found. Its score is the sum of the weight of the rule, a number for how well its
return address fits the frame (see `Fit`), and a bonus if an independent rule finds the return address in the same
stack slot. Guessed stack adjustments and contradictory registers lower it. Only two things matter: the order of the
scores, and whether a score is above zero. A candidate whose score is zero or less is not believed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from throwstack.core.frames import Trust
from throwstack.unwind.x86.call_frame import Caller
from throwstack.unwind.x86.return_address import Fit


class Rule(Enum):
    """The rules, which are the ways to find the caller of a frame."""

    FRAME_DATA = "FrameData"
    FPO = "FPO"
    RECORD_HERE = "FrameData or FPO, where the thread was stopped"
    """A record of the PDB is used at the instruction at which a thread was stopped, and not at a return address.

    Such a result weighs less, because the thread may have been stopped in a prologue or an epilogue. Records describe
    neither epilogues nor every step of a prologue. The rule also stands for a return address after a call of a compiler
    helper whose effects are known already.
    """
    FUNCTION = "function start, from symbols"
    EPILOGUE = "code followed to its return, without a branch or a call"
    FORWARD = "code followed to its return"
    GUESSED_START = "function start, guessed"
    CALLED_NOWHERE = "call of an address that is not code"
    FRAME_DATA_SEARCH = "FrameData or FPO, and a search"
    REGISTRATION = "exception registration"
    FRAME_POINTER = "frame pointer"
    GENERATED_CHAIN = "chain of frame pointers through code outside the images"
    SCAN = "scan"
    CALLBACK = "system call that the kernel called back from"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A caller that a rule has found, with the facts by which it is compared with those of other rules.

    `rule` is the rule that found `caller`, and `fit` says how well the return address serves as the one of the frame.
    `note` is a remark for the report. `has_program` is True if the caller was computed by a FrameData program of a PDB.
    `trust` is the label of the caller's frame: how reliable the step to it is. `gap` says what was overwritten if the
    caller is not the frame's own but one further out (see `throwstack.unwind.walk.Step`).
    """

    rule: Rule
    caller: Caller
    fit: Fit
    note: str = ""
    has_program: bool = False
    trust: Trust = Trust.SCAN
    gap: str = ""


_RULE = {
    Rule.CALLBACK: 60,
    Rule.FRAME_DATA: 60,
    Rule.EPILOGUE: 52,
    Rule.FUNCTION: 50,
    Rule.FPO: 45,
    Rule.RECORD_HERE: 45,
    Rule.FORWARD: 40,
    Rule.GENERATED_CHAIN: 35,
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
    Fit.OUTSIDE: 10,
    Fit.DIVERTED: 5,
    Fit.UNREADABLE: 0,
    Fit.OUTERMOST: -10,
    Fit.ZERO: -20,
    Fit.CONTRADICTED: -50,
    Fit.NOT_A_RETURN: -60,
    Fit.NOT_CODE: -100,
}
_DOUBT = 10
_PAST_HELPER = 15
"""What is subtracted from the score of a caller whose registers include the effects of a compiler helper.

The helper has not finished, so that its changes to the caller's frame are predicted and not yet in memory.
"""
_INCONSISTENT = 40
_AGREEMENT = 25
_INDEPENDENT = frozenset(
    {Rule.FRAME_DATA, Rule.FPO, Rule.RECORD_HERE, Rule.FUNCTION, Rule.EPILOGUE, Rule.FORWARD, Rule.GUESSED_START}
)
_RECORDS = frozenset({Rule.FRAME_DATA, Rule.FPO, Rule.RECORD_HERE})
_DECODED = frozenset({Rule.FUNCTION, Rule.EPILOGUE, Rule.FORWARD})


def score(candidate: Candidate, others: Iterable[Candidate]) -> int:
    """Return the score of a candidate.

    `others` are the candidates of all rules for the same frame. A higher score is better. The module's text says what
    the score consists of.
    """
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
    """Return the candidate with the highest score (the first of equals), or None if no score is above zero."""
    ranked = sorted(candidates, key=lambda candidate: -score(candidate, candidates))
    return ranked[0] if ranked and score(ranked[0], candidates) > 0 else None


def label(candidate: Candidate, others: Iterable[Candidate] = ()) -> Trust:
    """Return the trust label of the caller's frame that `candidate` describes.

    `others` are the candidates of all rules for the same frame. They can make the label better or worse. For example,
    if decoded code contradicts a FrameData program, the frame is not labelled `cfi` but `prologue`.
    """
    others = list(others)
    if candidate.rule is Rule.GENERATED_CHAIN or any(
        other.rule is Rule.GENERATED_CHAIN and other.caller.slot == candidate.caller.slot for other in others
    ):
        return Trust.FRAME_POINTER
    if candidate.rule in _RECORDS:
        return _label_of_record(candidate, others)
    if candidate.rule in _DECODED:
        programs = {other.has_program for other in others if other.rule in _RECORDS and _agrees(candidate, other)}
        return Trust.CFI if True in programs else Trust.FPO if programs else Trust.PROLOGUE
    if candidate.rule is Rule.FRAME_POINTER:
        return Trust.FRAME_POINTER if candidate.fit is Fit.CONFIRMED else Trust.SCAN
    if candidate.rule in {Rule.SCAN, Rule.REGISTRATION, Rule.FRAME_DATA_SEARCH, Rule.CALLED_NOWHERE}:
        return Trust.PROLOGUE if candidate.fit is Fit.CONFIRMED else Trust.SCAN
    return Trust.PROLOGUE


def _label_of_record(candidate: Candidate, others: Iterable[Candidate]) -> Trust:
    decoded = [other for other in others if other.rule in _DECODED]
    if decoded and not any(_agrees(candidate, other) for other in decoded):
        return Trust.PROLOGUE
    return Trust.CFI if candidate.has_program else Trust.FPO
