# SPDX-License-Identifier: Apache-2.0
"""Our reader in a process of its own, whose seconds and memory are measured: `-m tests.real_pdbs.our_process PDB`.

It reads RVAs from its standard input and writes a JSON line, as tests/real_pdbs/symbolic_peer.py does.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.real_pdbs.our_reader import open_table
from tests.real_pdbs.process_memory import peak_kilobytes, restart_peak

_CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class OurRun:
    """Seconds of opening and of look-up, the kilobytes that the process grew by at its peak, how many it named."""

    opening: float
    looking: float
    grown: int
    named: int


def our_run(pdb: Path, rvas: Sequence[int], *, time_limit: float = 600) -> OurRun:
    """Open a PDB and look up RVAs. Raises `subprocess.CalledProcessError` and `subprocess.TimeoutExpired`."""
    command = [sys.executable, "-m", "tests.real_pdbs.our_process", str(pdb.resolve())]
    given = "\n".join(map(str, rvas))
    done = subprocess.run(
        command, cwd=_CHECKOUT, input=given, stdout=subprocess.PIPE, text=True, check=True, timeout=time_limit
    )
    return OurRun(**json.loads(done.stdout))


def main(pdb: str) -> None:
    """Open, look up, write."""
    rvas = [int(word) for word in sys.stdin.read().split()]
    before = restart_peak()
    start = time.process_time()
    table = open_table(Path(pdb))
    opened = time.process_time()
    named = sum(bool(table.locate(rva)) for rva in rvas)
    looked = time.process_time()
    answer = {"opening": opened - start, "looking": looked - opened, "grown": peak_kilobytes() - before, "named": named}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1])
