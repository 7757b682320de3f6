# SPDX-License-Identifier: Apache-2.0
"""Who runs a plugin, and what that renders: plain `vol`, `throwstack vol`, volshell, other plugins, programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Forge
from tests.support.vol import CHECKOUT, vol
from throwstack.volatility.running_vol import RunningVol, running_vol
from throwstack.volatility.tables.crash_table import CRASH_COLUMNS, CRASH_SHOWN

EVERY = [column.title for column in CRASH_COLUMNS]
SHOWN = list(CRASH_SHOWN)


def titles(text: str) -> list[str]:
    """Return the titles of a table that `quick` printed."""
    (line,) = (line for line in text.splitlines() if "Exception\t" in line and "Verdict" in line)
    return line.strip().split("\t")


@pytest.mark.parametrize(
    "options",
    [
        ("-r", "quick"),
        ("--rend", "quick"),
        ("--renderer=quick",),
        ("-rquick",),
        (),  # Volatility's default is quick
        ("-l", "json"),  # a log file called json
    ],
)
def test_plain_vol(forged: Forge, tmp_path: Path, monkeypatch, options: tuple[str, ...]):
    out, _ = forged("ftp-2003")
    monkeypatch.chdir(tmp_path)
    assert titles(vol(out, "windows.unhandled", renderer=None, more=options).out) == SHOWN


def test_a_configuration_that_another_plugin_saved(forged: Forge, tmp_path: Path):
    out, _ = forged("ftp-2003")
    config = tmp_path / "config.json"
    vol(out, "windows.pslist", more=("--save-config", str(config)))
    assert titles(vol(out, "windows.unhandled", renderer="quick", more=("-c", str(config))).out) == SHOWN
    (row,) = vol(out, "windows.unhandled", more=("-c", str(config))).rows
    assert set(EVERY) < set(row)


def started(forged: Path, cache: Path, *command: str, given: str = "") -> str:
    """Run another command on the dump in `forged`, with `given` as its input; return what it printed."""
    options = ("--offline", "--cache-path", str(cache), "-p", str(CHECKOUT / "plugins"), "-s", str(forged / "isf"))
    done = subprocess.run(
        [sys.executable, *command, *options, "-f", str(forged / "MEMORY.DMP")] if given else [sys.executable, *command],
        input=given,
        capture_output=True,
        encoding="utf-8",
        check=False,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        timeout=300,
    )
    return done.stdout + done.stderr


def test_throwstack_vol_and_a_program_that_calls_main(forged: Forge, tmp_path: Path):
    out, _ = forged("ftp-2003")
    options = ["-q", "--offline", "--cache-path", str(tmp_path), "-s", str(out / "isf"), "-f", str(out / "MEMORY.DMP")]
    said = started(out, tmp_path, "-m", "throwstack.cli", "vol", *options, "windows.unhandled")
    assert titles(said) == SHOWN


def test_volshell_gets_all_columns(forged: Forge, tmp_path: Path):
    out, _ = forged("ftp-2003")
    script = (
        "from volatility3.plugins.windows import unhandled\n"
        "dpo(unhandled.Unhandled, kernel=self.config['kernel'])\n"
        "exit()\n"
    )
    main = "import sys; from volatility3.cli.volshell import main; sys.argv[0] = 'volshell'; main()"
    said = started(out, tmp_path, "-c", main, "-w", "-q", given=script)
    assert titles(said) == EVERY


class Plugin:
    """What `constructed` is in Volatility's command."""


def test_a_plugin_that_another_one_runs_is_not_the_one_that_is_rendered(monkeypatch):
    from volatility3 import cli  # noqa: PLC0415

    found: list[Any] = []
    mine, other = Plugin(), Plugin()

    class Options:
        renderer, filters, hide_columns, quiet = "Pretty", ["PID,4"], None, True

    def run(_self: object) -> None:
        constructed, args = mine, Options
        found.append(running_vol(constructed))
        found.append(running_vol(other))
        del args

    monkeypatch.setattr(cli.CommandLine, "run", run)
    cli.CommandLine.run(None)
    assert found == [RunningVol("pretty", filters=("PID,4",)), None]
    assert running_vol(mine) is None, "a program runs it"


def test_timeliner_gets_its_events(forged: Forge, tmp_path: Path):
    out, _ = forged("ftp-2003")
    done = vol(out, "timeliner", "--plugin-filter", "windows.unhandled", renderer="quick", more=("-o", str(tmp_path)))
    assert "Unhandled exception: iftpsvc.exe" in done.out


def test_json_of_a_run_that_shows_progress_can_be_read(forged: Forge):
    out, _ = forged("ftp-2003")
    done = vol(out, "windows.unhandled", is_quiet=False)
    assert json.loads(done.out) == vol(out, "windows.unhandled").rows
    assert done.err.rstrip().endswith("Progress:  100.00")
