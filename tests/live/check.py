# SPDX-License-Identifier: Apache-2.0
"""Runs the plugins on the fixtures, with PDBs and with them withheld, and says whether the figures are good enough."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.live import locks, titles
from tests.live.compare import Result, Row, compare, report
from tests.live.fixtures import fixtures
from tests.live.locks import STACKWALK
from tests.live.noted_values import ValueResult, compare_values
from tests.live.plugin_runs import PLUGINS, are_locks_compared, crashes_path, output_path, read_truth, symbol_choices
from tests.support.vol import CHECKOUT

GUESSES = {"scan", "prologue"}
ROUGH = {fixture.name for fixture in fixtures() if fixture.program == "rough.exe"}
MIN_EQUAL_WITHOUT_PDB = 0.95
SECONDS_FOR_A_FIXTURE = 300


@dataclass(frozen=True)
class Checked:
    """A fixture's comparison, with its PDBs or with them withheld."""

    folder: Path
    with_pdb: bool
    arch: str
    compiler: str
    result: Result
    values: ValueResult | None = None
    """Of the program that notes the values of its variables, looked at with its PDB."""

    @property
    def is_rough(self) -> bool:
        """Say whether it is one of the stacks that compilers alone do not make: there frames may have to be guessed."""
        return self.folder.name in ROUGH


def check(out: Path, only: Sequence[str] = ()) -> int:
    """Run the plugins on all fixtures under `out`, compare and print; return the exit code."""
    started = time.monotonic()
    checked = list(check_all(out, only))
    if not checked:
        _say(f"no fixtures in {out}")
        return 1
    lines = failures(checked)
    for line in lines:
        _say(line)
    _say(f"{time.monotonic() - started:.0f} s: {summary(checked)}; {'NOT good enough' if lines else 'good'}")
    return 1 if lines else 0


def check_all(out: Path, only: Sequence[str] = ()) -> Iterator[Checked]:
    """Yield what each fixture gives, two fixtures side by side."""
    with ThreadPoolExecutor(2) as pool:
        for checked in pool.map(check_fixture, fixture_folders(out, only)):
            for one in checked:
                _say(f"{one.result.case}{' with PDB' if one.with_pdb else ''}: {summary([one])}")
            yield from checked


def fixture_folders(out: Path, only: Sequence[str] = ()) -> list[Path]:
    """Return the directories of the set's fixtures that are under `out`, not those of an earlier set."""
    folders = [out / name for name in sorted(fixture.name for fixture in fixtures())]
    made = [folder for folder in folders if (folder / "truth.json").exists()]
    return [folder for folder in made if not only or any(text in folder.name for text in only)]


def check_fixture(folder: Path) -> list[Checked]:
    """Run the plugins and compare. A plugin that fails leaves no rows, and so a problem for every thread."""
    for old in folder.glob("windows.*.json"):
        old.unlink()
    command = [sys.executable, "-m", "tests.live.plugin_runs", str(folder)]
    try:
        done = subprocess.run(
            command, cwd=CHECKOUT, env={**os.environ, "PYTHONPATH": str(CHECKOUT)}, capture_output=True, text=True,
            check=False, timeout=SECONDS_FOR_A_FIXTURE,
        )  # fmt: skip
        failure = failure_of(done, folder / "plugins.log")
    except subprocess.TimeoutExpired:
        failure = f"not done after {SECONDS_FOR_A_FIXTURE} s"
    checked = compared(folder)
    if failure:
        checked[-1].result.problems.append(f"a plugin failed: {failure}")
    return checked


def failure_of(done: subprocess.CompletedProcess[str], log: Path) -> str:
    """Return why the plugins failed, in a line, or "" if they did not; all that they said goes to `log`."""
    log.write_text(done.stderr, encoding="utf-8")
    if not done.returncode:
        return ""
    last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "nothing said")
    return f"{last.strip()} (exit code {done.returncode}; {log})"


def compared(folder: Path) -> list[Checked]:
    """Compare the rows that the last run left in a fixture's directory."""
    truth = read_truth(folder)
    found = []
    for with_pdb in symbol_choices(folder):
        rows = [_rows(folder, plugin, with_pdb=with_pdb) for plugin in PLUGINS]
        walked = _rows(folder, STACKWALK, with_pdb=with_pdb)
        result = compare(truth, *rows, walked, has_names=with_pdb)
        values: ValueResult | None = None
        result.problems += titles.problems(folder.name, rows[0])
        if are_locks_compared(folder):
            result.problems += locks.problems(truth["roles"], walked)
        if with_pdb:
            result.problems += titles.inline_problems(folder.name, rows[1])
            if truth.get("values"):
                values = compare_values(truth, _crashes(folder))
                result.problems += values.problems(truth["arch"], truth["compiler"])
        found.append(Checked(folder, with_pdb, truth["arch"], truth["compiler"], result, values))
    return found


def _crashes(folder: Path) -> list[dict[str, Any]]:
    path = crashes_path(folder)
    crashes: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return crashes


def _rows(folder: Path, plugin: str, *, with_pdb: bool) -> list[Row]:
    path = output_path(folder, plugin, with_pdb=with_pdb)
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return rows


def failures(checked: Sequence[Checked]) -> list[str]:
    """Return what is not good enough, in lines: the bar that the project holds itself to."""
    rough = [c for c in checked if c.is_rough]
    exact = [c for c in checked if not c.is_rough and (c.arch == "x64" or c.with_pdb)]
    guessed = [c for c in checked if not c.is_rough and c.arch != "x64" and not c.with_pdb]
    lines = report(c.result for c in exact) + report((c.result for c in rough), tolerated={"scan"})
    for c in guessed:
        lines += [f"{c.result.case}: {problem}" for problem in (*c.result.problems, *c.result.false_rows)]
        lines += [
            f"{stack.where}: wrong, but labelled {row['Trust']}: {row['IP']:#x}"
            for stack in c.result.stacks
            for row in stack.wrong
            if row["Trust"] not in GUESSES
        ]
    frames, equal = sum(c.result.frames for c in guessed), sum(c.result.equal for c in guessed)
    if equal < MIN_EQUAL_WITHOUT_PDB * frames:
        lines.append(f"x86 and WoW64 without PDB: {equal} of {frames} frames equal")
    return lines


def summary(checked: Sequence[Checked]) -> str:
    """Return the figures of some comparisons in a line."""
    results = [c.result for c in checked]
    return (
        f"{sum(r.contexts_found for r in results)} of {sum(r.contexts for r in results)} contexts, "
        f"{sum(len(r.false_rows) for r in results)} false rows, "
        f"{sum(r.equal for r in results)} of {sum(r.frames for r in results)} frames equal, "
        f"{sum(len(r.wrong) for r in results)} wrong"
    )


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - a command's output
