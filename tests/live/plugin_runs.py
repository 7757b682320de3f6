# SPDX-License-Identifier: Apache-2.0
"""Runs the plugins on one fixture, without and with its PDBs, through `vol`'s own command line.

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

from tests.live.locks import SCENARIO, STACKWALK
from tests.support.vol import CHECKOUT

PLUGINS = ("windows.unhandled", "windows.cxrstack")


def output_path(folder: Path, plugin: str, *, with_pdb: bool) -> Path:
    """Return the file that takes the rows of a run."""
    return folder / f"{plugin}{'.pdb' if with_pdb else ''}.json"


def symbol_choices(folder: Path) -> tuple[bool, ...]:
    """Return how a fixture can be looked at: without PDBs (False), and with them (True) if it has any."""
    return (False, True) if (folder / "pdb").exists() else (False,)


def walks_all(folder: Path) -> bool:
    """Say whether a fixture is one whose waiting threads are compared: their locks, or the stacks that they noted."""
    return are_locks_compared(folder) or bool(read_truth(folder)["walked"])


def are_locks_compared(folder: Path) -> bool:
    """Say whether a fixture is one whose threads' locks are compared."""
    return folder.name.endswith(f"-{SCENARIO}")


def read_truth(folder: Path) -> dict[str, Any]:
    """Return a fixture's truth."""
    truth: dict[str, Any] = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    return truth


def rows(folder: Path, plugin: str, *, with_pdb: bool) -> list[dict[str, Any]]:
    """Run a plugin with `-r json` in this process and return its rows. Raises RuntimeError with its complaint."""
    # Imported here, because plugins are found once `vol` has set its paths, and not before.
    from volatility3 import cli  # noqa: PLC0415

    cache = folder / "cache"
    cache.mkdir(exist_ok=True)
    options = ["--symbol-path", str(folder / "pdb")] if with_pdb else []
    arguments = [
        *("vol", "-q", "--offline", "--cache-path", str(cache), "-r", "json"),
        *("-p", str(CHECKOUT / "plugins"), "-s", f"{folder / 'isf'};{CHECKOUT / 'symbols'}"),
        *("-f", str(folder / "MEMORY.DMP"), plugin, *options),
    ]
    kept, sys.argv = sys.argv, arguments
    printed, complaints = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(complaints):
            cli.main()
    except SystemExit as left:
        message = f"{plugin}: {' '.join(complaints.getvalue().split())}"
        raise RuntimeError(message) from left
    finally:
        sys.argv = kept
    found: list[dict[str, Any]] = json.loads(printed.getvalue())
    return found


def main() -> int:
    """Do all runs of the fixture in the directory given."""
    folder = Path(sys.argv[1]).resolve()
    for with_pdb in symbol_choices(folder):
        for plugin in (*PLUGINS, STACKWALK) if walks_all(folder) else PLUGINS:
            text = json.dumps(rows(folder, plugin, with_pdb=with_pdb), indent=0)
            output_path(folder, plugin, with_pdb=with_pdb).write_text(text + "\n", encoding="utf-8")
    if read_truth(folder).get("values"):
        crashes_path(folder).write_text(json.dumps(crashes(folder), indent=0) + "\n", encoding="utf-8")
    return 0


def crashes_path(folder: Path) -> Path:
    """Return the file that takes the reports on the crashes of a fixture whose values are compared."""
    return folder / "windows.crashes.json"


def crashes(folder: Path) -> list[dict[str, Any]]:
    """Return the reports on the crashes of a fixture, with its PDBs, as JSON."""
    import throwstack  # noqa: PLC0415 after `vol` has set its paths

    with throwstack.open(
        folder / "MEMORY.DMP", symbols=[folder / "isf"], symbol_path=str(folder / "pdb"), offline=True
    ) as dump:
        return [throwstack.to_json(crash) for crash in dump.crashes()]


if __name__ == "__main__":
    sys.exit(main())
