# SPDX-License-Identifier: Apache-2.0
"""The worst crash is told first."""

from __future__ import annotations

from throwstack.core.sides import Side
from throwstack.report.crash_order import is_stuck, worst_first
from throwstack.report.crash_report import CrashReport, ExceptionReport, ProcessSummary
from throwstack.report.values import Hexadecimal
from throwstack.report.verdict import CrashVerdict, VerdictCode

THROWN = (ExceptionReport(Hexadecimal(0xC0000005), Hexadecimal(0x401000)),)


def crash(tid: int, code: VerdictCode, exceptions: tuple[ExceptionReport, ...] = ()) -> CrashReport:
    verdict = CrashVerdict(code, code.value)
    return CrashReport(ProcessSummary(4, "app.exe"), tid, Side.NATIVE, "x64", verdict, exceptions=exceptions)


def test_unhandled_exceptions_first_and_handled_ones_last():
    given = [
        crash(1, VerdictCode.HANDLED, THROWN),
        crash(2, VerdictCode.ERROR_BOX),
        crash(3, VerdictCode.VECTORED_HANDLER, THROWN),
        crash(4, VerdictCode.ABORT),
        crash(5, VerdictCode.CRASHED_WAITING_FOR_WER, THROWN),
        crash(6, VerdictCode.CRASHED, THROWN),
    ]
    assert [one.tid for one in worst_first(given)] == [5, 6, 4, 3, 2, 1]


def test_a_thread_whose_exception_was_handled_is_not_stuck():
    assert not is_stuck(crash(1, VerdictCode.HANDLED, THROWN))
    assert is_stuck(crash(2, VerdictCode.ERROR_BOX))
