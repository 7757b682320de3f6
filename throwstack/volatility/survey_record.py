# SPDX-License-Identifier: Apache-2.0
"""Records what a survey looked at, and why it may have missed a stuck thread; each reason is kept once."""

from __future__ import annotations

from throwstack.core.text import escape
from throwstack.report.dump_report import Examined, ReportWarning, UnexaminedProcess, WarningCode
from throwstack.report.frame_report import WHOLE

_MAX_WARNINGS = 10_000
"""The limit on warnings. A hostile dump may cause one for each of millions of threads."""


class SurveyRecord:
    """Collects warnings, processes that could not be examined, and counts."""

    def __init__(self) -> None:
        """Begin with no warnings, no processes, and counts of zero."""
        self._warnings: dict[ReportWarning, None] = {}
        self._left_out = 0
        self._unexamined: list[UnexaminedProcess] = []
        self._processes = 0
        self._threads = 0

    def count(self, *, processes: int = 0, threads: int = 0) -> None:
        """Add to the counts of examined processes and threads."""
        self._processes += processes
        self._threads += threads

    def warn(self, code: WarningCode, text: str, *, pid: int | None = None, tid: int | None = None) -> None:
        """Record a reason why a stuck thread may have been missed, with the process and thread concerned, if any."""
        warning = ReportWarning(code, escape(text, WHOLE), pid, tid)
        if len(self._warnings) < _MAX_WARNINGS:
            self._warnings[warning] = None
        elif warning not in self._warnings:
            self._left_out += 1

    def not_examined(self, reason: str, *, pid: int | None, name: str) -> None:
        """Note a process that cannot be examined."""
        if len(self._unexamined) < _MAX_WARNINGS:
            self._unexamined.append(UnexaminedProcess(escape(reason, WHOLE), pid, escape(name, WHOLE)))
        else:
            self._left_out += 1

    @property
    def examined(self) -> Examined:
        """Return how many processes and threads were examined."""
        return Examined(self._processes, self._threads)

    @property
    def warnings(self) -> tuple[ReportWarning, ...]:
        """Return the warnings in the order in which they were found; the last one says if some were left out."""
        if not self._left_out:
            return tuple(self._warnings)
        more = ReportWarning(WarningCode.LIMIT, f"{self._left_out} more reasons were left out")
        return (*self._warnings, more)

    @property
    def unexamined(self) -> tuple[UnexaminedProcess, ...]:
        """Return the processes that could not be examined."""
        return tuple(self._unexamined)
