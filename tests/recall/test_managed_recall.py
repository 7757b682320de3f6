# SPDX-License-Identifier: Apache-2.0
"""A page of a .NET process that is lost costs names and gives a reason: how that is judged, and a sample of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.recall.managed_facts import Facts, facts_of, lost
from tests.recall.managed_losses import ManagedKind
from tests.recall.managed_measure import ManagedOutcome, ManagedResult
from tests.recall.managed_run import ManagedSample, fixture_names, measured
from tests.recall.managed_table import section
from tests.recall.subjects import CHECKOUT
from throwstack.core.frames import End
from throwstack.core.sides import Side
from throwstack.report.crash_report import CrashReport, ExceptionReport, InnerException, ProcessSummary
from throwstack.report.frame_report import FrameReport, WalkReport
from throwstack.report.values import Hexadecimal
from throwstack.report.verdict import CrashVerdict, VerdictCode

FIXTURES = CHECKOUT / ".live" / "managed"
RUN = FrameReport(
    0, Hexadecimal(0x500), Hexadecimal(0x9000), "shop!Shop.Run(String name)+0x4", "cfi", module="shop",
    function="Shop.Run(String name)", offset=4, symbols="clr",
)  # fmt: skip
CAUSE = InnerException(address=Hexadecimal(0x700), type="N.Cause", message="why")
THROWN = ExceptionReport(
    Hexadecimal(0xE0434352), Hexadecimal(0x100), title='N.Error "no"', type="N.Error", message="no", inner=(CAUSE,),
    details=('inner exception: N.Cause "why"', "runtime: .NET 8.0.4"),
)  # fmt: skip
CRASH = CrashReport(
    ProcessSummary(4, "shop.exe"), 8, Side.NATIVE, "x64", CrashVerdict(VerdictCode.UNKNOWN, ""), exceptions=(THROWN,),
    throwing=WalkReport((RUN,), End.THREAD_START), thrown_at=RUN.name,
)  # fmt: skip
USUAL = facts_of(CRASH)


def after(exception: ExceptionReport = THROWN, frame: FrameReport = RUN) -> Facts:
    crash = replace(CRASH, exceptions=(exception,), throwing=WalkReport((frame,), End.THREAD_START))
    return facts_of(replace(crash, thrown_at=frame.name))


def nameless(note: str) -> FrameReport:
    return replace(RUN, name="0x500", module="", function="", offset=0, symbols="", note=note)


def test_an_exception_that_the_runtime_raised_anew_is_there_once():
    fault = replace(THROWN, context_address=Hexadecimal(0x800), object_address=Hexadecimal(0x700))
    anew = replace(fault, context_address=Hexadecimal(0x400))
    assert not vars(lost(facts_of(replace(CRASH, exceptions=(anew, fault))), after(fault)))["missing"]


def test_the_same_report_has_lost_nothing():
    assert lost(USUAL, facts_of(CRASH)) == lost(USUAL, USUAL)
    assert not any(vars(lost(USUAL, USUAL)).values())


def test_a_name_may_be_missing_if_its_frame_says_why():
    loss = lost(USUAL, after(frame=nameless("its metadata are lost")))
    assert [name.rpartition(": ")[2] for name in loss.missing] == ["frame", "method", "offset"]
    assert (loss.other, loss.silent, loss.said) == ((), (), ("its metadata are lost",))
    assert lost(USUAL, after(frame=nameless(""))).silent == loss.missing


def test_a_name_without_its_parameters_is_less_and_another_name_is_another_fact():
    short = replace(RUN, name="shop!Shop.Run+0x4", function="Shop.Run", note="cut short")
    assert not lost(USUAL, after(frame=short)).other
    wrong = replace(RUN, name="shop!Shop.Stop()+0x4", function="Shop.Stop()", note="cut short")
    assert lost(USUAL, after(frame=wrong)).other == ("throwing: 0x500 0x9000: method",)


def test_an_inner_exception_may_be_missing_if_a_detail_of_the_row_says_why():
    bare = replace(THROWN, inner=(), details=("runtime: .NET 8.0.4",))
    assert len(lost(USUAL, after(bare)).silent) == 2
    assert not lost(USUAL, after(replace(bare, details=("the inner exception is not readable",)))).silent


def test_a_class_that_is_another_one_is_another_fact_whatever_is_said():
    other = replace(THROWN, type="N.Other", title='N.Other "no"', details=("an image is lost",))
    assert lost(USUAL, after(other)).other == ("exception at 0: type",)


def test_counts_are_by_runtime_and_kind():
    first = ManagedOutcome("8.0-x64-inner", "8.0-x64", ManagedKind.HEAP, 0x5000, "private", ManagedResult.LESS)
    second = replace(first, result=ManagedResult.SILENT, false=("a row of thread 4",))
    lines = section([first, second], 1, "Of each, all.").splitlines()
    assert "| 8.0-x64 | page of the GC heap | 2 | 0 | 0 | 1 | 0 | 0 | 1 | 0 | 1 |" in lines
    assert "| 8.0-x64 | **all** | 2 | 0 | 0 | 1 | 0 | 0 | 1 | 0 | 1 |" in lines
    assert lines[-1].endswith("Of each, all.")


def made(folder: Path) -> list[str]:
    return [name for name in fixture_names(folder, ("inner", "null")) if "x86" not in name]


@pytest.mark.parametrize("name", made(FIXTURES) or [None])
def test_no_loss_of_a_page_costs_the_row_or_is_silent(name: str | None):
    if name is None:
        pytest.skip(
            f"no .NET process was crashed: {FIXTURES} is empty (`make test-live` or `make test-managed` fills it)"
        )
    problems, outcomes = measured(name, FIXTURES, ManagedSample(3, seed=19))
    assert problems == []
    assert [str(one) for one in outcomes if one.is_bad] == []
