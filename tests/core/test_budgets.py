# SPDX-License-Identifier: Apache-2.0
"""Budgets of work: what one thread gets, what is left for the next one, and the sentence about a spent budget."""

from __future__ import annotations

from dataclasses import fields

import pytest

from throwstack.core.budgets import BUDGETS, Budget, Budgets, Meter

FRAMES = Budget("frames", thread=100, process=250, share=10, shares=15)
"""Enough for two and a half threads; after that shares of ten frames for one thread and five for another."""


def test_a_thread_gets_what_it_asks_for_up_to_its_budget():
    meter = Meter()
    assert meter.take(FRAMES, 60) == 60
    assert meter.spent == ()
    assert meter.take(FRAMES, 60) == 40
    assert meter.spent == ("the budget of 100 frames for a thread is spent",)
    assert meter.left(FRAMES) == 0


def test_the_budget_of_a_thread_begins_anew_with_each_thread():
    meter = Meter()
    meter.take(FRAMES, 101)
    meter.begin_thread()
    assert meter.spent == ()
    assert meter.left(FRAMES) == 100


def test_after_the_process_budget_is_spent_a_thread_still_gets_a_share_until_shares_are_spent():
    meter = Meter()
    granted = []
    for _ in range(6):
        meter.begin_thread()
        granted.append(meter.take(FRAMES, 1000))
    assert granted == [100, 100, 50, 10, 5, 0]
    assert meter.spent == ("the budget of 250 frames for a process's threads is spent",)


def test_a_reason_that_is_given_twice_is_kept_once():
    meter = Meter()
    meter.say("left out")
    meter.say("left out")
    assert meter.spent == ("left out",)


@pytest.mark.parametrize("name", [field.name for field in fields(Budgets) if field.type == "Budget"])
def test_every_budget_has_room_for_more_than_one_thread_and_a_share_for_all(name: str):
    budget = getattr(BUDGETS, name)
    assert 0 < budget.share <= budget.thread < budget.process
    assert budget.share <= budget.shares


def test_budgets_are_larger_than_what_real_machines_need():
    """Stacks of 8 MB, 1,500 modules, 10,000 threads with some 16 KB of stack in use each."""
    assert BUDGETS.stack.thread >= 8 << 20
    assert BUDGETS.stack.process >= 10_000 * (16 << 10)
    assert BUDGETS.stack.shares >= BUDGETS.threads * BUDGETS.stack.share
    assert BUDGETS.modules >= 1500
    assert BUDGETS.threads >= 10_000
