# SPDX-License-Identifier: Apache-2.0
"""Says why a plugin's table is empty."""

from __future__ import annotations

import logging

from throwstack.volatility.memory.guarded import guarded
from throwstack.volatility.survey import Survey

log = logging.getLogger(__name__)

_MAX_WALKED = 256
"""Deadlocks are looked for among so many threads. To walk all threads takes several times as long as the triage."""


def none_stuck(survey: Survey) -> str:
    """Return what was examined, and that none of it is stuck, as far as that is known; and where else threads hang."""
    record = survey.record
    processes, threads = record.examined.processes, record.examined.threads
    counts = f"{_counted(processes, 'process')}, {_counted(threads, 'thread')} examined"
    if record.unexamined or any(warning.may_hide_crash for warning in record.warnings):
        return f"{counts}: none was found stuck, but not all could be examined"
    if not threads and record.warnings:
        return f"{counts}: what was asked for is not there"
    if threads > _MAX_WALKED:
        return f"{counts}: none is stuck (windows.stackwalk shows deadlocks)"
    waiting = _in_deadlocks(survey)
    if not waiting:
        return f"{counts}: none is stuck"
    verb = "waits" if waiting == 1 else "wait"
    return f"{counts}: none is stuck; {_counted(waiting, 'thread')} {verb} in deadlocks (windows.stackwalk)"


def _in_deadlocks(survey: Survey) -> int:
    """Return how many threads are in a deadlock or wait for one that is."""
    from throwstack.volatility.thread_survey import ThreadSurvey  # noqa: PLC0415 where somebody is stuck, not needed

    waiting = 0
    with guarded(lambda reason: log.info("deadlocks cannot be looked for: %s", reason)):
        for report in ThreadSurvey(survey).reports():
            waiting += bool(report.cycle)
    return waiting


def no_context(survey: Survey, address: int) -> str:
    """Return that none of the processes looked at has a CONTEXT at an address."""
    processes = _counted(survey.record.examined.processes, "process")
    which = "" if survey.asked.has_processes else ": give the process with --pid to see what is there"
    return f"{processes} looked at: none has a user-mode CONTEXT at {address:#x}{which}"


def no_thread(survey: Survey) -> str:
    """Return that none of the processes looked at has a thread, or a stack, that was asked for."""
    return f"{_counted(survey.record.examined.processes, 'process')} looked at: none has a thread or a stack to show"


def _counted(count: int, what: str) -> str:
    plural = "es" if what.endswith("s") else "s"
    return f"{count:,} {what}{'' if count == 1 else plural}"
