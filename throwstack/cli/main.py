# SPDX-License-Identifier: Apache-2.0
"""The command `throwstack`. Its subcommands supplement the plugins, which run in `vol`."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from throwstack import __version__
from throwstack.cli import console
from throwstack.core.text import escape
from throwstack.files.at_hand import FilesAtHand

_ABOUT = """\
Finds the threads of a Windows memory image that are stuck on an unhandled exception. The plugins that do it run in
`vol`; these commands go around them.
"""
_DOCTOR = """\
Says what a file is, whether it is complete, which symbols it takes, how much of its processes can be read, and what to
do next. Exit status: 0 when it can serve windows.unhandled, 1 when in part, 2 when not; 64 for wrong usage, 130 when
interrupted.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments` (by default those of the process) and return its exit status."""
    return console.run("throwstack", lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> tuple[int, Iterable[str]]:
    parser = console.Parser(prog="throwstack", description=_ABOUT)
    parser.add_argument("--version", action="version", version=f"throwstack {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    doctor = commands.add_parser("doctor", help="say what a dump is good for", description=_DOCTOR)
    doctor.add_argument("dump", metavar="MEMORY.DMP", type=Path)
    doctor.add_argument("--json", action="store_true", help="print JSON")
    doctor.add_argument("-s", "--symbols", metavar="DIR", type=Path, action="append", default=[], help="ISF files")
    doctor.add_argument("--image-path", metavar="PATH", default="", help="where the machine's DLLs and EXEs are")
    doctor.add_argument(
        "--page-file", metavar="FILE", type=Path, action="append", default=[], help="a page file, in order of number"
    )
    # Volatility parses what comes after `vol`, `-h` too.
    commands.add_parser("vol", help="run Volatility's vol with throwstack's plugins", add_help=False)
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] == ["vol"]:
        return _vol(given[1:])
    options = parser.parse_args(given)
    for path in options.page_file:
        if not path.is_file():
            doctor.error(f"--page-file: {path} is not a file")
    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    return _doctor(options)


def _vol(arguments: Sequence[str]) -> tuple[int, Iterable[str]]:
    try:
        from throwstack.volatility.opening import command_line  # noqa: PLC0415 volatility3 may be missing
    except ImportError as error:
        console.say(f"throwstack vol: volatility3 cannot be imported here ({sys.executable}): {error}")
        return console.CANNOT, ()
    try:
        command_line.run(arguments)
    except OSError as error:  # its standard output is full, or its reader has had enough: a 1 of plain `vol` as well
        console.is_output_failure("throwstack vol", error)
        return 1, ()
    return 0, ()


def _doctor(options: argparse.Namespace) -> tuple[int, Iterable[str]]:
    from throwstack.doctor.doctor_report import DoctorVerdict, as_json, as_text  # noqa: PLC0415
    from throwstack.doctor.examine import examine  # noqa: PLC0415 imports volatility3, which may be missing

    files = FilesAtHand(
        options.symbols, symbol_path="", image_path=options.image_path, page_files=options.page_file, is_offline=True
    )
    try:
        report = examine(options.dump, files, _say)
    except OSError as error:
        console.say(f"throwstack doctor: {escape(str(options.dump), 1024)}: {error.strerror or error}")
        return DoctorVerdict.DOES_NOT_SERVE.value, ()
    lines = [json.dumps(as_json(report), indent=2)] if options.json else as_text(report)
    return report.verdict.value, lines


def _say(message: str) -> None:
    if sys.stderr is not None and sys.stderr.isatty():
        console.say(escape(message))
