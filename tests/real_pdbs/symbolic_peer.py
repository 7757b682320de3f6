# SPDX-License-Identifier: Apache-2.0
"""The library symbolic (PyPI) as a reader of PDBs: converts a PDB whole into its SymCache, then looks up addresses.

It runs in a process of its own, `python -m tests.real_pdbs.symbolic_peer PDB`, because some damaged PDBs make it abort
the process. It reads RVAs from its standard input and writes a JSON line: the processor's seconds that conversion and
look-up took, the peak of memory in kilobytes that they added, and the answers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tests.real_pdbs.peer_frames import Chain, PeerFailed, PeerFrame, bare_name
from throwstack.names.demangle import undecorate

_CHECKOUT = Path(__file__).resolve().parents[2]
_TIME_LIMIT = 600


@dataclass(frozen=True, slots=True)
class SymbolicRun:
    """Answers, the kilobytes that the process grew by at its peak, and seconds of the processor.

    `signatures` are the functions' names with the types of their parameters, where the PDB has types.
    The seconds are those of conversion, of look-up, and of the whole process, from the interpreter's start on.
    """

    chains: list[Chain]
    signatures: list[str]
    opening: float
    looking: float
    grown: int
    whole: float


def is_installed() -> bool:
    """Say whether it can be run with this Python."""
    return find_spec("symbolic") is not None


def symbolic_run(pdb: Path, rvas: Sequence[int], *, time_limit: float = _TIME_LIMIT) -> SymbolicRun:
    """Convert a PDB and look up RVAs of the image as it was linked. Raises `PeerFailed`."""
    command = [sys.executable, "-m", "tests.real_pdbs.symbolic_peer", str(pdb.resolve())]
    before = _seconds_of_children()
    try:
        done = subprocess.run(
            command,
            cwd=_CHECKOUT,
            input="\n".join(map(str, rvas)),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=time_limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        message = f"symbolic: not done after {time_limit:.0f} s"
        raise PeerFailed(message) from None
    if done.returncode:
        told = [line for line in done.stderr.splitlines() if line.strip()] or ["nothing said"]
        message = f"symbolic: exit code {done.returncode}: {told[-1].strip()}"
        raise PeerFailed(message)
    answer = json.loads(done.stdout)
    chains = [tuple(PeerFrame(bare_name(undecorate(n)), f, line) for n, f, line in chain) for chain in answer["chains"]]
    whole = _seconds_of_children() - before
    signatures = [chain[-1][0] if chain else "" for chain in answer["chains"]]
    return SymbolicRun(chains, signatures, answer["opening"], answer["looking"], answer["grown"], whole)


def _seconds_of_children() -> float:
    used = os.times()
    return used.children_user + used.children_system


def main(pdb: str) -> None:
    """Convert, look up, write."""
    import symbolic  # noqa: PLC0415 - imported before the clock starts

    from tests.real_pdbs.process_memory import peak_kilobytes, restart_peak  # noqa: PLC0415

    rvas = [int(word) for word in sys.stdin.read().split()]
    before = restart_peak()
    start = time.process_time()
    cache = next(iter(symbolic.Archive.open(pdb).iter_objects())).make_symcache()
    data = cache.open_stream().read()
    cache = symbolic.SymCache.from_bytes(data)
    opened = time.process_time()
    found = [cache.lookup(rva) for rva in rvas]
    chains = [[(entry.symbol, entry.full_path or "", entry.line) for entry in chain] for chain in found]
    looked = time.process_time()
    grown = peak_kilobytes() - before
    answer = {"opening": opened - start, "looking": looked - opened, "grown": grown, "chains": chains}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1])
