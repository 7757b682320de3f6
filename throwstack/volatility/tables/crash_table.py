# SPDX-License-Identifier: Apache-2.0
"""The table of `windows.unhandled`, which has a row per stuck thread."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass

from volatility3.framework.renderers import format_hints

from throwstack.core.registers import Arch
from throwstack.core.text import escape
from throwstack.report.crash_report import CrashReport, ExceptionReport
from throwstack.volatility.tables.columns import Column, joined


@dataclass(frozen=True, slots=True)
class CrashRow:
    """A row for a crash, with the kernel objects of its thread and its process."""

    crash: CrashReport
    ethread: int
    eprocess: int


def _of(value: Callable[[CrashReport], object]) -> Callable[[CrashRow], object]:
    return lambda row: value(row.crash)


def _of_exception(value: Callable[[ExceptionReport], object]) -> Callable[[CrashRow], object]:
    """Return a function from a row to `value` of the exception that the crash is named after, or None without one."""
    return lambda row: None if row.crash.exception is None else value(row.crash.exception)


def _digits(row: CrashRow) -> int:
    return 2 * (Arch.X64 if row.crash.arch == Arch.X64.value else Arch.X86).pointer_size


def _kernel_digits(row: CrashRow) -> int:
    return 2 * (Arch.X86 if row.crash.arch == Arch.X86.value else Arch.X64).pointer_size


CRASH_SHOWN = ("PID", "Process", "TID", "Exception", "Thrown At", "Blocked In", "Verdict", "Signature", "Notes")
"""The columns that a person sees without `--wide`."""
CRASH_COLUMNS: list[Column[CrashRow]] = [
    Column("PID", int, _of(lambda crash: crash.pid)),
    Column("Process", str, _of(lambda crash: escape(crash.process.name))),
    Column("TID", int, _of(lambda crash: crash.tid)),
    Column("Arch", str, _of(lambda crash: crash.arch)),
    Column("Blocked In", str, _of(lambda crash: escape(crash.blocked_in)), is_prose=True),
    Column("Code", format_hints.Hex, _of_exception(lambda exception: exception.code)),
    Column("Exception", str, _of_exception(lambda exception: exception.title or None), is_prose=True),
    Column("Address", format_hints.Hex, _of_exception(lambda exception: exception.address), _digits),
    Column("Thrown At", str, _of(lambda crash: escape(crash.thrown_at) or None), is_prose=True),
    Column("Record", format_hints.Hex, _of_exception(lambda exception: exception.record_address), _digits),
    Column("Context", format_hints.Hex, _of_exception(lambda exception: exception.context_address), _digits),
    Column("Found By", str, _of_exception(lambda exception: exception.found_by)),
    Column("Blocked Since", datetime.datetime, _of(lambda crash: crash.blocked_since)),
    Column("Verdict", str, _of(lambda crash: crash.verdict.text), is_prose=True),
    Column(
        "Signature", str, _of(lambda crash: None if crash.signature is None else str(crash.signature)), is_prose=True
    ),
    Column("Details", str, _of_exception(lambda exception: joined(exception.details) or None)),
    Column(
        "Notes", str, _of(lambda crash: joined([*crash.process.problems, *crash.doubts, *crash.notes])), is_prose=True
    ),
    Column("ETHREAD", format_hints.Hex, lambda row: row.ethread, _kernel_digits),
    Column("EPROCESS", format_hints.Hex, lambda row: row.eprocess, _kernel_digits),
]
