# SPDX-License-Identifier: Apache-2.0
"""Attacks the engine's parsers and walkers: structured seeds, mutated, a family for each kind of input.

A family makes one mutant from its random numbers, runs it, and returns the texts that a user would be shown. It lets
through only what its parser may raise.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from tests.fuzz.ground import Shot
from tests.fuzz.outcome import Outcome
from tests.fuzz.verdicts import Fault, Overdue, control_characters, fault_of, limit_memory, limited_time

MORE_MEMORY = 400 << 20
TIMES_SLOWER = 20
LEAST_SECONDS = 2.0

Attack = Callable[[random.Random, Shot], Iterable[str]]


@dataclass(frozen=True)
class Family:
    """One kind of input. `weight` is its share of the mutants; `begin` makes what all its mutants start from."""

    name: str
    begin: Callable[[], Attack]
    weight: float = 1.0


@dataclass
class _Started:
    attack: Attack
    seconds: float = 0.0
    runs: int = 0

    @property
    def limit(self) -> float:
        """The processor time that a mutant may take."""
        usual = self.seconds / self.runs if self.runs else 0.0
        return max(TIMES_SLOWER * usual, LEAST_SECONDS)


@dataclass
class Engine:
    """The families, each begun when its first mutant comes."""

    names: Sequence[str]
    seed: int
    _started: dict[str, _Started] = field(default_factory=dict)

    def __enter__(self) -> Engine:  # noqa: PYI034 - Self came with Python 3.11
        known = {family.name: family for family in families()}
        if unknown := set(self.names) - known.keys():
            message = f"no family {', '.join(sorted(unknown))}; there are {', '.join(known)}"
            raise SystemExit(message)
        self._families = [known[name] for name in self.names or known]
        self._weights = [family.weight for family in self._families]
        self._has_limit = False
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is kept open."""

    def prepare(self) -> None:
        """Each family begins by itself: that is quick."""

    def finish(self) -> None:
        """Remove the files of the families."""
        from tests.fuzz.engine_files import remove_scratch  # noqa: PLC0415 - it builds on this module

        remove_scratch()

    def describe(self, number: int) -> list[str]:
        """Return the changes of a mutant, in words."""
        return self._run(number)[1].changes

    def run(self, number: int) -> Outcome:
        """Run a mutant; return what came of it."""
        outcome, shot = self._run(number)
        if outcome.faults:
            outcome.changes = shot.changes
        return outcome

    def _run(self, number: int) -> tuple[Outcome, Shot]:
        rng = random.Random(f"engine {self.seed} {' '.join(self.names)} {number}")
        family = rng.choices(self._families, self._weights)[0]
        started = self._started.get(family.name)
        if started is None:
            started = self._started[family.name] = _Started(family.begin())
        if not self._has_limit:
            limit_memory(MORE_MEMORY)
            self._has_limit = True
        shot = Shot()
        faults = []
        start = time.process_time()
        try:
            with limited_time(started.limit):
                texts = list(started.attack(rng, shot))
        except (Exception, Overdue) as error:  # noqa: BLE001 - whatever comes out is what is looked for
            faults.append(fault_of(error))
            texts = []
        seconds = time.process_time() - start
        started.seconds, started.runs = started.seconds + seconds, started.runs + 1
        faults += [
            Fault("control", f"{family.name}: {unshown}", ascii(text)[:2000])
            for text in texts
            if (unshown := control_characters(text))
        ]
        return Outcome(family.name, faults, seconds=seconds), shot


def families() -> list[Family]:
    """Return all families."""
    from tests.fuzz import (  # noqa: PLC0415 - they build on this module
        engine_dumps,
        engine_files,
        engine_images,
        engine_managed,
        engine_pdb_streams,
        engine_pdbs,
        engine_processes,
        engine_texts,
        engine_unwind,
        engine_variables,
    )

    modules = (engine_dumps, engine_files, engine_images, engine_pdb_streams, engine_pdbs)
    modules += (engine_managed, engine_processes, engine_texts, engine_unwind, engine_variables)
    return [family for module in modules for family in module.FAMILIES]
