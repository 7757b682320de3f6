# SPDX-License-Identifier: Apache-2.0
"""`throwstack report`: the whole answer for a person, as text, as a page, or as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from throwstack import __version__
from throwstack.cli import console, dump_options, result_files
from throwstack.cli.exit_status import ExitStatus
from throwstack.cli.opened_dump import opened_dump
from throwstack.core.errors import ThrowstackError

if TYPE_CHECKING:
    from throwstack.report.dump_report import DumpReport

NAME = "report"
USAGE = "%(prog)s MEMORY.DMP [option ...]"
HELP = "say who crashed, on what, and where: for a person, as text, page or JSON"
DESCRIPTION = """\
Finds the threads that are stuck on an unhandled exception, and says what was thrown, where, and why each thread is not
gone: text to read, to attach and to search. Exit status: 0 when there are stuck threads and nothing may hide others; 1
when there are none and nothing may hide one; 3 when something may hide a stuck thread, whether others were found or not
(the text says what, at its end); 2 when the dump cannot be examined or a result not written; 64 for wrong usage, 130
when interrupted.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to `parser`."""
    parser.add_argument("dump", metavar="MEMORY.DMP", type=Path, help="the memory image")
    parser.add_argument(
        "--json",
        metavar="FILE",
        type=Path,
        help="write the report as JSON; - is stdout, in place of the text",
    )
    parser.add_argument(
        "--html", metavar="FILE", type=Path, help="write the report as one page for a browser; - as for --json"
    )
    parser.add_argument("--force", action="store_true", help="overwrite files that exist")
    parser.add_argument("--quiet", action="store_true", help="print no text")
    parser.add_argument("--all-threads", action="store_true", help="show the stacks of threads that are not stuck")
    parser.add_argument(
        "--handled", action="store_true", help="also threads with an exception that a handler has taken"
    )
    dump_options.add_selection_options(parser, by_name=True)
    dump_options.add_dump_options(parser)


def run(options: argparse.Namespace) -> tuple[int, Iterable[str]]:
    """Make the report and write it; return the exit status and the lines to print."""
    if options.json == options.html == result_files.STDOUT:
        options.parser.error("--json and --html: only one of them can go to standard output")
    try:
        result_files.check_all(_files(options), (options.dump, *options.page_file), force=options.force)
        report = _report(options)
        return status_of(report), _written(report, options)
    except (ThrowstackError, ImportError) as error:
        console.say(f"throwstack report: {error}")
        return ExitStatus.CANNOT, ()


def status_of(report: DumpReport) -> ExitStatus:
    """Return the exit status that says what is in `report`.

    What may hide a stuck thread has priority: only without it is a report whole. That a process or thread that was
    asked for is not there hides nothing.
    """
    from throwstack.report.crash_order import is_stuck  # noqa: PLC0415 commands start quickly

    if not report.is_whole:
        return ExitStatus.IN_PART
    return ExitStatus.DONE if any(map(is_stuck, report.crashes)) else ExitStatus.NOTHING


def _files(options: argparse.Namespace) -> list[Path]:
    return [path for path in (options.json, options.html) if path is not None and path != result_files.STDOUT]


def _report(options: argparse.Namespace) -> DumpReport:
    with opened_dump(options) as dump:
        return dump.report(
            pids=options.pid,
            tids=options.tid,
            wow64=options.wow64,
            names=options.process,
            handled=options.handled,
        )


def _written(report: DumpReport, options: argparse.Namespace) -> Iterable[str]:
    """Write the files that were asked for, and return the lines for standard output."""
    text = "" if options.json is None else json.dumps(_as_json(report), indent=2)
    if options.json is not None and options.json != result_files.STDOUT:
        result_files.write(options.json, f"{text}\n", force=options.force)
    if options.html is not None:
        from throwstack.report.page.report_page import page_of  # noqa: PLC0415 jinja2 takes time to load

        page = page_of(report, version=__version__)
        if options.html == result_files.STDOUT:
            return [page.removesuffix("\n")]
        result_files.write(options.html, page, force=options.force)
    if options.json == result_files.STDOUT:
        return [text]
    return () if options.quiet else _text(report, options)


def _as_json(report: DumpReport) -> object:
    from throwstack.report.json_form import to_json  # noqa: PLC0415 commands start quickly

    return to_json(report)


def _text(report: DumpReport, options: argparse.Namespace) -> Iterable[str]:
    from rich.console import Console  # noqa: PLC0415 takes a tenth of a second to load

    from throwstack.report.text.report_text import lines_of  # noqa: PLC0415
    from throwstack.report.text.text_lines import WIDTH, TextStyle  # noqa: PLC0415

    out = Console(file=sys.stdout)
    colours = out.is_terminal and out.color_system is not None and not out.no_color and not out.legacy_windows
    width = min(out.width, WIDTH) if out.is_terminal else WIDTH
    return lines_of(report, TextStyle(colours, options.all_threads, width))
