# SPDX-License-Identifier: Apache-2.0
"""Which exceptions the plugins find, and which they do not, on dumps in which exceptions were handled as well."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import Forge
from tests.forge.__main__ import forge
from tests.forge.cases import Case, builders, handlers_x64, handlers_x86
from tests.forge.cases.dispatch_cases import nested_with_outer
from tests.forge.cases.machine_x64 import Site
from tests.forge.cases.threads_x64 import Waiting
from tests.forge.describe import Residency
from tests.support.plugins_truth import expected_stacks, expected_unhandled, only
from tests.support.vol import vol

USER_FRAME_OF_MAIN = 8
"""Of the thread `main`: below the kernel's six frames, NtWaitForSingleObject and WaitForSingleObjectEx."""


def without_module_symbols(out: Path, tmp_path: Path) -> Path:
    """Return a copy of a forged dump with the kernel's symbols only, so that the modules have their exports."""
    copy = tmp_path / "exports"
    shutil.copytree(out, copy, ignore=shutil.ignore_patterns("cache"))
    for directory in (copy / "isf" / "windows").iterdir():
        if not directory.name.startswith(("ntk", "ntos")):
            shutil.rmtree(directory)
    return copy


@pytest.mark.parametrize("has_symbols", [True, False], ids=["symbols", "exports"])
def test_an_exception_in_a_filter_comes_first_and_the_original_is_named(
    forged: Forge, tmp_path: Path, has_symbols: bool
):
    out, truth = forged("nested")
    out = out if has_symbols else without_module_symbols(out, tmp_path)
    outer = nested_with_outer()[1]
    (row,) = vol(out, "windows.unhandled").rows
    (stuck,) = truth.stuck
    assert (row["TID"], row["Code"], row["Record"], row["Context"]) == (
        stuck.tid,
        stuck.code,
        stuck.record,
        stuck.context,
    )
    assert row["Notes"] == (
        f"raised while the original exception {outer.code:#010x} at {outer.frames[0].ip:#x} was being handled "
        f"(context {outer.context:#x})"
    )


def test_both_stacks_of_a_nested_exception_are_shown_whole(forged: Forge):
    out, truth = forged("nested")
    outer = nested_with_outer()[1]
    rows = vol(out, "windows.cxrstack").rows
    starts = [index for index, row in enumerate(rows) if row["Frame"] == 0]
    assert len(starts) == 2
    expected = expected_stacks(truth)
    assert only(rows[: starts[1]], expected) == expected
    second = rows[starts[1] :]
    assert [(row["IP"], row["Child-SP"], row["Call Site"]) for row in second] == [
        (frame.ip, frame.child_sp, frame.symbol) for frame in outer.frames
    ]
    assert rows[0]["Notes"].startswith(
        "raised while an earlier exception (the next stack below) was being handled: 0xc0"
    )
    assert second[0]["Notes"].startswith(f"original exception 0xc0000005, context {outer.context:#x}")


@pytest.mark.parametrize("has_symbols", [True, False], ids=["symbols", "exports"])
@pytest.mark.parametrize("case", ["decoys-x64", "decoys-x86"])
def test_what_only_looks_like_an_unhandled_exception_yields_no_row(
    forged: Forge, tmp_path: Path, case: str, has_symbols: bool
):
    out, truth = forged(case)
    assert len(truth.quiet) == 5
    done = vol(out if has_symbols else without_module_symbols(out, tmp_path), "windows.unhandled")
    assert (done.status, done.rows) == (0, [])
    assert "may have been missed" not in done.err


_DISPATCHED = "an exception is being dispatched, and"
_UNNAMED = {
    "handlers-x64": {
        f"{_DISPATCHED} a vectored handler does not return": f"{_DISPATCHED} its handling does not return",
        f"{_DISPATCHED} the filter of ledgersvc!ledger::Reader::Loop does not return": (
            f"{_DISPATCHED} an exception filter does not return"
        ),
    },
    "handlers-x86": {
        f"{_DISPATCHED} the filter of KERNEL32!GuardedThreadStart does not return": (
            f"{_DISPATCHED} its handling does not return"
        )
    },
}
"""What verdicts become where only exports name functions."""


@pytest.mark.parametrize("has_symbols", [True, False], ids=["symbols", "exports"])
@pytest.mark.parametrize(("case", "cases"), [("handlers-x64", handlers_x64), ("handlers-x86", handlers_x86)])
def test_a_handler_that_does_not_return_has_a_row_that_says_who_it_is(
    forged: Forge, tmp_path: Path, case: str, cases: ModuleType, has_symbols: bool
):
    out, truth = forged(case)
    done = vol(out if has_symbols else without_module_symbols(out, tmp_path), "windows.unhandled")
    found = [(row["TID"], row["Code"], row["Record"], row["Context"], row["Notes"]) for row in done.rows]
    assert found == [(stuck.tid, stuck.code, stuck.record, stuck.context, "") for stuck in truth.stuck]
    unnamed = {} if has_symbols else _UNNAMED[case]
    assert [row["Verdict"] for row in done.rows] == [unnamed.get(verdict, verdict) for _, verdict in cases.ROWS]
    assert "may have been missed" not in done.err
    if has_symbols:
        assert only(done.rows, expected_unhandled(truth)) == expected_unhandled(truth)
        assert [row["Blocked In"] for row in done.rows] == [blocked_in for blocked_in, _ in cases.ROWS]


@pytest.mark.parametrize(("case", "count"), [("handlers-x64", len(handlers_x64.HANDLED)), ("handlers-x86", 1)])
def test_exceptions_that_were_taken_are_listed_when_asked_for_and_are_no_crashes(forged: Forge, case: str, count: int):
    out, truth = forged(case)
    stuck = {(item.pid, item.tid) for item in truth.stuck}
    rows = vol(out, "windows.unhandled", "--handled").rows
    handled = [row for row in rows if (row["PID"], row["TID"]) not in stuck]
    assert [row["TID"] for row in handled] == [tid for _, tid in truth.quiet[:count]]
    assert {(row["Verdict"], row["Code"]) for row in handled} == {("handled; still on the stack", 0xC0000005)}
    assert {(row["PID"], row["TID"]) for row in rows if row not in handled} == stuck


def test_a_process_that_cannot_end_is_no_crash_without_an_exception(forged: Forge):
    out, truth = forged("shutdown-hang")
    rows = {(row["PID"], row["TID"]): row for row in vol(out, "windows.unhandled").rows}
    (stuck,) = truth.stuck
    assert rows.keys() == {(stuck.pid, stuck.tid), *truth.hanging}
    for key in truth.hanging:
        row = rows[key]
        assert row["Verdict"] == "hangs in shutdown without an exception"
        assert row["Blocked In"] == "mscoree!CorExitProcess"
        assert {row[name] for name in ("Code", "Exception", "Address", "Record", "Context")} == {None}
        assert row["Thrown At"].startswith("ledgersvc!ledger::Shutdown+")
        assert row["Signature"].startswith("ledgersvc!ledger::Shutdown (")
    expected = expected_unhandled(truth)
    assert only([rows[stuck.pid, stuck.tid]], expected) == expected
    assert rows[stuck.pid, stuck.tid]["Verdict"] == "crashed inside shutdown"


def test_a_thread_of_wow64_has_one_row_from_its_32_bit_side(forged: Forge):
    out, truth = forged("wow64-service")
    expected = expected_unhandled(truth)
    assert only(vol(out, "windows.unhandled").rows, expected) == expected
    expected = expected_stacks(truth)
    assert only(vol(out, "windows.cxrstack").rows, expected) == expected


def test_a_thread_whose_tebs_are_paged_out_is_not_lost(tmp_path: Path):
    case = builders()["wow64-service"][0]()
    (process,) = (process for process in case.machine.processes if process.modules32)
    (thread,) = process.threads
    for region in process.regions:
        if region.base in {thread.teb, thread.teb32}:
            # the 64-bit TEB's second page leads to the 32-bit registers
            region.residency = {0: Residency.PAGED_OUT}
    forge(case, tmp_path)
    expected = expected_unhandled(case.truth)
    (row,) = vol(tmp_path, "windows.unhandled").rows
    assert only([row], expected) == expected
    assert row["Notes"].endswith("is not readable: the stack's end is not known")
    assert only(vol(tmp_path, "windows.cxrstack").rows, expected_stacks(case.truth)) == expected_stacks(case.truth)


def test_the_64_bit_side_of_a_wow64_thread_is_shown_when_asked_for(forged: Forge):
    out, truth = forged("wow64-service")
    ((key, frames),) = truth.stacks.items()
    user = [frame for frame in frames if not frame.symbol.startswith("nt!")]
    rows = vol(out, "windows.cxrstack", "--wow64", "native").rows
    assert {f"{row['PID']}:{row['TID']}" for row in rows} == {key}
    assert [(row["IP"], row["Child-SP"], row["Call Site"], row["RetAddr"]) for row in rows] == [
        (frame.ip, frame.child_sp, frame.symbol, frame.return_address) for frame in user
    ]
    assert rows[0]["Notes"].startswith("64-bit side of a thread stuck on its 32-bit side")


def failing_fast(code: int) -> tuple[Case, Waiting]:
    """Two threads that wait; in the first one's service routine the kernel met an int 29h."""
    site = Site("fast-fail")
    process, threads = site.service(0x1000)
    failed = threads.idle(0x1004, "main", 3000)
    site.add(process, failed, threads.idle(0x1008, "sleep", 3100))
    case = site.case()
    frame = failed.frames[USER_FRAME_OF_MAIN]
    region = next(region for region in process.regions if region.base <= frame.ip < region.base + len(region.data))
    at = frame.ip - region.base
    region.data = region.data[:at] + b"\xcd\x29" + region.data[at + 2 :]
    failed.thread.registers |= {"rip": frame.ip, "rsp": frame.child_sp, "rcx": code}
    failed.thread.exception_active = 1
    return case, failed


def test_a_fast_fail_is_found_in_the_trap_frame(tmp_path: Path):
    case, failed = failing_fast(5)
    forge(case, tmp_path)
    (row,) = vol(tmp_path, "windows.unhandled").rows
    assert (row["TID"], row["Code"], row["Exception"]) == (0x1004, 0xC0000409, "fail-fast 5 FAST_FAIL_INVALID_ARG")
    assert (row["Verdict"], row["Found By"]) == ("failed fast", "int 29h in the trap frame")
    assert (row["Record"], row["Context"], row["Notes"]) == (None, None, "")
    assert row["Signature"].startswith("ledgersvc!ledger::Service::Main (")
    stack = vol(tmp_path, "windows.cxrstack", "--registers").rows
    assert [frame["Call Site"] for frame in stack] == [frame.symbol for frame in failed.frames[USER_FRAME_OF_MAIN:]]
    assert stack[0]["Instruction"].endswith(" cd29 int 0x29")
    assert "rcx=0000000000000005" in stack[0]["Registers"]
