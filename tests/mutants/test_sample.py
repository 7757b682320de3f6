# SPDX-License-Identifier: Apache-2.0
"""The changes that the tool makes, and a few of them to the product, which its tests have to notice."""

from __future__ import annotations

import pytest

from tests.mutants import trials
from tests.mutants.in_place import forget_product
from tests.mutants.mutate import mutants, mutated, parse
from tests.mutants.run import Results, candidates, sample, try_all
from tests.mutants.trials import Chosen, in_a_fork

MODULE = """
from enum import Enum

class Rank(Enum):
    HIGH = "high"
    LOW = "low"

LIMITS: dict[int, str] = {1: "a", 2: "b"}

def clamp(value):
    if value < 10 and value not in LIMITS:
        return [each for each in LIMITS if each]
    return 5
"""
SAMPLES = {"candidates.py": 10, "captured_context.py": 4, "system_call_stub.py": 6, "outermost_frames.py": 4}
"""How many changes are tried of which module of the x86 unwinder."""


def test_figures_conditions_comparisons_and_data_are_changed():
    found = list(mutants(MODULE))
    changes = [mutant.change for mutant in found]
    condition = "value < 10 and value not in LIMITS"
    assert {
        *(f"negated: {condition}", f"True: {condition}", f"False: {condition}", f"and/or swapped: {condition}"),
        *("Lt swapped: value < 10", "NotIn swapped: value not in LIMITS"),
        *(f"+1: 10 in if {condition}:", f"-1: 10 in if {condition}:", "+1: 5 in return 5", "-1: 5 in return 5"),
        "HIGH and LOW swapped in: class Rank(Enum):",
        *("without member 0: {1: 'a', 2: 'b'}", "without member 1: {1: 'a', 2: 'b'}"),
    } <= set(changes)
    assert not any("(int, str)" in change for change in changes)  # types decide nothing
    assert len({mutated(MODULE, mutant) for mutant in found}) == len(found)


def test_a_change_is_made_alone():
    swapped = next(mutant for mutant in mutants(MODULE) if mutant.change.startswith("Lt swapped"))
    assert mutated(MODULE, swapped) == mutated(MODULE, swapped)
    assert "if value <= 10 and value not in LIMITS:" in mutated(MODULE, swapped)
    assert "return 5" in mutated(MODULE, swapped)
    assert swapped.line == 11


@pytest.mark.parametrize("is_data", [True, False])
def test_a_change_that_changes_nothing_is_not_noticed(monkeypatch, is_data):
    monkeypatch.setattr(trials, "changed_tree", lambda text, _: parse(text))
    chosen = [each for each in candidates("x86", "/outermost_frames.py") if each[1].is_data == is_data][:2]
    assert survivors("x86", chosen) == [mutant.change for _, mutant in chosen]


def test_what_was_noticed_is_kept_for_a_later_run(tmp_path):
    chosen = candidates("x86", "/outermost_frames.py")[:2]
    for (path, mutant), is_killed in zip(chosen, (True, False), strict=True):
        Results(tmp_path / "kept").add(path, mutant, is_killed)
    assert [Results(tmp_path / "kept").is_killed(*each) for each in chosen] == [True, False]


@pytest.mark.parametrize("module", SAMPLES)
def test_the_tests_of_a_module_notice_most_of_its_changes(module):
    chosen = sample(candidates("x86", f"/{module}"), SAMPLES[module], seed=2)
    survived = survivors("x86", chosen)
    assert len(survived) <= len(chosen) // 4, survived


def survivors(room: str, chosen: list[Chosen]) -> list[str]:
    """Return the changes that the tests named after the module do not notice."""

    def tried() -> list[str]:
        forget_product()  # what other tests have computed and kept must not hide a change
        return [each.mutant.change for each in try_all(room, chosen, Results(), is_quick=True) if not each.is_killed]

    return in_a_fork(tried)
