# SPDX-License-Identifier: Apache-2.0
"""Which answer is believed where rules disagree."""

from __future__ import annotations

from throwstack.core.frames import Trust
from throwstack.unwind.x86.call_frame import Caller
from throwstack.unwind.x86.candidates import Candidate, Rule, best, label
from throwstack.unwind.x86.return_address import Fit

NEAR, FAR = 0x1000, 0x1010


def candidate(rule: Rule, fit: Fit, slot: int = NEAR, *, has_program: bool = False, **caller: object) -> Candidate:
    return Candidate(rule, Caller(slot, 0x401000, slot + 4, 0, (None,) * 8, **caller), fit, has_program=has_program)  # type: ignore[arg-type]


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
    assert label(candidate(Rule.FORWARD, Fit.POSSIBLE)) is Trust.PROLOGUE
