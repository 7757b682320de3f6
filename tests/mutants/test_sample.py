# SPDX-License-Identifier: Apache-2.0
"""The changes that the tool makes, and a few of them to the product, which its tests have to notice."""

from __future__ import annotations

import pytest

from tests.mutants.mutate import mutants, mutated
from tests.mutants.run import candidates, is_killed, mirror, sample

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


def test_a_change_of_a_module_that_has_no_tests_is_not_noticed():
    path, mutant = candidates("x86", "/candidates.py")[0]
    assert not is_killed(path, mutant, [])


@pytest.mark.parametrize("module", SAMPLES)
def test_the_tests_of_a_module_notice_most_of_its_changes(module):
    chosen = sample(candidates("x86", f"/{module}"), SAMPLES[module], seed=2)
    survived = [mutant.change for path, mutant in chosen if not is_killed(path, mutant, mirror(path)[:1])]
    assert len(survived) <= len(chosen) // 4, survived
