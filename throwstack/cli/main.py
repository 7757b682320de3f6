# SPDX-License-Identifier: Apache-2.0
"""The command `throwstack`: one module for each subcommand, with its name, its help, its options and its run."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Sequence

from throwstack import __version__
from throwstack.cli import (
    console,
    doctor_command,
    dump_options,
    minidump_command,
    report_command,
    scan_command,
    vol_command,
)

_ABOUT = """\
Finds the threads of a Windows memory image that are stuck on an unhandled exception, and the stacks that threw.
"""
_COMMANDS = (report_command, minidump_command, scan_command, doctor_command)
"""The commands whose arguments are parsed here; a new command's module goes into this list."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments` (by default those of the process) and return its exit status."""
    return console.run("throwstack", lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> tuple[int, Iterable[str]]:
    parser = console.Parser(prog="throwstack", description=_ABOUT)
    parser.add_argument("--version", action="version", version=f"throwstack {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    for command in _COMMANDS:
        of_command = commands.add_parser(
            command.NAME, usage=command.USAGE, help=command.HELP, description=command.DESCRIPTION
        )
        command.add_options(of_command)
        of_command.set_defaults(run=command.run, parser=of_command)
    # Volatility parses what comes after `vol`, `-h` too.
    commands.add_parser(vol_command.NAME, help=vol_command.HELP, add_help=False)
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] == [vol_command.NAME]:
        return vol_command.run(given[1:])
    options = parser.parse_args(given)
    dump_options.check(options.parser, options)
    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    result: tuple[int, Iterable[str]] = options.run(options)
    return result
