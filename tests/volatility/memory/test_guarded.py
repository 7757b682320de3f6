# SPDX-License-Identifier: Apache-2.0
"""Nothing that a process or thread holds ends a run: any call of the examination may fail, with any exception."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest

from tests.conftest import Forge
from tests.support.failing_calls import calls
from tests.support.patched_memory import opened
from tests.support.volatility_session import Session, open_dump
from throwstack.core.registers import Registers
from throwstack.names.name_style import NameStyle
from throwstack.report import make_crash
from throwstack.report.frame_report import FrameDetail
from throwstack.stuck.triage import Triage
from throwstack.unwind.target import ThreadStack
from throwstack.unwind.x64 import Unwinder
from throwstack.volatility import crashes, cxr
from throwstack.volatility.coverage import coverage
from throwstack.volatility.crashes import crash_row
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.survey import Selection, Survey
from throwstack.volatility.tables.columns import row
from throwstack.volatility.tables.crash_table import CRASH_COLUMNS
from throwstack.volatility.tables.frame_table import throwing_columns
from throwstack.volatility.tables.thread_table import ThreadTable
from throwstack.volatility.thread_stacks import thread_stack
from throwstack.volatility.thread_survey import ThreadSurvey

SAMPLE = int(os.environ.get("THROWSTACK_FAILING_CALLS", "12"))
"""How many calls of each run fail in their turn; there are some 14,000 in each."""
ERRORS = (MemoryError, RecursionError, OverflowError, KeyError, ValueError)
PLAIN = NameStyle.PLAIN
WHOLE_FRAMES = FrameDetail(registers=True, fpo=True)
CRASHED, THREADS = 5304, {5320, 5324}
NOTES = [column.title for column in CRASH_COLUMNS].index("Notes")

OPENED = (0, 0)
"""What a run yields first: all before that opens the machine, and ends with a line that says why it cannot."""


@pytest.fixture(scope="module")
def session(forged: Forge) -> Iterator[Session]:
    out, _ = forged("service-x64")
    with open_dump(out / "MEMORY.DMP", out / "isf") as found:
        yield found


def unhandled(machine: Machine, looked_at: Survey) -> Iterator[tuple[int, int]]:
    yield OPENED
    for finding in looked_at.findings():
        cells = row(CRASH_COLUMNS, crash_row(machine, finding))
        yield cells[0], cells[2]


def cxrstack(_: Machine, looked_at: Survey) -> Iterator[tuple[int, int]]:
    yield OPENED
    for frame in cxr.frame_rows(cxr.throwing_stacks(looked_at), WHOLE_FRAMES):
        cells = row(throwing_columns(PLAIN, with_registers=True, with_fpo=True), frame)
        yield cells[0], cells[2]


def symbols_needed(_: Machine, looked_at: Survey) -> Iterator[tuple[int, int]]:
    yield OPENED
    cxr.files_needed(cxr.throwing_stacks(looked_at))


def stackwalk(machine: Machine, looked_at: Survey) -> Iterator[tuple[int, int]]:
    table, walk = ThreadTable(PLAIN, with_fpo=True), ThreadSurvey(looked_at)
    yield OPENED
    for report in walk.reports():
        stack = thread_stack(machine, report, WHOLE_FRAMES)
        for _, cells in table.rows(table.stack(stack, report.owner.address)):
            yield cells[0], cells[2]


RUNS = [unhandled, cxrstack, symbols_needed, stackwalk]
Run = Callable[[Machine, Survey], Iterator[tuple[int, int]]]

BETWEEN_THE_GUARDS = {
    "names/blockers.py": {"_plain_names", "blocker_named", "verdict"},
    "dispatch/saved_exception.py": {"found_by", "where"},
    "core/frames.py": {"ip", "is_complete"},
    "names/symbols.py": {"__str__"},
    "core/text.py": {"escape", "is_visible"},
    "stuck/stuck_thread.py": {"kinds", "role_of"},
    "report/frame_report.py": {"call_site", "is_inline"},
    "stuck/signature.py": {"__str__"},
    "report/register_text.py": {"format_registers", "format_flags"},
    "volatility/crashes.py": {"crash_of", "crash_row", "exceptions_of"},
    "volatility/objects/wait_objects.py": {"duration"},
    "volatility/thread_stacks.py": {"thread_stack"},
    "volatility/memory/guarded.py": {"guarded"},
    "volatility/memory/machine.py": {"read_problems"},
    "volatility/objects/threads.py": {"is_terminated"},
    "volatility/types_wanted.py": {"__init__"},
    "volatility/processes.py": {"is_wow64", "selected"},
    "volatility/thread_walks.py": {"label"},
}
"""What runs outside any guard beside the loops: it makes words of what was found, and reads nothing."""
LOOPS = {"survey.py", "cxr.py", "thread_survey.py", "memory/read_faults.py"}
OF_VALUES = (
    "report/crash_report.py",
    "report/dump_report.py",
    "report/thread_report.py",
    "report/values.py",
    "volatility/tables/",
    "volatility/survey_record.py",
    "volatility/asked_for.py",
)
"""What turns reports into cells, and what keeps numbers and names: nothing there reads the dump."""


@pytest.mark.parametrize("run", RUNS)
def test_what_reads_a_dump_runs_inside_a_guard(session: Session, run: Run):
    machine = opened(session)
    running = run(machine, Survey(machine, Selection()))
    next(running)
    with calls() as made:
        list(running)
    outside = {tuple(place.split(":")) for place in made.outside}
    beside = {
        (file, name)
        for file, name in outside
        if not file.startswith(OF_VALUES)
        and file.removeprefix("volatility/") not in LOOPS
        and name not in BETWEEN_THE_GUARDS.get(file, set())
    }
    assert beside == set()
    assert made.count > 5000


@pytest.mark.usefixtures("caught")
@pytest.mark.parametrize("run", RUNS)
def test_a_run_goes_on_after_the_failure_of_any_call(session: Session, run: Run, caplog: pytest.LogCaptureFixture):
    machine = opened(session)
    running = run(machine, Survey(machine, Selection()))
    next(running)
    with calls() as made:
        whole = set(running)
    generator = random.Random(run.__name__)
    for number in sorted(generator.sample(range(1, made.count + 1), SAMPLE)):
        machine = opened(session)
        running = run(machine, Survey(machine, Selection()))
        next(running)
        caplog.clear()
        with calls(number, generator.choice(ERRORS)) as made_now:
            found = set(running)
        assert found <= whole
        for pid, tid in whole - found:
            is_named = f"thread {tid}: unexpected" in caplog.text or f"(PID {pid})" in caplog.text
            assert is_named or "some may be missing" in caplog.text, f"silence after {made_now.failed}"


@pytest.mark.parametrize("error", ERRORS)
def test_a_thread_that_cannot_be_examined_is_named_and_its_neighbour_has_its_row(
    session: Session,
    error: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
    caught: list[logging.LogRecord],
    caplog: pytest.LogCaptureFixture,
):
    examine, seen, message = Triage.examine, [], "\x1b[31mred"

    def fails_at_the_first_suspect(triage: Triage, stack: ThreadStack, *given: object) -> object:
        if not seen and triage.look_at(stack).is_suspect:
            seen.append(stack)
            raise error(message)
        return examine(triage, stack, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(Triage, "examine", fails_at_the_first_suspect)
    machine = opened(session)
    assert set(unhandled(machine, Survey(machine, Selection()))) == {OPENED, (CRASHED, 5324)}
    assert "stuck threads may have been missed: ledgersvc.exe (PID 5304): thread 5320: unexpected" in caplog.text
    assert "\x1b" not in caplog.text
    assert caught[0].exc_info is not None


@pytest.mark.parametrize(
    ("made_by", "part", "columns"),
    [
        (make_crash, "describe", {"Exception", "Details", "Signature"}),
        (make_crash, "thrown_at", {"Thrown At", "Signature"}),
        (make_crash, "signature", {"Signature"}),
        (make_crash, "name_of", {"Thrown At", "Signature"}),
        (crashes, "_blocked_since", {"Blocked Since"}),
        (make_crash, "box_text", set()),
    ],
)
def test_a_row_that_cannot_be_made_appears_with_what_is_known(
    *,
    session: Session,
    made_by: ModuleType,
    part: str,
    columns: set[str],
    monkeypatch: pytest.MonkeyPatch,
    caught: list[logging.LogRecord],
):
    machine = opened(session)
    found = list(Survey(machine, Selection()).findings())
    whole = [row(CRASH_COLUMNS, crash_row(machine, finding)) for finding in found]

    def fails(*_: object, **__: object) -> None:
        raise RecursionError

    monkeypatch.setattr(made_by, part, fails)
    names = [column.title for column in CRASH_COLUMNS]
    for finding, before in zip(found, whole, strict=True):
        cells = row(CRASH_COLUMNS, crash_row(machine, finding))
        changed = {name for name, was, now in zip(names, before, cells, strict=True) if str(was) != str(now)}
        assert changed - {"Notes"} <= columns
        assert "unexpected RecursionError" in cells[NOTES]
    assert len(caught) == len(found)


@pytest.mark.usefixtures("caught")
def test_a_thread_that_is_known_to_be_stuck_has_a_row_without_its_exception(
    session: Session, monkeypatch: pytest.MonkeyPatch
):
    def fails(*_: object) -> None:
        raise OverflowError

    monkeypatch.setattr("throwstack.stuck.walk_evidence.exceptions_in_flight", fails)
    machine = opened(session)
    found = list(Survey(machine, Selection()).findings())
    assert {finding.thread.tid for finding in found} == THREADS
    for finding in found:
        cells = row(CRASH_COLUMNS, crash_row(machine, finding))
        assert "KERNELBASE!UnhandledExceptionFilter" in cells[4]
        assert "the search for the saved CONTEXT broke off: unexpected OverflowError" in cells[NOTES]


@pytest.mark.usefixtures("caught")
def test_a_thread_whose_throwing_stack_cannot_be_walked_has_its_row(session: Session, monkeypatch: pytest.MonkeyPatch):
    machine = opened(session)
    walk, found = Unwinder.walk, list(Survey(machine, Selection()).findings())
    thrown = {exception.context.registers for finding in found for exception in finding.stuck.exceptions}

    def fails_at_the_throw(unwinder: Unwinder, registers: Registers, *given: object, **named: object) -> object:
        if registers in thrown:
            raise OverflowError
        return walk(unwinder, registers, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Unwinder, "walk", fails_at_the_throw)
    for before, finding in zip(found, Survey(machine, Selection()).findings(), strict=True):
        cells, whole = (row(CRASH_COLUMNS, crash_row(machine, one)) for one in (finding, before))
        names = [column.title for column in CRASH_COLUMNS]
        changed = {name for name, was, now in zip(names, whole, cells, strict=True) if str(was) != str(now)}
        assert changed <= {"Thrown At", "Signature", "Notes"}
        assert "throwing stack ends early: the walk failed: unexpected OverflowError" in cells[NOTES]


@pytest.mark.usefixtures("caught")
def test_a_list_of_processes_that_breaks_off_is_said_to(
    session: Session, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    listed, message = Machine.processes, "no link"

    def breaks_off(machine: Machine) -> Iterator[object]:
        yield from listed(machine)
        raise TypeError(message)

    monkeypatch.setattr(Machine, "processes", breaks_off)
    machine = opened(session)
    assert {tid for _, tid in unhandled(machine, Survey(machine, Selection()))} == {0, *THREADS}
    assert "list of processes breaks off, and some may be missing: unexpected TypeError: no link" in caplog.text
    problems: list[str] = []
    assert CRASHED in {process.pid for process in coverage(machine, problems)}
    assert "the kernel's list of processes breaks off: unexpected TypeError: no link" in problems


@pytest.mark.usefixtures("caught")
def test_a_process_that_the_doctor_cannot_measure_is_named(session: Session, monkeypatch: pytest.MonkeyPatch):
    def fails(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("throwstack.volatility.coverage.Triage", fails)
    machine = opened(session)
    problems: list[str] = []
    assert list(coverage(machine, problems)) == []
    assert any("ledgersvc.exe (PID 5304), cannot be examined: unexpected MemoryError" in text for text in problems)
