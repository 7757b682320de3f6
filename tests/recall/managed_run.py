# SPDX-License-Identifier: Apache-2.0
"""Measures recall under loss of captured .NET processes: `make recall-managed`, `python -m tests.recall --managed DIR`.

python -m tests.recall --managed .live/managed                       # processes of each kind on each runtime
python -m tests.recall --managed .live/managed 8.0-x64-inner -v      # this one alone, each loss with what came of it
python -m tests.recall --managed .live/managed --kind HEAP --most 5  # so many pages of a kind
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.managed_live.runtimes import LABELS
from tests.recall import managed_table
from tests.recall.managed_losses import ManagedKind
from tests.recall.managed_measure import ManagedOutcome, managed_subject
from tests.support.document_sections import replace_section

SCENARIOS = ("inner", "catch", "null", "overflow", "task")
"""A program of each kind: inner exceptions, a throw in a catch block, a fault, a stack overflow, several exceptions."""
OF_KIND = 20
"""How many pages of each kind are taken of a process, if `--most` is not given."""


@dataclass(frozen=True)
class ManagedSample:
    """Which losses are taken: `most` of each of `kinds`, chosen by `seed`; all if None."""

    most: int | None = OF_KIND
    seed: int = 1
    kinds: tuple[ManagedKind, ...] = tuple(ManagedKind)


def fixture_names(folder: Path, scenarios: Sequence[str] = SCENARIOS) -> list[str]:
    """Return the names of the fixtures of `scenarios` that `make test-managed` left in `folder`, by runtime."""
    names = [f"{label}-{scenario}" for label in LABELS for scenario in scenarios]
    return [name for name in names if (folder / name / "truth.json").exists()]


def measured(name: str, folder: Path, sample: ManagedSample) -> tuple[list[str], list[ManagedOutcome]]:
    """Return what is wrong of one process when nothing is lost, and what comes of its losses."""
    with managed_subject(folder / name) as subject:
        problems = subject.undamaged()
        return problems, [] if problems else list(subject.outcomes(sample.most, sample.seed, sample.kinds))


def run(options: argparse.Namespace) -> int:
    """Measure, print what must not be, and write the table; the exit status is 1 if there is any, or no process."""
    names = options.dumps or fixture_names(options.managed)
    if not names:
        sys.stderr.write(f"there are no .NET fixtures in {options.managed}: `make test-managed` makes them\n")
        return 1
    kinds = tuple(ManagedKind[name] for name in options.kind or ManagedKind.__members__)
    sample = ManagedSample(OF_KIND if options.most is None else options.most or None, options.seed, kinds)
    outcomes: list[ManagedOutcome] = []
    damaged = 0
    with ProcessPoolExecutor(options.jobs) as pool:
        for problems, found in pool.map(partial(measured, folder=options.managed, sample=sample), names):
            outcomes += found
            damaged += bool(problems)
            told = [str(one) for one in found if options.is_verbose or one.is_bad]
            sys.stdout.write("".join(f"{line}\n" for line in (*problems, *told)))
            sys.stdout.flush()
    taken = "all" if sample.most is None else f"at most {sample.most}"
    extent = f"Of each, {taken} pages of each kind were taken, and {len(outcomes)} in all."
    text = managed_table.section(outcomes, len(names) - damaged, extent)
    sys.stdout.write(text[text.find("| Runtime") :])
    if options.out is not None:
        replace_section(options.out, managed_table.TITLE, text)
    return 1 if damaged or any(one.is_bad for one in outcomes) else 0
