# SPDX-License-Identifier: Apache-2.0
"""Makes a `CrashReport`, which consists of plain values, of a stuck thread that a survey found."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable
from functools import partial

from throwstack.core.text import escape
from throwstack.report.crash_report import CrashReport, ExceptionReport, ProcessSummary
from throwstack.report.frame_report import NO_DETAIL, WHOLE, FrameDetail
from throwstack.report.make_crash import CrashSite, described_exceptions, make_crash
from throwstack.report.verdict import CrashVerdict, VerdictCode
from throwstack.volatility.memory.guarded import guarded
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.objects.outside_images import region_of
from throwstack.volatility.processes import Process
from throwstack.volatility.survey import Finding
from throwstack.volatility.tables.crash_table import CrashRow

log = logging.getLogger(__name__)


def crash_of(machine: Machine, finding: Finding, detail: FrameDetail = NO_DETAIL) -> CrashReport:
    """Return the report on a stuck thread.

    If the report cannot be made, a report without a verdict is returned, and its notes say what went wrong. `machine`
    is the machine of the thread, `finding` is the stuck thread, and `detail` says what to show of each frame.
    """
    problems: list[str] = []
    with guarded(problems.append):
        return make_crash(finding.stuck, _site(finding, partial(_blocked_since, machine, finding)), detail)
    process = ProcessSummary(finding.process.pid, escape(finding.process.name, WHOLE))
    nothing = CrashVerdict(VerdictCode.UNKNOWN, "")
    return CrashReport(process, finding.thread.tid, finding.side, finding.arch, nothing, notes=tuple(problems))


def crash_row(machine: Machine, finding: Finding) -> CrashRow:
    """Return the row of `windows.unhandled` for a stuck thread."""
    return CrashRow(crash_of(machine, finding), finding.thread.address, finding.process.address)


def exceptions_of(finding: Finding) -> tuple[ExceptionReport, ...]:
    """Return the reports on the exceptions of a stuck thread, without their stacks.

    If they cannot be made, the result is empty, and the log says why.
    """
    who = f"{escape(finding.process.name)} (PID {finding.process.pid}) thread {finding.thread.tid}"
    with guarded(partial(log.warning, "%s: its exceptions cannot be described: %s", who)):
        return described_exceptions(finding.stuck, _site(finding, lambda: None))
    return ()


def _site(finding: Finding, blocked_since: Callable[[], datetime.datetime | None]) -> CrashSite:
    stuck = finding.stuck
    views, bounds, symbols = finding.process.pages.views, stuck.stack.bounds, finding.target.symbols
    return CrashSite(
        target=finding.target,
        process=summary_of(finding.process),
        tid=finding.thread.tid,
        side=finding.side,
        arch=finding.arch,
        region_of=lambda address: region_of(address, symbols, views, bounds),
        substitutes=finding.process.pages.substitutes,
        blocked_since=blocked_since,
        notes=tuple(filter(None, (finding.other_side, finding.reporter))),
        managed=finding.process.managed.get(finding.side),
    )


def timeline_text(crash: CrashReport) -> str:
    """Return a crash on one line, for a timeline."""
    text = f"{crash.process.name} (PID {crash.pid}, TID {crash.tid}) {crash.verdict.text}"
    if crash.exception is None:
        return f"Stuck thread: {text}: in {crash.blocked_in}"
    return f"Unhandled exception: {text}: {crash.exception.title} at {crash.thrown_at}"


def summary_of(process: Process) -> ProcessSummary:
    """Return the PID, the name and the problems of a process, escaped for output."""
    problems = tuple(escape(problem, WHOLE) for problem in process.problems)
    return ProcessSummary(process.pid, escape(process.name, WHOLE), problems)


def _blocked_since(machine: Machine, finding: Finding) -> datetime.datetime | None:
    """Return when a stuck thread began to wait, or None if its start or the machine's clock could not be read."""
    ticks = finding.thread.wait_ticks
    return machine.clock.time_of_tick(ticks) if machine.clock is not None and ticks is not None else None
