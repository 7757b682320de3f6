# SPDX-License-Identifier: Apache-2.0
"""Which answer is believed where rules disagree."""

from __future__ import annotations

from itertools import pairwise

import pytest

from throwstack.core.frames import Trust
from throwstack.unwind.x86.call_frame import Caller
from throwstack.unwind.x86.candidates import Candidate, Rule, best, label
from throwstack.unwind.x86.return_address import Fit

NEAR, FAR = 0x1000, 0x1010
WEAK = (Rule.FRAME_DATA_SEARCH, Rule.FRAME_POINTER, Rule.REGISTRATION, Rule.SCAN)
EXACT = (
    *(Rule.CALLBACK, Rule.FRAME_DATA, Rule.EPILOGUE, Rule.FUNCTION, Rule.FPO, Rule.RECORD_HERE, Rule.CALLED_NOWHERE),
    *(Rule.FORWARD, Rule.GENERATED_CHAIN, Rule.GUESSED_START),
)
DECODED = (Rule.EPILOGUE, Rule.FUNCTION, Rule.FORWARD, Rule.GUESSED_START)


def candidate(rule: Rule, fit: Fit, slot: int = NEAR, *, has_program: bool = False, **caller: object) -> Candidate:
    return Candidate(rule, Caller(slot, 0x401000, slot + 4, 0, (None,) * 8, **caller), fit, has_program=has_program)  # type: ignore[arg-type]


def made(rule: Rule, fit: Fit, caller: dict | None = None, slot: int = NEAR) -> Candidate:
    return candidate(rule, fit, slot, **(caller or {}))


LADDER = [
    *((rule, Fit.CONFIRMED) for rule in (*EXACT, *WEAK)),
    *((rule, Fit.CALLS_FUNCTION) for rule in EXACT),
    *((rule, Fit.POSSIBLE) for rule in EXACT),
    (Rule.FRAME_DATA, Fit.POSSIBLE, {"doubt": 1}),
    (Rule.FORWARD, Fit.POSSIBLE, {"is_past_helper": True}),
    (Rule.FORWARD, Fit.POSSIBLE, {"is_past_helper": True, "doubt": 1}),
    (Rule.GUESSED_START, Fit.OUTSIDE),
    (Rule.EPILOGUE, Fit.DIVERTED),
    *((rule, Fit.UNREADABLE) for rule in EXACT),
    *((rule, Fit.OUTERMOST) for rule in EXACT),
    *((rule, Fit.CALLS_FUNCTION) for rule in WEAK),
    (Rule.FRAME_DATA_SEARCH, Fit.POSSIBLE),
    (Rule.FRAME_POINTER, Fit.POSSIBLE),
    (Rule.FRAME_DATA_SEARCH, Fit.OUTSIDE),
    (Rule.FRAME_POINTER, Fit.OUTSIDE),
    (Rule.EPILOGUE, Fit.OUTERMOST, {"doubt": 1}),
    (Rule.FRAME_DATA_SEARCH, Fit.UNREADABLE),
    (Rule.FRAME_POINTER, Fit.UNREADABLE),
    *((rule, Fit.POSSIBLE, {"is_consistent": False}) for rule in DECODED),
    (Rule.SCAN, Fit.POSSIBLE),
    *((rule, Fit.ZERO) for rule in EXACT),
    (Rule.FRAME_DATA_SEARCH, Fit.OUTERMOST),
    (Rule.FRAME_POINTER, Fit.OUTERMOST),
    (Rule.FRAME_DATA, Fit.CONTRADICTED),
    (Rule.EPILOGUE, Fit.CONTRADICTED),
]
"""Candidates that find different slots, best first: each is taken where one further down would be the other choice."""


@pytest.mark.parametrize(("better", "worse"), list(pairwise(LADDER)), ids=str)
def test_each_candidate_of_the_ladder_is_taken_before_the_next(better, worse):
    first, second = made(*better), made(*worse, slot=FAR)
    assert best([second, first]) is first
    assert best([first, second]) is first
    assert best([second]) is second


@pytest.mark.parametrize(
    "refused",
    [
        *((rule, Fit.NOT_CODE) for rule in Rule),
        *((rule, Fit.NOT_A_RETURN) for rule in Rule),
        *((rule, Fit.CONTRADICTED) for rule in Rule if rule not in {Rule.FRAME_DATA, Rule.EPILOGUE}),
        (Rule.EPILOGUE, Fit.CONTRADICTED, {"is_consistent": False}),
        (Rule.FUNCTION, Fit.ZERO, {"is_consistent": False}),
        (Rule.FUNCTION, Fit.OUTERMOST, {"is_consistent": False}),
        (Rule.SCAN, Fit.OUTERMOST),
        (Rule.SCAN, Fit.ZERO),
        (Rule.FRAME_POINTER, Fit.ZERO),
        (Rule.REGISTRATION, Fit.POSSIBLE),
        (Rule.SCAN, Fit.UNREADABLE),
    ],
    ids=str,
)
def test_a_candidate_that_nothing_speaks_for_is_not_taken(refused):
    assert best([made(*refused)]) is None


@pytest.mark.parametrize(
    ("fit", "rules", "is_taken"),
    [
        (Fit.CONTRADICTED, (Rule.FUNCTION, Rule.FORWARD), True),
        (Fit.CONTRADICTED, (Rule.GUESSED_START, Rule.FPO), True),
        (Fit.CONTRADICTED, (Rule.FUNCTION, Rule.FRAME_POINTER), False),
        (Fit.CONTRADICTED, (Rule.FUNCTION, Rule.FUNCTION), False),
        (Fit.NOT_A_RETURN, (Rule.FUNCTION, Rule.FORWARD), True),
        (Fit.NOT_A_RETURN, (Rule.GUESSED_START, Rule.GUESSED_START), False),
        (Fit.NOT_CODE, (Rule.FUNCTION, Rule.FORWARD), False),
    ],
)
def test_two_independent_rules_outweigh_a_call_of_another_function(fit, rules, is_taken):
    together = [candidate(rule, fit) for rule in rules]
    assert (best(together) is not None) is is_taken
    assert best([*together[:1], candidate(rules[1], fit, FAR)]) is None
    assert best([candidate(rules[0], fit, doubt=1), *together[1:]]) is None


def test_what_two_rules_agree_on_comes_before_a_scan_and_after_a_weaker_rule():
    together = [candidate(Rule.FUNCTION, Fit.CONTRADICTED), candidate(Rule.FORWARD, Fit.CONTRADICTED)]
    scanned = candidate(Rule.SCAN, Fit.POSSIBLE, FAR)
    by_pointer = candidate(Rule.FRAME_POINTER, Fit.UNREADABLE, FAR)
    assert best([scanned, *together]) in together
    assert best([*together, by_pointer]) is by_pointer
    assert best([*together, candidate(Rule.FUNCTION, Fit.POSSIBLE, FAR, is_consistent=False)]) not in together


def test_frame_data_comes_before_decoded_code():
    record = candidate(Rule.FRAME_DATA, Fit.POSSIBLE, FAR)
    assert best([candidate(Rule.FUNCTION, Fit.POSSIBLE), record]) is record


def test_a_return_address_that_calls_the_function_decides():
    decoded = candidate(Rule.FUNCTION, Fit.CONFIRMED)
    assert best([candidate(Rule.FRAME_DATA, Fit.CONTRADICTED, FAR), decoded]) is decoded
    assert best([candidate(Rule.FRAME_DATA, Fit.POSSIBLE, FAR), decoded]) is decoded


def test_in_the_innermost_frame_code_comes_before_records():
    decoded = candidate(Rule.FUNCTION, Fit.POSSIBLE)
    assert best([candidate(Rule.RECORD_HERE, Fit.POSSIBLE, FAR), decoded]) is decoded


def test_two_rules_that_agree_outweigh_a_third():
    together = [candidate(Rule.FORWARD, Fit.POSSIBLE), candidate(Rule.GUESSED_START, Fit.POSSIBLE)]
    chosen = best([candidate(Rule.FUNCTION, Fit.POSSIBLE, FAR), *together])
    assert chosen is not None
    assert chosen.caller.slot == NEAR


def test_a_rule_with_a_doubtful_esp_supports_no_other_rule():
    doubtful = candidate(Rule.FORWARD, Fit.POSSIBLE, FAR, doubt=1)
    decoded = candidate(Rule.FUNCTION, Fit.POSSIBLE)
    assert best([candidate(Rule.RECORD_HERE, Fit.POSSIBLE, FAR), doubtful, decoded]) is decoded


def test_a_return_address_that_is_not_code_is_never_believed():
    assert best([candidate(rule, Fit.NOT_CODE) for rule in Rule if rule is not Rule.SCAN]) is None
    assert best([candidate(Rule.SCAN, Fit.CONTRADICTED)]) is None
    assert best([]) is None


def test_a_zero_return_address_scores_below_a_word_after_a_call():
    # zeros are everywhere on a stack; the start of the thread is one of them
    zero = candidate(Rule.EPILOGUE, Fit.OUTERMOST, FAR)
    assert best([zero, candidate(Rule.GUESSED_START, Fit.POSSIBLE)]) is not zero
    assert best([zero, candidate(Rule.SCAN, Fit.POSSIBLE)]) is zero


def test_the_label_of_a_frame_is_no_better_than_its_evidence():
    record = candidate(Rule.FRAME_DATA, Fit.POSSIBLE, has_program=True)
    assert label(record) is Trust.CFI
    assert label(record, [record, candidate(Rule.FUNCTION, Fit.POSSIBLE)]) is Trust.CFI
    assert label(record, [record, candidate(Rule.FUNCTION, Fit.POSSIBLE, FAR)]) is Trust.PROLOGUE
    assert label(candidate(Rule.FPO, Fit.POSSIBLE)) is Trust.FPO
    by_code = candidate(Rule.EPILOGUE, Fit.CONFIRMED)
    assert label(by_code, [by_code, candidate(Rule.FPO, Fit.POSSIBLE)]) is Trust.FPO
    assert label(by_code, [by_code, candidate(Rule.FPO, Fit.POSSIBLE, FAR)]) is Trust.PROLOGUE
    assert label(candidate(Rule.FRAME_POINTER, Fit.CONFIRMED)) is Trust.FRAME_POINTER
    assert label(candidate(Rule.FRAME_POINTER, Fit.POSSIBLE)) is Trust.SCAN
    assert label(candidate(Rule.SCAN, Fit.POSSIBLE)) is Trust.SCAN
    for rule in (Rule.SCAN, Rule.REGISTRATION, Rule.FRAME_DATA_SEARCH, Rule.CALLED_NOWHERE):
        assert label(candidate(rule, Fit.CONFIRMED)) is Trust.PROLOGUE
        assert label(candidate(rule, Fit.CALLS_FUNCTION)) is Trust.SCAN
    for rule in (Rule.GUESSED_START, Rule.CALLBACK, Rule.FUNCTION, Rule.EPILOGUE):
        assert label(candidate(rule, Fit.POSSIBLE)) is Trust.PROLOGUE


def test_a_chain_through_generated_code_gives_its_label_to_what_agrees_with_it():
    chain = candidate(Rule.GENERATED_CHAIN, Fit.OUTSIDE)
    decoded = candidate(Rule.FORWARD, Fit.OUTSIDE)
    assert label(chain, [chain, decoded]) is Trust.FRAME_POINTER
    assert label(decoded, [chain, decoded]) is Trust.FRAME_POINTER
    assert label(decoded, [candidate(Rule.GENERATED_CHAIN, Fit.OUTSIDE, FAR), decoded]) is Trust.PROLOGUE


def test_the_label_of_a_record_depends_on_code_that_agrees_without_a_guess():
    record = candidate(Rule.FRAME_DATA, Fit.POSSIBLE, has_program=True)
    for rule in (Rule.FUNCTION, Rule.EPILOGUE, Rule.FORWARD):
        assert label(record, [record, candidate(rule, Fit.POSSIBLE)]) is Trust.CFI
        assert label(record, [record, candidate(rule, Fit.POSSIBLE, doubt=1)]) is Trust.PROLOGUE
        assert label(record, [record, candidate(rule, Fit.POSSIBLE, is_consistent=False)]) is Trust.PROLOGUE
    assert label(record, [record, candidate(Rule.GUESSED_START, Fit.POSSIBLE, FAR)]) is Trust.CFI
    by_code = candidate(Rule.FORWARD, Fit.POSSIBLE)
    for rule in (Rule.FRAME_DATA, Rule.RECORD_HERE):
        assert label(by_code, [by_code, candidate(rule, Fit.POSSIBLE, has_program=True)]) is Trust.CFI
    assert label(candidate(Rule.FORWARD, Fit.POSSIBLE)) is Trust.PROLOGUE
