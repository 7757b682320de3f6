# SPDX-License-Identifier: Apache-2.0
"""`throwstack minidump`: a user-mode minidump of each stuck process, opened at the throw by any debugger."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from throwstack.cli import console, dump_options
from throwstack.cli.exit_status import ExitStatus
from throwstack.cli.opened_dump import opened_dump
from throwstack.core.errors import ThrowstackError
from throwstack.core.text import escape

if TYPE_CHECKING:
    from throwstack.minidump.minidump_report import MinidumpReport
    from throwstack.report.dump_report import ReportWarning, UnexaminedProcess

NAME = "minidump"
USAGE = "%(prog)s MEMORY.DMP [option ...]"
HELP = "write a minidump of each stuck process"
DESCRIPTION = """\
Writes a user-mode minidump of each process that has a thread stuck on an unhandled exception, which WinDbg, Visual
Studio, LLDB and crash pipelines open at the throw: PROCESS-PID-SIGNATUREHASH.dmp. With --pid, of these processes, stuck
or not. A file that exists is never replaced. Exit status: 0 when minidumps were written, 1 when no thread is stuck, 3
when not all could be written or stuck threads may have been missed, 2 when the dump cannot be examined; 64 for wrong
usage, 130 when interrupted.
"""


_MAX_SAID = 20
"""The most reasons that are said why a stuck thread may have been missed."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to `parser`."""
    parser.add_argument("dump", metavar="MEMORY.DMP", type=Path, help="the memory image")
    number = dump_options.identifier
    parser.add_argument(
        "--pid",
        metavar="PID",
        type=number,
        nargs="+",
        action="extend",
        default=[],
        help="only these processes, stuck or not: 2564, 0xa04, a04",
    )
    parser.add_argument("--tid", metavar="TID", type=number, help="open the minidump at this thread's exception")
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, default=Path(), help="where to (default: here)")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--full", action="store_true", help="with all readable memory of the process")
    size.add_argument("--small", action="store_true", help="with stacks and what the exception is about (default)")
    parser.add_argument(
        "--wow64",
        choices=["x86", "native"],
        default="x86",
        help="which minidump of 32-bit processes on 64-bit Windows: of 32 bits (default), or of 64 bits",
    )
    dump_options.add_dump_options(parser)


def run(options: argparse.Namespace) -> tuple[int, Iterable[str]]:
    """Write the minidumps and return the exit status and the lines to print."""
    lines: list[str] = []
    missed: list[ReportWarning | UnexaminedProcess] = []
    failed = 0
    if os.path.exists(options.output) and not os.path.isdir(options.output):  # noqa: PTH110, PTH112 raise
        console.say(f"throwstack minidump: {escape(str(options.output), 1024)} is not a directory")
        return ExitStatus.CANNOT, ()
    try:
        options.output.mkdir(parents=True, exist_ok=True)
        with opened_dump(options) as dump:
            tids = [] if options.tid is None else [options.tid]
            for report in dump.minidumps(
                options.output,
                pids=options.pid,
                tids=tids,
                full=options.full,
                wow64=options.wow64,
                on_miss=missed.append,
            ):
                if report.path is None:
                    failed += 1
                    console.say(f"throwstack minidump: {report.process} (PID {report.pid}): {report.problem}")
                else:
                    lines.append(line_of(report))
    except ThrowstackError as error:
        console.say(f"throwstack minidump: {error}")
        return ExitStatus.CANNOT, lines
    except OSError as error:
        console.say(f"throwstack minidump: {escape(str(options.output), 1024)}: {error.strerror or error}")
        return ExitStatus.CANNOT, lines
    for one in missed[:_MAX_SAID]:
        console.say(f"throwstack minidump: {_text(one)}")
    if not lines:
        stuck = "" if options.pid or missed else "no thread is stuck on an unhandled exception: "
        console.say(f"throwstack minidump: {stuck}no minidump was written")
    if failed or any(_may_hide(one) for one in missed):
        return ExitStatus.IN_PART, lines
    return (ExitStatus.DONE if lines else ExitStatus.NOTHING), lines


def _text(missed: ReportWarning | UnexaminedProcess) -> str:
    from throwstack.report.dump_report import ReportWarning  # noqa: PLC0415 commands start quickly
    from throwstack.report.text.dump_lines import unexamined_text, warning_text  # noqa: PLC0415

    return warning_text(missed) if isinstance(missed, ReportWarning) else unexamined_text(missed)


def _may_hide(missed: ReportWarning | UnexaminedProcess) -> bool:
    from throwstack.report.dump_report import ReportWarning  # noqa: PLC0415

    return not isinstance(missed, ReportWarning) or missed.may_hide_crash


def line_of(report: MinidumpReport) -> str:
    """Return the line on a minidump: its path, its process, its exception, its size, and what is not in it."""
    return "; ".join(_parts(report))


def _parts(report: MinidumpReport) -> Iterator[str]:
    yield f"{escape(str(report.path), 1024)}: {report.process} (PID {report.pid}), {report.arch}"
    if report.tid is not None:
        yield f"thread {report.tid}: {report.title or 'stuck, and no exception to open it at'}"
    yield f"{report.size:,} bytes"
    yield from (f"without {what}" for what in report.left_out)
