# SPDX-License-Identifier: Apache-2.0
"""`throwstack vol`: Volatility's own command line, with our plugins."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from throwstack.cli import console
from throwstack.cli.exit_status import ExitStatus

NAME = "vol"
HELP = "run Volatility's vol with throwstack's plugins"


def run(arguments: Sequence[str]) -> tuple[int, Iterable[str]]:
    """Run `vol` with `arguments`, which Volatility parses, `-h` too."""
    try:
        from throwstack.volatility.opening import command_line  # noqa: PLC0415 volatility3 may be missing
    except ImportError as error:
        console.say(f"throwstack vol: volatility3 cannot be imported here ({sys.executable}): {error}")
        return ExitStatus.CANNOT, ()
    try:
        command_line.run(arguments)
    except OSError as error:  # its standard output is full, or its reader has had enough: a 1 of plain `vol` as well
        console.is_output_failure("throwstack vol", error)
        return 1, ()
    return ExitStatus.DONE, ()
