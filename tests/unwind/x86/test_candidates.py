# SPDX-License-Identifier: Apache-2.0
"""Which answer is believed where rules disagree."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from tests.unwind.x86.assemble import ESP
from throwstack.core.frames import Trust
from throwstack.core.registers import Arch, Registers
from throwstack.unwind.x86.call_frame import Caller, Place
from throwstack.unwind.x86.candidates import QUESTIONS, Candidate, Rule, answers, best, completed, label
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


AFTER_CALL = (Fit.CONFIRMED, Fit.CALLS_FUNCTION, Fit.POSSIBLE, Fit.OUTSIDE, Fit.DIVERTED, Fit.UNREADABLE)


@pytest.mark.parametrize("fit", AFTER_CALL)
def test_code_whose_registers_contradict_each_other_comes_after_weaker_rules_and_before_a_scan(fit):
    """The return address is after a call, whatever that calls: it may be left over from an earlier one."""
    contradictory = candidate(Rule.FUNCTION, fit, is_consistent=False)
    scanned = candidate(Rule.SCAN, Fit.POSSIBLE, FAR)
    by_pointer = candidate(Rule.FRAME_POINTER, Fit.UNREADABLE, FAR)
    assert best([scanned, contradictory]) is contradictory
    assert best([contradictory, by_pointer]) is by_pointer


QUESTIONS_DECIDE = [
    ("its tier", [candidate(Rule.GUESSED_START, Fit.UNREADABLE)], candidate(Rule.SCAN, Fit.CALLS_FUNCTION, FAR)),
    (
        "another rule that agrees",
        [candidate(Rule.FORWARD, Fit.POSSIBLE), candidate(Rule.GUESSED_START, Fit.POSSIBLE)],
        candidate(Rule.CALLBACK, Fit.CALLS_FUNCTION, FAR),
    ),
    ("its fit", [candidate(Rule.FORWARD, Fit.POSSIBLE, doubt=2)], candidate(Rule.CALLBACK, Fit.OUTSIDE, FAR)),
    ("fewer guesses", [candidate(Rule.FORWARD, Fit.POSSIBLE)], candidate(Rule.EPILOGUE, Fit.POSSIBLE, FAR, doubt=1)),
    ("its rule", [candidate(Rule.EPILOGUE, Fit.POSSIBLE)], candidate(Rule.FORWARD, Fit.POSSIBLE, FAR)),
]


@pytest.mark.parametrize(("question", "better", "worse"), QUESTIONS_DECIDE, ids=[row[0] for row in QUESTIONS_DECIDE])
def test_the_first_question_that_has_two_answers_decides(question, better, worse):
    """The worse candidate has the better answer to a question further down, if there is one."""
    together = [*better, worse]
    given = answers(better[0], together), answers(worse, together)
    assert next(name for name, one, other in zip(QUESTIONS, *given, strict=True) if one != other) == question
    assert best(together[::-1]) in better


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


# A frame of `victim`, which was called with ebx = 0xB, esi = 0x51 and edi = 0xD: the registers its caller gets back.
TRUE = {"ebx": 0xB, "esi": 0x51, "edi": 0xD}
STOPPED = Place(Registers(0x402010, (0,) * 4 + (NEAR - 8,) + (0,) * 3))
CALLED = replace(STOPPED, call_sp=NEAR - 16)


def knowing(rule: Rule, slot: int = NEAR, popped: int | None = None, **known: object) -> Candidate:
    """A candidate of a rule that knows some registers of the caller, and how many bytes of arguments were popped."""
    gpr = [known.pop(name, None) for name in Arch.X86.register_names]
    gpr[ESP] = slot + 4 + (popped or 0)
    caller = Caller(slot, 0x401000, slot + 4, popped, tuple(gpr), **known)  # type: ignore[arg-type]
    return Candidate(rule, caller, Fit.POSSIBLE)


def registers(place: Place, found: Candidate, *others: Candidate) -> dict[str, int]:
    """The registers that are known of the caller of the frame at `place`, but esp."""
    gpr = completed(place, found, [found, *others]).caller.gpr
    names = zip(Arch.X86.register_names, gpr, strict=True)
    return {name: value for name, value in names if value is not None and name != "esp"}


@pytest.mark.parametrize("place", [STOPPED, CALLED], ids=["stopped", "called"])
def test_a_register_that_one_rule_does_not_know_is_taken_from_another_of_the_same_slot(place):
    """FPO data says where the return address is, and nothing of registers. A frame pointer leads to one of them."""
    by_record = knowing(Rule.FPO)
    others = (knowing(Rule.SCAN), knowing(Rule.FRAME_POINTER, ebx=0xB), knowing(Rule.FORWARD, esi=0x51, edi=0xD))
    assert registers(place, by_record, *others) == TRUE
    assert registers(place, by_record, *others[:2]) == {"ebx": 0xB}
    assert completed(place, by_record, [by_record, *others]).caller.slot == NEAR


def test_a_register_is_not_taken_from_a_caller_elsewhere_on_the_stack_or_one_that_contradicts_itself():
    found = knowing(Rule.FPO, ebx=0xB)
    assert registers(STOPPED, found, knowing(Rule.FORWARD, FAR, esi=0xBAD)) == {"ebx": 0xB}
    assert registers(STOPPED, found, knowing(Rule.FORWARD, is_consistent=False, esi=0xBAD)) == {"ebx": 0xB}
    assert registers(STOPPED, found) == {"ebx": 0xB}


def test_after_a_call_the_registers_of_the_better_rule_count():
    """The prologue has run, so that the record is right, also where the code from the start says something else."""
    for other in (Rule.FUNCTION, Rule.GUESSED_START, Rule.FORWARD):
        assert registers(CALLED, knowing(Rule.FRAME_DATA, **TRUE), knowing(other, ebx=0xBAD, esi=0xBAD)) == TRUE


def test_where_a_thread_was_stopped_the_code_from_the_function_s_start_knows_the_registers():
    """In `push ebx; (here) push esi` a record says that esi is in a slot which has not been written yet."""
    by_record = knowing(Rule.RECORD_HERE, ebx=0xBAD, esi=0xBAD, edi=0xD)
    assert registers(STOPPED, by_record, knowing(Rule.FUNCTION, ebx=0xB, esi=0x51)) == TRUE


@pytest.mark.parametrize("other", [Rule.GUESSED_START, Rule.FORWARD, Rule.FRAME_POINTER, Rule.SCAN])
def test_where_a_thread_was_stopped_a_guessed_start_knows_no_better_than_a_record(other):
    assert registers(STOPPED, knowing(Rule.RECORD_HERE, **TRUE), knowing(other, ebx=0xBAD)) == TRUE


@pytest.mark.parametrize("place", [STOPPED, CALLED], ids=["stopped", "called"])
@pytest.mark.parametrize("rest", [Rule.FORWARD, Rule.EPILOGUE])
def test_code_that_has_run_knows_the_registers_better_than_the_rest_of_the_function(place, rest):
    """The rest pops ebx from where a branch that was not taken had pushed it."""
    from_rest = knowing(rest, ebx=0xBAD, esi=0x51)
    for start in (Rule.FUNCTION, Rule.GUESSED_START):
        assert registers(place, from_rest, knowing(start, ebx=0xB, edi=0xD)) == TRUE
    for other in (Rule.FPO, Rule.FRAME_DATA, Rule.RECORD_HERE, Rule.FRAME_POINTER):
        right = knowing(rest, ebx=0xB, esi=0x51)
        assert registers(place, right, knowing(other, ebx=0xBAD, edi=0xD)) == TRUE


@pytest.mark.parametrize(("mine", "theirs", "popped"), [(None, 8, 8), (4, 8, 4), (4, None, 4), (0, 8, 0)])
def test_the_size_of_the_arguments_is_taken_from_a_rule_that_has_seen_the_return(mine, theirs, popped):
    """`ret 8` is in the rest of the function only. It moves esp."""
    found = completed(CALLED, knowing(Rule.FPO, popped=mine, ebp=1, edi=7), [knowing(Rule.FORWARD, popped=theirs)])
    assert found.caller.popped == popped
    assert found.caller.gpr == (None,) * 4 + (NEAR + 4 + popped, 1, None, 7)


def test_the_size_of_the_arguments_that_no_rule_knows_moves_nothing():
    found = completed(CALLED, knowing(Rule.FPO), [knowing(Rule.SCAN)])
    assert (found.caller.popped, found.caller.gpr[ESP]) == (None, NEAR + 4)


def test_esp_wraps_at_the_end_of_the_address_space():
    top = 0xFFFFFFF8
    found = completed(CALLED, knowing(Rule.FPO, top), [knowing(Rule.FORWARD, top, popped=8)])
    assert found.caller.gpr[ESP] == 4


def test_the_label_of_the_chosen_caller_says_what_all_rules_have_found():
    record = replace(knowing(Rule.FRAME_DATA), has_program=True)
    assert completed(CALLED, record, [record, knowing(Rule.FUNCTION)]).trust is Trust.CFI
    assert completed(CALLED, record, [record, knowing(Rule.FUNCTION, FAR)]).trust is Trust.PROLOGUE


def test_of_two_inconsistent_callers_the_one_that_fits_better_is_taken() -> None:
    confirmed = candidate(Rule.GUESSED_START, Fit.CONFIRMED, NEAR, is_consistent=False)
    called = candidate(Rule.FUNCTION, Fit.CALLS_FUNCTION, FAR, is_consistent=False)
    assert best([called, confirmed]) is confirmed
