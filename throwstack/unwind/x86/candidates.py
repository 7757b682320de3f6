# SPDX-License-Identifier: Apache-2.0
"""Chooses between rules that disagree about a frame's caller.

A candidate is a caller that a rule has found. Candidates are ordered by four questions, each of which decides only
where the ones before do not:

1. Which tier is it in? The tier (see `Tier`) weighs the kind of rule together with how well the return address fits.
2. Does an independent rule find the return address in the same slot?
3. How well does the return address fit? The order is that of `Fit`.
4. How many stack adjustments were guessed for it, and which rule found it? The order is that of `Rule`.

A candidate without a tier is not believed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from throwstack.core.frames import Trust
from throwstack.core.registers import SP
from throwstack.unwind.x86.call_frame import Caller, Place
from throwstack.unwind.x86.decode import MASK
from throwstack.unwind.x86.return_address import Fit


class Rule(Enum):
    """The rules, which are the ways to find the caller of a frame, best first."""

    CALLBACK = "system call that the kernel called back from"
    FRAME_DATA = "FrameData"
    EPILOGUE = "code followed to its return, without a branch or a call"
    FUNCTION = "function start, from symbols"
    FPO = "FPO"
    RECORD_HERE = "FrameData or FPO, where the thread was stopped"
    """A record of the PDB is used at the instruction at which a thread was stopped, and not at a return address.

    Such a result weighs less, because the thread may have been stopped in a prologue or an epilogue. Records describe
    neither epilogues nor every step of a prologue. The rule also stands for a return address after a call of a compiler
    helper whose effects are known already.
    """
    CALLED_NOWHERE = "call of an address that is not code"
    FORWARD = "code followed to its return"
    GENERATED_CHAIN = "chain of frame pointers through code outside the images"
    GUESSED_START = "function start, guessed"
    FRAME_DATA_SEARCH = "FrameData or FPO, and a search"
    FRAME_POINTER = "frame pointer"
    REGISTRATION = "exception registration"
    SCAN = "scan"


class Tier(Enum):
    """How far a candidate is believed, best first."""

    CERTAIN = "the return address is in the slot where the called function has it"
    EXACT = "found by a record or by following code, and the return address is after a call"
    OUTERMOST = "found by a record or by following code: the first frame of the thread"
    PLAUSIBLE = "found by a weaker rule, and the return address is after a call"
    INCONSISTENT = "found by following code, but two registers contradict each other"
    AGREED = "found by two independent rules, but the call before the return address is of another function"
    SCANNED = "the next word on the stack that can be a return address"
    ZERO = "found by a record or by following code, but the return address is 0"
    LAST = "nothing speaks for it but a rule that is seldom wrong"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A caller that a rule has found, with the facts by which it is compared with those of other rules.

    `rule` is the rule that found `caller`, and `fit` says how well the return address serves as the one of the frame.
    `note` is a remark for the report. `has_program` is True if the caller was computed by a FrameData program of a PDB.
    `trust` is the label of the caller's frame: how reliable the step to it is. `gap` says what was overwritten if the
    caller is not the frame's own but one further out (see `throwstack.unwind.walk.Step`). `has_switched` is True if the
    caller is on another stack (see `throwstack.unwind.x86.switched_stack`).
    """

    rule: Rule
    caller: Caller
    fit: Fit
    note: str = ""
    has_program: bool = False
    trust: Trust = Trust.SCAN
    gap: str = ""
    has_switched: bool = False


INDEPENDENT = frozenset(
    {Rule.FRAME_DATA, Rule.FPO, Rule.RECORD_HERE, Rule.FUNCTION, Rule.EPILOGUE, Rule.FORWARD, Rule.GUESSED_START}
)
"""Rules that follow the code of the frame's function, or read its record. If two of them agree, that is evidence."""
_EXACT = INDEPENDENT | {Rule.CALLBACK, Rule.CALLED_NOWHERE, Rule.GENERATED_CHAIN}
_SELDOM_WRONG = frozenset({Rule.FRAME_DATA, Rule.EPILOGUE})
_AFTER_CALL = (Fit.CONFIRMED, Fit.CALLS_FUNCTION, Fit.POSSIBLE, Fit.OUTSIDE, Fit.DIVERTED, Fit.UNREADABLE)
_REFUTED = (Fit.CONTRADICTED, Fit.NOT_A_RETURN, Fit.NOT_CODE)
_TIER_OF_EXACT = {
    **dict.fromkeys(_AFTER_CALL, Tier.EXACT),
    Fit.CONFIRMED: Tier.CERTAIN,
    Fit.OUTERMOST: Tier.OUTERMOST,
    Fit.ZERO: Tier.ZERO,
}
_TIER_OF_WEAK: dict[tuple[Rule | None, Fit], Tier] = {
    (None, Fit.CONFIRMED): Tier.CERTAIN,
    (None, Fit.CALLS_FUNCTION): Tier.PLAUSIBLE,
    **{(Rule.FRAME_DATA_SEARCH, fit): Tier.PLAUSIBLE for fit in (Fit.POSSIBLE, Fit.OUTSIDE, Fit.UNREADABLE)},
    **{(Rule.FRAME_POINTER, fit): Tier.PLAUSIBLE for fit in (Fit.POSSIBLE, Fit.OUTSIDE, Fit.UNREADABLE)},
    (Rule.FRAME_DATA_SEARCH, Fit.OUTERMOST): Tier.LAST,
    (Rule.FRAME_POINTER, Fit.OUTERMOST): Tier.LAST,
    (Rule.SCAN, Fit.POSSIBLE): Tier.SCANNED,
}
_TIERS = {at: rank for rank, at in enumerate(Tier)}
_FITS = {fit: rank for rank, fit in enumerate(Fit)}
_RULES = {rule: rank for rank, rule in enumerate(Rule)}
_RECORDS = frozenset({Rule.FRAME_DATA, Rule.FPO, Rule.RECORD_HERE})
_DECODED = frozenset({Rule.FUNCTION, Rule.EPILOGUE, Rule.FORWARD})
_FROM_START = (Rule.FUNCTION, Rule.GUESSED_START)
_HERE = (Rule.FUNCTION,)


def tier(candidate: Candidate, others: Iterable[Candidate]) -> Tier | None:
    """Return the tier of a candidate, or None if it is not to be believed.

    `others` are the candidates of all rules for the same frame.
    """
    fit, rule = candidate.fit, candidate.rule
    if fit in _REFUTED:
        return _tier_of_refuted(candidate, others)
    if rule not in _EXACT:
        return _TIER_OF_WEAK.get((rule, fit), _TIER_OF_WEAK.get((None, fit)))
    if not candidate.caller.is_consistent:
        return Tier.INCONSISTENT if fit in _AFTER_CALL else None
    # Zeros are everywhere on a stack: one that was reached by a guess must not hide a return address.
    return Tier.PLAUSIBLE if fit is Fit.OUTERMOST and candidate.caller.doubt else _TIER_OF_EXACT[fit]


def _tier_of_refuted(candidate: Candidate, others: Iterable[Candidate]) -> Tier | None:
    if candidate.fit is Fit.NOT_CODE or not candidate.caller.is_consistent:
        return None
    is_agreed = candidate.rule in INDEPENDENT and any(_agrees(candidate, other) for other in others)
    if candidate.fit is Fit.CONTRADICTED:
        return Tier.AGREED if is_agreed else Tier.LAST if candidate.rule in _SELDOM_WRONG else None
    return Tier.LAST if is_agreed and candidate.rule is not Rule.GUESSED_START else None


QUESTIONS = ("its tier", "another rule that agrees", "its fit", "fewer guesses", "its rule")
"""What candidates are compared by, in this order."""
Answers = tuple[int, bool, int, int, int]


def answers(candidate: Candidate, others: Sequence[Candidate]) -> Answers | None:
    """Return the answers to `QUESTIONS` for a candidate, the smaller the better; None if it is not to be believed.

    `others` are the candidates of all rules for the same frame.
    """
    at = tier(candidate, others)
    if at is None:
        return None
    caller = candidate.caller
    is_alone = candidate.rule not in INDEPENDENT or not any(_agrees(candidate, other) for other in others)
    # What a helper that has not finished will do to the frame is predicted, and counts as a guess.
    doubt = caller.doubt + caller.is_past_helper
    return _TIERS[at], is_alone, _FITS[candidate.fit], doubt, _RULES[candidate.rule]


def _agrees(candidate: Candidate, other: Candidate) -> bool:
    return (
        other.rule in INDEPENDENT
        and other.rule is not candidate.rule
        and other.caller.slot == candidate.caller.slot
        and other.caller.is_consistent
        and not (other.caller.doubt or candidate.caller.doubt)
    )


def best(candidates: list[Candidate]) -> Candidate | None:
    """Return the best candidate (the first of equals), or None if none is to be believed."""
    compared = [(answers(candidate, candidates), candidate) for candidate in candidates]
    believed = [(given, candidate) for given, candidate in compared if given is not None]
    return min(believed, key=lambda pair: pair[0])[1] if believed else None


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


def completed(place: Place, found: Candidate, candidates: Sequence[Candidate]) -> Candidate:
    """Return the best candidate, with its unknown registers filled in and with its trust label.

    `found` is the best of `candidates`, and `place` is the frame. Unknown registers are taken from candidates with the
    return address in the same slot. In two cases a register is taken from another candidate although `found` knows it.
    If the ip of `place` is not a return address, the registers that were computed from a function start known by
    symbols are preferred, because a PDB record describes neither epilogues nor every step of a prologue. If `found`
    came from the rest of the function, those that were computed from the function's start are preferred, because that
    code has run and the rest has not.
    """
    caller = found.caller
    for other in candidates:
        if other is found or other.caller.slot != caller.slot or not other.caller.is_consistent:
            continue
        mine, theirs = caller.gpr, other.caller.gpr
        knows_better = (
            _FROM_START if found.rule in {Rule.FORWARD, Rule.EPILOGUE} else _HERE if not place.is_return_address else ()
        )
        if other.rule in knows_better:
            mine, theirs = theirs, mine
        gpr = tuple(own if own is not None else given for own, given in zip(mine, theirs, strict=True))
        caller = replace(caller, gpr=gpr)
        if caller.popped is None and other.caller.popped is not None:
            popped = other.caller.popped
            gpr = (*gpr[:SP], (caller.call_sp + popped) & MASK, *gpr[SP + 1 :])
            caller = replace(caller, popped=popped, gpr=gpr)
    return replace(found, caller=caller, trust=label(found, candidates))
