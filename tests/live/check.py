# SPDX-License-Identifier: Apache-2.0
"""Runs the plugins on the fixtures, with PDBs and with them withheld, and says whether the figures are good enough."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.live.compare import Result, Row, compare, report
from tests.vol import vol

GUESSES = {"scan", "prologue"}
MIN_EQUAL_WITHOUT_PDB = 0.95


@dataclass(frozen=True)
class Run:
    """One fixture, looked at with or without its PDBs."""

    folder: Path
    with_pdb: bool

    @property
    def truth(self) -> dict[str, Any]:
        """Return the fixture's truth."""
        return json.loads((self.folder / "truth.json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Checked:
    """What a run gave."""

    run: Run
    arch: str
    compiler: str
    result: Result
    seconds: float


def runs(out: Path, only: Sequence[str] = ()) -> list[Run]:
    """Return the runs over all fixtures under `out`."""
    found = []
    for folder in sorted(path.parent for path in out.glob("*/truth.json")):
        if not only or any(text in folder.name for text in only):
            found.append(Run(folder, with_pdb=False))
            if (folder / "pdb").exists():
                found.append(Run(folder, with_pdb=True))
    return found


def rows_of(run: Run, plugin: str) -> list[Row]:
    """Run a plugin as a user does. Raises RuntimeError when it fails."""
    options = ["--symbol-path", str(run.folder / "pdb")] if run.with_pdb else []
    output = vol(run.folder, plugin, *options)
    if output.status:
        message = f"{run.folder.name}: {plugin} failed:\n{output.err[-2000:]}"
        raise RuntimeError(message)
    (run.folder / f"{plugin}{'.pdb' if run.with_pdb else ''}.json").write_text(output.out, encoding="utf-8")
    return output.rows


def check_run(run: Run) -> Checked:
    """Run both plugins and compare."""
    truth, started = run.truth, time.monotonic()
    unhandled, stacks = rows_of(run, "windows.unhandled"), rows_of(run, "windows.cxrstack")
    result = compare(truth, unhandled, stacks, has_names=run.with_pdb)
    return Checked(run, truth["arch"], truth["compiler"], result, time.monotonic() - started)


def check_all(out: Path, only: Sequence[str] = ()) -> list[Checked]:
    """Check every run, two side by side (those of one fixture share a cache, so a fixture's runs are in sequence)."""
    folders: dict[Path, list[Run]] = {}
    for run in runs(out, only):
        folders.setdefault(run.folder, []).append(run)
    with ThreadPoolExecutor(2) as pool:
        return [
            checked
            for group in pool.map(lambda group: [check_run(run) for run in group], folders.values())
            for checked in group
        ]


def failures(checked: Sequence[Checked]) -> list[str]:
    """Return what is not good enough, in lines: the bar that the project holds itself to."""
    lines = []
    exact = [c for c in checked if c.arch == "x64" or c.run.with_pdb]
    lines += report(c.result for c in exact)
    guessed = [c for c in checked if c.arch != "x64" and not c.run.with_pdb]
    for c in guessed:
        lines += [f"{c.result.case}: {problem}" for problem in (*c.result.problems, *c.result.false_rows)]
        lines += [
            f"{stack.where}: wrong, but labelled {row['Trust']}: {row['IP']:#x}"
            for stack in c.result.stacks
            for row in stack.wrong
            if row["Trust"] not in GUESSES
        ]
    frames, equal = sum(c.result.frames for c in guessed), sum(c.result.equal for c in guessed)
    if frames and equal < MIN_EQUAL_WITHOUT_PDB * frames:
        lines.append(f"x86 and WoW64 without PDB: {equal} of {frames} frames equal")
    return lines


def check(out: Path, only: Sequence[str] = ()) -> int:
    """Check and print; return the exit code."""
    started = time.monotonic()
    checked = check_all(out, only)
    if not checked:
        print(f"no fixtures in {out}")  # noqa: T201 - a command's output
        return 1
    lines = failures(checked)
    for line in lines:
        print(line)  # noqa: T201 - a command's output
    frames, equal = sum(c.result.frames for c in checked), sum(c.result.equal for c in checked)
    contexts, found = sum(c.result.contexts for c in checked), sum(c.result.contexts_found for c in checked)
    print(  # noqa: T201 - a command's output
        f"{len(checked)} runs in {time.monotonic() - started:.0f} s: {found} of {contexts} contexts found, "
        f"{sum(len(c.result.false_rows) for c in checked)} false rows, {equal} of {frames} frames equal, "
        f"{sum(len(c.result.wrong) for c in checked)} wrong; {'NOT good enough' if lines else 'good'}"
    )
    return 1 if lines else 0
