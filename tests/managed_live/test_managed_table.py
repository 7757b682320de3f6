# SPDX-License-Identifier: Apache-2.0
"""The table says which runtimes ran, and which did not; too few of them fail a run."""

from __future__ import annotations

import pytest

from tests.managed_live.managed_fixtures import HRESULTS, SCENARIOS, managed_fixtures
from tests.managed_live.managed_table import section
from tests.managed_live.runtimes import FEWER, LABELS, too_few

ONE = {
    "runtime": "8.0-x64",
    "rows": 1,
    "decoys": 5,
    "false_rows": 0,
    "exceptions": 4,
    "frames": 20,
    "types": 4,
    "messages": 3,
}
ONE["names"] = 19


def test_a_line_for_each_runtime_that_ran():
    lines = section([ONE, {**ONE, "rows": 0, "false_rows": 2}, {**ONE, "runtime": "2.1-x86"}]).splitlines()

    assert "| 8.0-x64 | 8.0.4 | 2 | 1 of 2 | 10 | 2 | 8 of 8 | 6 of 8 | 38 of 40 |" in lines
    assert "| 2.1-x86 | 2.1.8 | 1 | 1 of 1 | 5 | 0 | 4 of 4 | 3 of 4 | 19 of 20 |" in lines
    assert "Did not run: 2.1.30 (2.1-x64), 3.1.23 (3.1-x64), 10.0.12 (10.0-x64)." in lines


def test_fewer_than_three_runtimes_are_too_few_unless_that_is_meant(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(FEWER, raising=False)
    assert "2.1-x64, 8.0-x64" in too_few(["8.0-x64", "2.1-x64", "8.0-x64"], len(LABELS))
    assert not too_few(LABELS[:3], len(LABELS))
    assert not too_few(["8.0-x64"], 1)  # no other was asked for

    monkeypatch.setenv(FEWER, "1")
    assert not too_few([], len(LABELS))


def test_the_quick_set_has_two_programs_a_runtime_and_the_whole_at_least_twelve():
    assert len(managed_fixtures(quick=True)) == 2 * len(LABELS)
    assert len(SCENARIOS) >= 12
    assert {kind for scenario in SCENARIOS for kind in scenario.types} == set(HRESULTS)
    assert [fixture.name for fixture in managed_fixtures(["8.0-x64-ta", "x86-over"])] == [
        "8.0-x64-task",
        "2.1-x86-overflow",
    ]
