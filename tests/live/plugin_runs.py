# SPDX-License-Identifier: Apache-2.0
"""Runs both plugins on one fixture, without and with its PDBs, through `vol`'s own command line.

One process does all runs of a fixture: the start of Python and of Volatility is paid once. What each run prints goes
to a file beside the dump.

    python -m tests.live.plugin_runs FIXTURE_DIR
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import volatility3.cli

from tests.vol import CHECKOUT

PLUGINS = ("windows.unhandled", "windows.cxrstack")


def output_path(folder: Path, plugin: str, *, with_pdb: bool) -> Path:
    """Return the file that takes the rows of a run."""
    return folder / f"{plugin}{'.pdb' if with_pdb else ''}.json"


def run(folder: Path, plugin: str, *, with_pdb: bool) -> None:
    """Run a plugin with `-r json` and keep what it prints."""
    cache = folder / "cache"
    cache.mkdir(exist_ok=True)
    options = ["--symbol-path", str(folder / "pdb")] if with_pdb else []
    sys.argv = [
        *("vol", "-q", "--offline", "--cache-path", str(cache), "-r", "json"),
        *("-p", str(CHECKOUT / "plugins"), "-s", f"{folder / 'isf'};{CHECKOUT / 'symbols'}"),
        *("-f", str(folder / "MEMORY.DMP"), plugin, *options),
    ]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        volatility3.cli.main()
    rows: list[dict[str, Any]] = json.loads(printed.getvalue())
    output_path(folder, plugin, with_pdb=with_pdb).write_text(json.dumps(rows, indent=0) + "\n", encoding="utf-8")


def main() -> int:
    """Do all runs of the fixture in the directory given."""
    folder = Path(sys.argv[1]).resolve()
    for with_pdb in (False, True) if (folder / "pdb").exists() else (False,):
        for plugin in PLUGINS:
            run(folder, plugin, with_pdb=with_pdb)
    return 0


if __name__ == "__main__":
    sys.exit(main())
