# SPDX-License-Identifier: Apache-2.0
"""MemProcFS (PyPI `memprocfs`): its call stacks of the threads of an x64 dump, and the pages that it reads.

It starts where a thread left user mode, at the registers of its trap frame, and looks neither at 32-bit threads nor at
the kernel's frames. Dumps of the forge need `--fuller-kernel` for it to open them.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Frame = tuple[int, int, int]
"""ip, return address (0 where the list ends), rsp at ip."""

_CHECKOUT = Path(__file__).resolve().parents[2]


class PeerFailed(Exception):
    """It did not open the dump, or did not live or was not done; the message says which."""


@dataclass(frozen=True, slots=True)
class PeerWalk:
    """What it found, the seconds it took to open the dump, and the processor's seconds of each round."""

    stacks: dict[tuple[int, int], list[Frame]]
    opening: float
    rounds: tuple[float, ...]


def is_installed() -> bool:
    """Say whether it can be run with this Python."""
    return importlib.util.find_spec("memprocfs") is not None


def memprocfs_stacks(
    dump: Path, *, pids: Collection[int] = (), seconds: float = 120
) -> dict[tuple[int, int], list[Frame]]:
    """Return each thread's frames, innermost first, by process and thread id; raises PeerFailed.

    `pids` empty means all processes. A thread that it makes nothing of has no frames or a single one.
    """
    return memprocfs_walk(dump, pids=pids, seconds=seconds).stacks


def memprocfs_walk(dump: Path, *, rounds: int = 1, pids: Collection[int] = (), seconds: float = 120) -> PeerWalk:
    """Walk all threads `rounds` times, in a child process that may take `seconds`; raises PeerFailed."""
    lines = _run("memprocfs_child", dump, [str(rounds), *map(str, pids)], seconds, "rounds")
    stacks = {(line["pid"], line["tid"]): [(ip, ret, sp) for ip, ret, sp in line["frames"]] for line in lines[1:-1]}
    return PeerWalk(stacks, lines[0]["opening"], tuple(lines[-1]["rounds"]))


def memprocfs_pages(dump: Path, pid: int, addresses: Collection[int], *, seconds: float = 120) -> dict[int, bytes]:
    """Return those of a process's pages that it reads, by address; raises PeerFailed.

    It gives zeros for what it cannot read, so that pages of zeros are left out.
    """
    lines = _run("memprocfs_pages", dump, [str(pid), *map(str, addresses)], seconds, "done")
    return {line["address"]: bytes.fromhex(line["page"]) for line in lines[:-1]}


def _run(module: str, dump: Path, arguments: list[str], seconds: float, last: str) -> list[dict[str, Any]]:
    """Run one of the child processes on `dump`; return its lines, of which the last one has the key `last`."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out"
        # As a module: a script's directory would come first among those to import from, and here is a memprocfs.py.
        command = [sys.executable, "-m", f"tests.peers.{module}", str(dump.resolve()), str(out), *arguments]
        try:
            done = subprocess.run(
                command, cwd=_CHECKOUT, capture_output=True, text=True, errors="replace", timeout=seconds, check=False
            )
        except subprocess.TimeoutExpired:
            message = f"not done after {seconds:.0f} s"
            raise PeerFailed(message) from None
        lines = _lines(out)
    if done.returncode or not lines or last not in lines[-1]:
        told = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        message = f"exit code {done.returncode}: {told[-1] if told else 'nothing said'}"
        raise PeerFailed(message)
    return lines


def _lines(path: Path) -> list[dict[str, Any]]:
    """Return what the child wrote, without a last line that it did not finish."""
    if not path.exists():
        return []
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines
