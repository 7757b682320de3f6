# SPDX-License-Identifier: Apache-2.0
"""`throwstack doctor`: what a file is, and whether it can serve."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from throwstack.cli import console, dump_options
from throwstack.cli.exit_status import ExitStatus
from throwstack.core.text import escape
from throwstack.files.at_hand import FilesAtHand

NAME = "doctor"
HELP = "say what a dump is good for"
DESCRIPTION = """\
Says what a file is, whether it is complete, which symbols it takes, how much of its processes can be read, and what to
do next. Exit status: 0 when it can serve windows.unhandled, 3 when in part, 2 when not; 64 for wrong usage, 130 when
interrupted.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to `parser`."""
    parser.add_argument("dump", metavar="MEMORY.DMP", type=Path)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--dotnet",
        action="store_true",
        help="only what .NET's structures look like, without the dump's data: to be attached to a bug report",
    )
    dump_options.add_dump_options(parser)


def run(options: argparse.Namespace) -> tuple[int, Iterable[str]]:
    """Examine the file and return the exit status and the lines to print."""
    from throwstack.doctor.doctor_report import as_json, as_text  # noqa: PLC0415
    from throwstack.doctor.examine import examine  # noqa: PLC0415 imports volatility3, which may be missing

    files = replace(dump_options.files_at_hand(options), is_offline=True)
    try:
        if options.dotnet:
            return _dotnet(options, files)
        report = examine(options.dump, files, _say)
    except OSError as error:
        console.say(f"throwstack doctor: {escape(str(options.dump), 1024)}: {error.strerror or error}")
        return ExitStatus.CANNOT, ()
    lines = [json.dumps(as_json(report), indent=2)] if options.json else as_text(report)
    return report.verdict.value, lines


def _dotnet(options: argparse.Namespace, files: FilesAtHand) -> tuple[int, Iterable[str]]:
    from throwstack.doctor import dotnet_report  # noqa: PLC0415 imports volatility3, which may be missing

    report = dotnet_report.examine_dotnet(options.dump, files, _say)
    status = ExitStatus.NOTHING if report.is_examined else ExitStatus.CANNOT
    if report.processes:
        status = ExitStatus.DONE
    return status, [json.dumps(dotnet_report.as_json(report), indent=2)] if options.json else dotnet_report.as_text(
        report
    )


def _say(message: str) -> None:
    if sys.stderr is not None and sys.stderr.isatty():
        console.say(escape(message))
