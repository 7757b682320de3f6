# SPDX-License-Identifier: Apache-2.0
"""What names and lines from PDBs cost, beside the library symbolic, which converts a PDB whole before the first name.

    python benchmarks/naming.py [--written N] [--large DIRECTORY] [--giant FUNCTIONS] [--rounds 3]

Each measurement is a process of its own. Seconds are those of the processor, so that what else runs on the machine
matters little. Ours count after all imports, and so do both peaks of memory. symbolic's are those of its whole process,
which a program has to give it for each PDB, because it aborts the process on some damaged ones. `alone` is what
conversion and look-up take of that, without the interpreter's start and the import. Storing the result is left out.

The PDBs are those of package registries (tests/real_pdbs); with `--written N` they are ten with N functions each,
written for the purpose. `--large` measures a PDB that `benchmarks/large_pdb.py` compiles into DIRECTORY, and `--giant`
one whose single module has so many functions (1150000 make 200 MB; writing it takes minutes and gigabytes).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.large_pdb import large_pdb
from tests.real_pdbs.fetch import NotFetched, registry_pdbs
from tests.real_pdbs.our_process import our_run
from tests.real_pdbs.peer_frames import PeerFailed
from tests.real_pdbs.purepdb_facts import PdbFacts
from tests.real_pdbs.symbolic_peer import symbolic_run
from tests.support.pdb_writer import Inline, Pdb, Procedure

_SIZE, _LINES, _SEED = 0x40, 8, 1
_MANY, _PDBS = 10_000, 10
_HEAD = f"{'':36}{'ours':>11}{'symbolic':>10}{'alone':>10}{'ratio':>9}{'at most':>9}{'memory':>10}{'symbolic':>10}"


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds, the kilobytes by which the process grew, and the seconds without what the process itself takes."""

    seconds: float
    grown: int
    alone: float


def _written(guid: str, functions: int) -> bytes:
    """Return a PDB with lines in each function, and an inlined function in every tenth."""
    procedures = [
        Procedure(
            f"Namespace::Class{index // 20}::function{index}",
            0x1000 + _SIZE * index,
            _SIZE,
            [(at * _SIZE // _LINES, rf"d:\src\file{index // 200}.cpp", 100 + at) for at in range(_LINES)],
            ("int", "void*"),
            [Inline(f"inlined{index % 500}", r"d:\src\inline.h", 7, [(8, 8, 8)])] if index % 10 == 0 else [],
        )
        for index in range(functions)
    ]
    return Pdb(guid, sections=[(".text", 0x1000, 0x1000 + _SIZE * functions)], procedures=procedures).to_bytes()


def _write_pdbs(directory: Path, count: int, functions: int) -> list[Path]:
    """Write `count` PDBs with so many functions each."""
    paths = [directory / f"module{number}.pdb" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(_written(f"{number:032X}", functions))
    return paths


def _addresses(pdbs: Sequence[Path], count: int) -> list[list[int]]:
    """Return so many RVAs of functions, spread evenly over the PDBs."""
    return [[place.rva for place in PdbFacts(pdb).sample(-(-count // len(pdbs)), _SEED)] for pdb in pdbs]


def _ours(pdb: Path, rvas: list[int]) -> Cost:
    run = our_run(pdb, rvas)
    seconds = run.opening + run.looking
    return Cost(seconds, run.grown, seconds)


def _symbolic(pdb: Path, rvas: list[int]) -> Cost:
    run = symbolic_run(pdb, rvas)
    return Cost(run.whole, run.grown, run.opening + run.looking)


def _row(what: str, pdbs: Sequence[Path], rvas: Sequence[list[int]], most: float, rounds: int) -> str:
    """Measure both in turn, so that what else the machine does is the same for both, and return a line of the table."""
    ours, theirs, refusals = [], [], []
    for _ in range(rounds):
        ours.append(_sum(_ours(pdb, some) for pdb, some in zip(pdbs, rvas, strict=True)))
        try:
            theirs.append(_sum(_symbolic(pdb, some) for pdb, some in zip(pdbs, rvas, strict=True)))
        except PeerFailed as reason:
            refusals.append(str(reason))
    seconds, grown = statistics.median(cost.seconds for cost in ours), max(cost.grown for cost in ours)
    if not theirs:
        return f"{what:36}{seconds * 1e3:8.1f} ms {refusals[0]}; {grown / 1024:.1f} MB"
    other, alone = (statistics.median(costs) for costs in zip(*((c.seconds, c.alone) for c in theirs), strict=True))
    return (
        f"{what:36}{seconds * 1e3:8.1f} ms{other * 1e3:7.0f} ms{alone * 1e3:7.0f} ms   1/{other / seconds:<5.1f}"
        f"   1/{1 / most:<4.0f}{grown / 1024:7.1f} MB{max(cost.grown for cost in theirs) / 1024:7.0f} MB"
    )


def _sum(costs: Iterator[Cost]) -> Cost:
    """Return the seconds of all and the largest memory of one."""
    listed = list(costs)
    seconds, alone = sum(cost.seconds for cost in listed), sum(cost.alone for cost in listed)
    return Cost(seconds, max(cost.grown for cost in listed), alone)


def _mb(pdb: Path) -> str:
    return f"{pdb.stat().st_size / 1e6:.1f} MB"


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--written", type=int, metavar="FUNCTIONS", default=0)
    parser.add_argument("--large", type=Path, metavar="DIRECTORY")
    parser.add_argument("--giant", type=int, metavar="FUNCTIONS", default=0)
    parser.add_argument("--addresses", type=int, default=_MANY)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        try:
            pdbs = _write_pdbs(Path(name), _PDBS, options.written) if options.written else registry_pdbs()
        except NotFetched as reason:
            sys.exit(f"{reason}; --written FUNCTIONS measures PDBs written for the purpose")
        pdbs = sorted(pdbs, key=lambda pdb: pdb.stat().st_size)[-_PDBS:]
        print(_HEAD)
        for line in _lines(pdbs, options, Path(name)):
            print(line, flush=True)


def _lines(pdbs: list[Path], options: argparse.Namespace, scratch: Path) -> Iterator[str]:
    """Yield the lines of the table."""
    largest, many, rounds = pdbs[-1:], options.addresses, options.rounds
    size = _mb(largest[0])
    some = _addresses(largest, 60)
    yield _row(f"first name and line, {size}", largest, [some[0][:1]], 1 / 5, rounds)
    yield _row(f"60 frames of one module, {size}", largest, some, 1 / 4, rounds)
    yield _row(f"{many} addresses over {len(pdbs)} PDBs", pdbs, _addresses(pdbs, many), 1, rounds)
    more = []
    if options.large is not None:
        more.append((large_pdb(options.large, 60, 3000)[1], 1 / 50))
    if options.giant:
        giant = scratch / "giant.pdb"
        giant.write_bytes(_written("0" * 31 + "F", options.giant))
        more.append((giant, 1))
    for pdb, most in more:
        size, some = _mb(pdb), _addresses([pdb], many)
        yield _row(f"first name and line, {size}", [pdb], [some[0][:1]], most, rounds)
        yield _row(f"60 frames, {size}", [pdb], [some[0][:60]], 1, rounds)
        yield _row(f"{many} addresses, {size}", [pdb], some, 1, 1)


if __name__ == "__main__":
    main()
