# SPDX-License-Identifier: Apache-2.0
"""The table of `windows.unhandled`, which has a row per stuck thread."""

from __future__ import annotations

import datetime
from collections.abc import Callable

from volatility3.framework.renderers import format_hints

from throwstack.core.text import escape
from throwstack.report.crash_report import CrashReport, ExceptionReport
from throwstack.volatility.tables.columns import Column, joined


def _of_exception(value: Callable[[ExceptionReport], object]) -> Callable[[CrashReport], object]:
    """Return a function from a crash to `value` of the exception that the crash is named after, or None without one."""
    return lambda crash: None if crash.exception is None else value(crash.exception)


CRASH_COLUMNS: list[Column[CrashReport]] = [
    Column("PID", int, lambda crash: crash.pid),
    Column("Process", str, lambda crash: escape(crash.process.name)),
    Column("TID", int, lambda crash: crash.tid),
    Column("Arch", str, lambda crash: crash.arch),
    Column("Blocked In", str, lambda crash: escape(crash.blocked_in)),
    Column("Code", format_hints.Hex, _of_exception(lambda exception: exception.code)),
    Column("Exception", str, _of_exception(lambda exception: exception.title or None)),
    Column("Address", format_hints.Hex, _of_exception(lambda exception: exception.address)),
    Column("Thrown At", str, lambda crash: escape(crash.thrown_at) or None),
    Column("Record", format_hints.Hex, _of_exception(lambda exception: exception.record_address)),
    Column("Context", format_hints.Hex, _of_exception(lambda exception: exception.context_address)),
    Column("Found By", str, _of_exception(lambda exception: exception.found_by)),
    Column("Blocked Since", datetime.datetime, lambda crash: crash.blocked_since),
    Column("Verdict", str, lambda crash: crash.verdict.text),
    Column("Signature", str, lambda crash: None if crash.signature is None else str(crash.signature)),
    Column("Details", str, _of_exception(lambda exception: joined(exception.details) or None)),
    Column("Notes", str, lambda crash: joined([*crash.process.problems, *crash.doubts, *crash.notes])),
]
