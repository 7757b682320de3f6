# SPDX-License-Identifier: Apache-2.0
"""What came of one mutant, and the table that sums up many."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from tests.fuzz.verdicts import Fault

KINDS = ("traceback", "hang", "memory", "lost", "changed", "control", "crash")
_EXAMPLES = 60
_MOST_CHANGES = 8


@dataclass
class Outcome:
    """One mutant: its family or category, its faults, and what is counted beside them."""

    family: str
    faults: list[Fault] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    """Stuck threads of processes that the mutant touched whose rows are gone with no word about it."""
    swallowed: list[str] = field(default_factory=list)
    """Places of exceptions that a guard turned into a reason."""
    seconds: float = 0.0
    changes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, raw: dict[str, Any]) -> Outcome:
        """Return the outcome that `dataclasses.asdict` took apart."""
        return cls(**{**raw, "faults": [Fault(**fault) for fault in raw["faults"]]})


@dataclass
class Tally:
    """The outcomes of many mutants."""

    what: str
    seed: int
    mutants: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)
    faults: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    silent: Counter[str] = field(default_factory=Counter)
    swallowed: Counter[str] = field(default_factory=Counter)
    first: dict[tuple[str, str], tuple[int, Fault, list[str]]] = field(default_factory=dict)
    """The first mutants of each kind and place of a fault."""
    places: Counter[tuple[str, str]] = field(default_factory=Counter)
    silences: list[tuple[int, str, list[str]]] = field(default_factory=list)
    slowest: tuple[float, int] = (0.0, 0)

    def add(self, number: int, outcome: Outcome) -> list[Fault]:
        """Count an outcome; return those of its faults that are the first of their kind and place."""
        family = outcome.family
        self.mutants[family] += 1
        self.seconds[family] += outcome.seconds
        self.slowest = max(self.slowest, (outcome.seconds, number))
        self.silent[family] += bool(outcome.silent)
        if outcome.silent and len(self.silences) < 200:
            self.silences.append((number, outcome.silent[0], outcome.changes))
        self.swallowed.update(outcome.swallowed)
        fresh = []
        for kind in {fault.kind for fault in outcome.faults}:
            self.faults[kind][family] += 1
        for fault in outcome.faults:
            key = fault.kind, fault.where
            self.places[key] += 1
            if key not in self.first:
                self.first[key] = number, fault, outcome.changes
                fresh.append(fault)
        return fresh

    @property
    def has_faults(self) -> bool:
        """Say whether anything was found."""
        return bool(self.first)

    def table(self) -> str:
        """Return the counters, a line per family."""
        head = f"{self.what + ' (seed ' + str(self.seed) + ')':32}{'mutants':>9}{'ms each':>9}"
        lines = [head + "".join(f"{kind:>11}" for kind in KINDS) + f"{'silent':>9}"]
        lines += [self._line(family, [family]) for family in sorted(self.mutants)]
        lines.append(self._line("all", list(self.mutants)))
        return "\n".join(lines)

    def _line(self, name: str, families: list[str]) -> str:
        mutants = sum(self.mutants[family] for family in families)
        each = 1000 * sum(self.seconds[family] for family in families) / max(mutants, 1)
        counts = "".join(f"{sum(self.faults[kind][family] for family in families):>11}" for kind in KINDS)
        return f"{name:32}{mutants:>9}{each:>9.1f}{counts}{sum(self.silent[family] for family in families):>9}"

    def described(self, fault: Fault) -> str:
        """Return a fault with the first mutant that led to it: how to run that again, what it changed, what came."""
        key = fault.kind, fault.where
        number, first, changes = self.first[key]
        lines = [
            f"FAULT {fault.kind}, {self.places[key]} times: {fault.where}",
            f"  first: python -m tests.fuzz {self.what} --seed {self.seed} --only {number}",
            *(f"  {change}" for change in changes),
            *(f"  | {line}" for line in first.text.splitlines()[-30:]),
        ]
        return "".join(f"{line}\n" for line in lines)

    def report(self) -> str:
        """Return everything that was found, each kind of fault once."""
        parts = [self.described(fault) for _, fault, _ in self.first.values()]
        if self.swallowed:
            parts.append("exceptions that a guard turned into a reason:\n")
            parts += [f"  {count:7} {place}\n" for place, count in self.swallowed.most_common()]
        for number, text, changes in self.silences[:_EXAMPLES]:
            parts.append(f"silent, mutant {number}: {text}\n")
            parts += [f"  {change}\n" for change in changes[:_MOST_CHANGES]]
        parts.append(self.table() + "\n")
        return "".join(parts)
