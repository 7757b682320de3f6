# SPDX-License-Identifier: Apache-2.0
"""`throwstack doctor`: what a file is, and whether it can serve."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from throwstack.cli import console, dump_options, result_files
from throwstack.cli.exit_status import ExitStatus
from throwstack.core.text import escape

NAME = "doctor"
USAGE = "%(prog)s MEMORY.DMP [option ...]"
HELP = "say what a dump is good for"
DESCRIPTION = """\
Says what a file is, whether it is complete, which symbols it takes, how much of its processes can be read, and what to
do next. Exit status: 0 when it can serve windows.unhandled, 3 when in part, 2 when not; with --dotnet, 1 when
no process has .NET; 64 for wrong usage, 130 when interrupted.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to `parser`."""
    parser.add_argument("dump", metavar="MEMORY.DMP", type=Path, help="the memory image")
    parser.add_argument(
        "--json", metavar="FILE", type=Path, help="write the findings as JSON; - is stdout, in place of the text"
    )
    parser.add_argument("--force", action="store_true", help="overwrite a file that exists")
    parser.add_argument("--quiet", action="store_true", help="print no text")
    parser.add_argument(
        "--dotnet",
        action="store_true",
        help="only what .NET's structures look like, without the dump's data: to be attached to a bug report",
    )
    dump_options.add_dump_options(parser)


def run(options: argparse.Namespace) -> tuple[int, Iterable[str]]:
    """Examine the file and return the exit status and the lines to print."""
    file = None if options.json in (None, result_files.STDOUT) else options.json
    try:
        if file is not None:
            result_files.check_all([file], (options.dump, *options.page_file), force=options.force)
        status, values, lines = (_dotnet if options.dotnet else _whole)(options)
        text = "" if options.json is None else json.dumps(values(), indent=2)
        if file is not None:
            result_files.write(file, f"{text}\n", force=options.force)
    except OSError as error:
        console.say(f"throwstack doctor: {escape(str(options.dump), 1024)}: {error.strerror or error}")
        return ExitStatus.CANNOT, ()
    except ValueError as error:
        if "\0" not in str(options.dump):
            raise
        console.say(f"throwstack doctor: {escape(str(options.dump), 1024)}: this can be no file's path: {error}")
        return ExitStatus.CANNOT, ()
    except result_files.ResultNotWritten as error:
        console.say(f"throwstack doctor: {error}")
        return ExitStatus.CANNOT, ()
    if options.json == result_files.STDOUT:
        return status, [text]
    return status, () if options.quiet else lines()


_Examined = tuple[int, Callable[[], Any], Callable[[], Iterable[str]]]
"""The exit status, what makes the values of the JSON, and what makes the lines of the text."""


def _whole(options: argparse.Namespace) -> _Examined:
    from throwstack.doctor.doctor_report import as_json, as_text  # noqa: PLC0415
    from throwstack.doctor.examine import examine  # noqa: PLC0415 imports volatility3, which may be missing

    report = examine(options.dump, dump_options.files_at_hand(options), _say)
    return report.verdict.value, partial(as_json, report), partial(as_text, report)


def _dotnet(options: argparse.Namespace) -> _Examined:
    from throwstack.doctor import dotnet_report  # noqa: PLC0415 imports volatility3, which may be missing

    report = dotnet_report.examine_dotnet(options.dump, dump_options.files_at_hand(options), _say)
    status = ExitStatus.NOTHING if report.is_examined else ExitStatus.CANNOT
    if report.processes:
        status = ExitStatus.DONE
    return status, partial(dotnet_report.as_json, report), partial(dotnet_report.as_text, report)


def _say(message: str) -> None:
    if sys.stderr is not None and sys.stderr.isatty():
        console.say(escape(message))
