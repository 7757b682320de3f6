# SPDX-License-Identifier: Apache-2.0
"""Runs `throwstack vol`: Volatility's own command line, with our plugins even if plain `vol` does not find them.

Plain `vol` does not find them if it belongs to another interpreter than throwstack (`--system-site-packages`), or runs
without start-up hooks (`python -S`, frozen executables).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import volatility3.plugins

from throwstack.volatility_hook import extend

NAME = "throwstack vol"


def run(arguments: Sequence[str]) -> None:
    """Run `vol` with `arguments`; raises SystemExit if `vol` ends with a status."""
    try:
        extend(volatility3.plugins)
    except LookupError as error:  # an installation that has lost its plugins
        sys.stderr.write(f"{NAME}: {error}\n")
        raise SystemExit(2) from None
    sys.argv = [NAME, *arguments]
    from volatility3.cli import main  # noqa: PLC0415 takes the name it shows from sys.argv as it is imported

    main()
