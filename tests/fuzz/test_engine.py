# SPDX-License-Identifier: Apache-2.0
"""A small part of `python -m tests.fuzz engine`, always the same: every family, some mutants of each."""

from __future__ import annotations

import random

import pytest

pytest.importorskip("resource", reason="limits of memory and time are set in ways that Windows has not")
from tests.fuzz.engine import families
from tests.fuzz.ground import Shot
from tests.fuzz.verdicts import control_characters

MUTANTS = {"threads": 8, "x86 walks": 12, "dispatch searches": 15, "image files": 40, "images": 60}
"""Of families whose mutants take longer."""
SEED = 20


@pytest.mark.parametrize("family", families(), ids=lambda family: family.name.replace(" ", "-"))
def test_mutants_lead_to_what_is_foreseen(family):
    attack = family.begin()
    for number in range(MUTANTS.get(family.name, 120)):
        shot = Shot()
        texts = list(attack(random.Random(f"{SEED} {family.name} {number}"), shot))
        assert not any(map(control_characters, texts)), shot.changes
