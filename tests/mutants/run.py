# SPDX-License-Identifier: Apache-2.0
"""Chooses mutants of a room, tries them, and keeps in a file what came of each: a later run goes on from there."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.mutate import Mutant, mutants
from tests.mutants.trials import Chosen, Trials, try_mutants
from tests.support.vol import CHECKOUT

ROOMS = {
    "x86": ("throwstack/unwind/x86", ["tests/unwind/x86"]),
    "x64": ("throwstack/unwind/x64", ["tests/unwind/x64"]),
    "dispatch": ("throwstack/dispatch", ["tests/dispatch"]),
}
EQUIVALENT = Path(__file__).with_name("equivalent.txt")


@dataclass(frozen=True)
class Tried:
    """A mutant of the module at `path`, and whether a test noticed it."""

    path: str
    mutant: Mutant
    is_killed: bool

    def __str__(self) -> str:
        """Return place and change in a line."""
        return f"{'noticed ' if self.is_killed else 'SURVIVED'} {self.path}:{self.mutant.line}: {self.mutant.change}"


def described(path: str, mutant: Mutant) -> str:
    """Return the change in words that stay the same when lines are added above it."""
    return f"{path}: {mutant.change}"


def equivalents() -> frozenset[str]:
    """Return the changes that change nothing. The file has each on a line, below a line with the reason."""
    lines = EQUIVALENT.read_text("utf-8").splitlines()
    return frozenset(line.strip() for line in lines if line.startswith(" ") and line.strip())


def candidates(room: str, only: str = "") -> list[Chosen]:
    """Return the mutants of a room that are not equivalent, of modules whose path has `only`."""
    known, found = equivalents(), []
    for path in sorted((CHECKOUT / ROOMS[room][0]).glob("*.py")):
        name = path.relative_to(CHECKOUT).as_posix()
        if only in name:
            found += [
                (name, mutant) for mutant in mutants(path.read_text("utf-8")) if described(name, mutant) not in known
            ]
    return found


def sample(found: Sequence[Chosen], count: int, seed: int) -> list[Chosen]:
    """Return `count` of the mutants in a fixed order; all of them for 0."""
    return random.Random(seed).sample(found, min(count, len(found))) if count else list(found)


def mirror(path: str) -> list[str]:
    """Return the test module of the module at `path` by its name, or else that of the whole room."""
    room, name = Path(path).parent, Path(path).name
    tests = CHECKOUT / "tests" / room.relative_to("throwstack")
    found = [tests / f"test_{stem}" for stem in (name, "unwinder.py", "search.py")]
    return [str(each) for each in found if each.exists()][:1]


class Results:
    """What came of the mutants of a room, in a file of a line for each. A module that was edited begins anew."""

    def __init__(self, file: Path | None = None) -> None:
        """Read `file`, if it exists. Without one nothing is kept."""
        self._file = file
        self._texts: dict[str, str] = {}
        lines = file.read_text("utf-8").splitlines() if file is not None and file.exists() else []
        self._known: dict[str, bool] = dict(json.loads(line)[:2] for line in lines)

    def is_killed(self, path: str, mutant: Mutant) -> bool:
        """Say whether a test noticed the mutant, now or in an earlier run."""
        return self._known.get(self._key(path, mutant), False)

    def add(self, path: str, mutant: Mutant, is_killed: bool) -> None:
        """Keep what came of a mutant, and print it."""
        key, tried = self._key(path, mutant), Tried(path, mutant, is_killed)
        self._known[key] = is_killed
        print(tried, flush=True)  # noqa: T201
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps([key, is_killed, str(tried)]) + "\n")

    def _key(self, path: str, mutant: Mutant) -> str:
        if path not in self._texts:
            self._texts[path] = hashlib.sha256((CHECKOUT / path).read_bytes()).hexdigest()[:16]
        return f"{path} {self._texts[path]} {mutant.node} {mutant.variant}"


def try_all(
    room: str,
    chosen: Sequence[Chosen],
    results: Results,
    *,
    jobs: int = 1,
    is_quick: bool = False,
    longest: float = math.inf,
) -> list[Tried]:
    """Try the mutants that no test has noticed yet, `jobs` at a time, with the tests that run their lines.

    If `is_quick` is true, only the tests that are named after the module run. No test of more than `longest` seconds
    runs.
    """
    left = sorted((each for each in chosen if not results.is_killed(*each)), key=lambda each: each[1].is_data)
    if left:
        mirrors = sorted({test for path, _ in left for test in mirror(path)})
        trials = Trials(left, mirror, results.add, jobs=jobs, is_quick=is_quick, longest=longest)
        try_mutants(mirrors if is_quick else ROOMS[room][1], trials)
    return [Tried(*each, results.is_killed(*each)) for each in chosen]


def rates(tried: Sequence[Tried]) -> str:
    """Return how many mutants of each module, and of all, were noticed."""
    by_path: dict[str, list[bool]] = {}
    for each in tried:
        by_path.setdefault(each.path, []).append(each.is_killed)
    lines = [f"{sum(found):4} of {len(found):4}  {path}" for path, found in sorted(by_path.items())]
    killed = sum(each.is_killed for each in tried)
    return "\n".join([*lines, f"{killed:4} of {len(tried):4}  noticed: {killed / max(len(tried), 1):.1%}"])
