# SPDX-License-Identifier: Apache-2.0
"""What is read once for each thread, however many plugins' columns need it: trap frame, stack, and throwing walks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Forge
from tests.support.patched_memory import opened
from tests.support.volatility_session import open_dump
from throwstack.stuck import suspects
from throwstack.unwind import x64, x86
from throwstack.volatility.crashes import crash_of
from throwstack.volatility.cxr import throwing_stacks
from throwstack.volatility.objects.threads import ThreadReader
from throwstack.volatility.processes import Process
from throwstack.volatility.survey import Selection, Survey
from throwstack.volatility.thread_survey import ThreadSurvey

Count = Callable[[object, str], Counter[Any]]


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Count:
    """Return a function that counts the calls of `owner.name`, by their second argument."""

    def watch(owner: object, name: str) -> Counter[Any]:
        calls: Counter[Any] = Counter()
        called = getattr(owner, name)

        def counts(*given: Any, **named: Any) -> Any:
            calls[given[1]] += 1
            return called(*given, **named)

        monkeypatch.setattr(owner, name, counts)
        return calls

    return watch


def sides(process: Process) -> int:
    return len(process.sides)


@pytest.mark.parametrize("case", ["ftp-2003", "service-x64", "nested", "wow64-service", "shutdown-hang"])
def test_each_thread_is_read_once_and_each_throwing_stack_is_walked_once(forged: Forge, count: Count, case: str):
    out, truth = forged(case)
    trap_frames = count(ThreadReader, "trap_frame")
    instructions, stacks = count(suspects, "fast_fail_at"), count(suspects, "current_stack")
    walks = count(x64.Unwinder, "walk"), count(x86.Unwinder, "walk")
    with open_dump(out / "MEMORY.DMP", out / "isf") as session:
        machine = opened(session)
        survey = Survey(machine, Selection())
        findings = list(survey.findings())
        assert {finding.thread.tid for finding in findings} >= {stuck.tid for stuck in truth.stuck}
        assert set(trap_frames.values()) == {1}
        threads = [(process, thread) for process in survey.processes() for thread in process.threads]
        looked_at = sum(sides(process) for process, thread in threads if thread.teb)
        assert (instructions.total(), stacks.total()) == (looked_at, looked_at)
        for finding in findings:
            crash_of(machine, finding)
        thrown = [exception.context.registers for finding in findings for exception in finding.stuck.exceptions]
        assert thrown
        assert [sum(walk[registers] for walk in walks) for registers in thrown] == [1] * len(thrown)


def test_all_throwing_stacks_of_the_dump_cost_no_more_walks_than_its_rows(forged: Forge, count: Count):
    out, _ = forged("nested")
    walks = count(x64.Unwinder, "walk")
    with open_dump(out / "MEMORY.DMP", out / "isf") as session:
        machine = opened(session)
        list(Survey(machine, Selection()).findings())
        before = walks.total()
        assert len(list(throwing_stacks(Survey(machine, Selection())))) == 2
        assert walks.total() == 2 * before


@pytest.mark.parametrize("case", ["ftp-2003", "wow64-service"])
def test_a_walk_of_all_threads_reads_each_trap_frame_once(forged: Forge, count: Count, case: str):
    out, _ = forged(case)
    trap_frames = count(ThreadReader, "trap_frame")
    with open_dump(out / "MEMORY.DMP", out / "isf") as session:
        assert list(ThreadSurvey(Survey(opened(session), Selection())).reports())
    assert set(trap_frames.values()) == {1}
