# SPDX-License-Identifier: Apache-2.0
"""Compares our reader with llvm-symbolizer and symbolic on sampled addresses of PDBs, and sums up.

For each address three things are compared: the name of the function (not of what is inlined into it), file and line of
the innermost frame, and the names of the whole inline chain. An aspect agrees if it is the same as one of the two
readers has it, after the known differences.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.real_pdbs.known_differences import Context, Known, same_chain, same_function, same_source
from tests.real_pdbs.llvm_peer import llvm_chains
from tests.real_pdbs.our_reader import Refused, our_chains
from tests.real_pdbs.peer_frames import Chain, PeerFailed
from tests.real_pdbs.purepdb_facts import PdbFacts
from tests.real_pdbs.symbolic_peer import symbolic_run
from throwstack.pdb.msf import NotAPdb

ASPECTS = ("name", "line", "chain")
SEED = 18


@dataclass(frozen=True, slots=True)
class Disagreement:
    """An address at which an aspect agrees with neither reader."""

    pdb: Path
    rva: int
    before: int
    aspects: tuple[str, ...]
    ours: Chain
    theirs: dict[str, Chain]
    names: frozenset[str]


@dataclass
class Agreement:
    """Sums over the addresses of any number of PDBs."""

    addresses: int = 0
    agree: Counter[str] = field(default_factory=Counter)
    by_reader: Counter[tuple[str, str]] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    known: Counter[Known] = field(default_factory=Counter)
    disagreements: list[Disagreement] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    """PDBs that a peer or our reader refused, with the reason."""

    def add(self, other: Agreement) -> None:
        """Add the sums of another PDB."""
        self.addresses += other.addresses
        self.agree += other.agree
        self.by_reader += other.by_reader
        self.asked += other.asked
        self.known += other.known
        self.disagreements += other.disagreements
        self.refused += other.refused

    def share(self, aspect: str) -> float:
        """Return the part of the addresses on which an aspect agrees."""
        return self.agree[aspect] / self.addresses if self.addresses else 0.0

    def report(self) -> str:
        """Return the sums as text."""
        lines = [f"{self.addresses} addresses"]
        for aspect in (*ASPECTS, "all"):
            parts = [f"{aspect:6}{self.agree[aspect]:7} {100 * self.share(aspect):6.2f} %"]
            parts += [
                f"{reader} {self.by_reader[reader, aspect]} of {count}" for reader, count in sorted(self.asked.items())
            ]
            lines.append("   ".join(parts))
        lines += [f"{count:7} {known.value}" for known, count in self.known.most_common()]
        return "\n".join([*lines, *self.refused])


def compare(pdb: Path, count: int) -> Agreement:
    """Compare the readers on `count` addresses of one PDB."""
    total = Agreement()
    try:
        facts = PdbFacts(pdb)
        places = facts.sample(count, SEED)
        peers = _peers(facts, [place.before for place in places], total)
    except PeerFailed as reason:
        total.refused.append(f"{pdb.name}: {reason}")
        return total
    try:
        ours = our_chains(pdb, [place.rva for place in places])
    except (NotAPdb, Refused) as reason:  # what others read and ours does not disagrees everywhere
        total.refused.append(f"{pdb.name}: refused by our reader: {reason}")
        ours = [()] * len(places)
    if not peers:
        return total
    for index, place in enumerate(places):
        names = facts.names_at(place.before)
        context = Context(facts.machine, names)
        theirs = {name: chain for name, chains in peers.items() if (chain := chains[index]) is not None}
        if jump := facts.jump_at(place.before):
            theirs["purepdb, jumps"] = jump
        agreed = _compare_at(ours[index], theirs, context, total)
        if len(agreed) < len(ASPECTS):
            missing = tuple(aspect for aspect in ASPECTS if aspect not in agreed)
            total.disagreements.append(Disagreement(pdb, place.rva, place.before, missing, ours[index], theirs, names))
    return total


def compare_all(pdbs: Iterable[Path], count: int) -> Agreement:
    """Compare the readers on `count` addresses of each PDB."""
    total = Agreement()
    for pdb in pdbs:
        total.add(compare(pdb, count))
    return total


def _peers(facts: PdbFacts, rvas: list[int], total: Agreement) -> dict[str, list[Chain | None]]:
    """Return what each other reader says; one that refuses the PDB is noted and left out."""
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        as_linked = Path(scratch) / "linked.pdb"
        as_linked.write_bytes(facts.as_linked())
        readers = {
            "llvm": lambda: llvm_chains(facts, rvas, Path(scratch)),
            "symbolic": lambda: symbolic_run(as_linked, rvas).chains,
        }
        for reader, ask in readers.items():
            try:
                found[reader] = ask()
            except PeerFailed as reason:
                total.refused.append(f"{facts.path.name}: {reason}")
    return found


def _compare_at(ours: Chain, theirs: dict[str, Chain], context: Context, total: Agreement) -> set[str]:
    """Count one address; return the aspects that agree with one reader or the other."""
    agreed: set[str] = set()
    least: set[Known] | None = None
    total.addresses += 1
    for reader, chain in theirs.items():
        used: set[Known] = set()
        same = _same_aspects(ours, chain, context, used)
        total.asked[reader] += 1
        for aspect in same:
            total.by_reader[reader, aspect] += 1
        if len(same) == len(ASPECTS):
            total.by_reader[reader, "all"] += 1
            least = used if least is None or len(used) < len(least) else least
        agreed |= same
    total.agree.update(agreed)
    if least is not None:
        total.agree["all"] += 1
        total.known.update(least)
    return agreed


def _same_aspects(ours: Chain, theirs: Chain, context: Context, used: set[Known]) -> set[str]:
    """Return the aspects in which two chains agree. No function at all agrees with none."""
    if not ours or not theirs:
        return set() if ours or theirs else set(ASPECTS)
    same = set()
    if same_function(ours[-1].name, theirs[-1].name, context, used):
        same.add("name")
    own, other = ours[0], theirs[0]
    if same_source((own.file, own.line), (other.file, other.line), used):
        same.add("line")
    if same_chain(ours, theirs, context, used):
        same.add("chain")
        if Known.NO_OWN_LINES in used:
            same.add("line")
    return same
