# SPDX-License-Identifier: Apache-2.0
"""How work is counted: what a thread may have, what is left for the next one, and what is said of it."""

from __future__ import annotations

from dataclasses import fields

import pytest

from throwstack.core.budgets import BUDGETS, Budget, Budgets, Meter

FRAMES = Budget("frames", thread=100, process=250, share=10, shares=15)
"""Two and a half threads' worth; then ten frames for one more thread, and half as many for the last one."""


def test_a_thread_gets_what_it_asks_for_and_no_more_than_is_its():
    meter = Meter()
    assert meter.take(FRAMES, 60) == 60
    assert meter.spent == ()
    assert meter.take(FRAMES, 60) == 40
    assert meter.spent == ("the budget of 100 frames for a thread is spent",)
    assert meter.left(FRAMES) == 0


def test_the_next_thread_starts_afresh():
    meter = Meter()
    meter.take(FRAMES, 101)
    meter.begin_thread()
    assert meter.spent == ()
    assert meter.left(FRAMES) == 100


def test_a_thread_after_greedy_ones_still_has_a_share_until_the_shares_are_spent_too():
    meter = Meter()
    granted = []
    for _ in range(6):
        meter.begin_thread()
        granted.append(meter.take(FRAMES, 1000))
    assert granted == [100, 100, 50, 10, 5, 0]
    assert meter.spent == ("the budget of 250 frames for a process's threads is spent",)


def test_other_reasons_are_told_once():
    meter = Meter()
    meter.say("left out")
    meter.say("left out")
    assert meter.spent == ("left out",)


@pytest.mark.parametrize("name", [field.name for field in fields(Budgets) if field.type == "Budget"])
def test_every_budget_has_room_for_more_than_one_thread_and_a_share_for_all(name: str):
    budget = getattr(BUDGETS, name)
    assert 0 < budget.share <= budget.thread < budget.process
    assert budget.share <= budget.shares


def test_the_figures_are_above_what_real_machines_reach():
    """Stacks of 8 MB, 1,500 modules, 10,000 threads with some 16 KB of stack in use each."""
    assert BUDGETS.stack.thread >= 8 << 20
    assert BUDGETS.stack.process >= 10_000 * (16 << 10)
    assert BUDGETS.stack.shares >= BUDGETS.threads * BUDGETS.stack.share
    assert BUDGETS.modules >= 1500
    assert BUDGETS.threads >= 10_000
