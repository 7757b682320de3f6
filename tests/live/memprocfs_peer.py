# SPDX-License-Identifier: Apache-2.0
"""MemProcFS on the same dumps: its call stacks of the throwing threads, where it opens them.

It is installed from PyPI into a directory of its own and run in a process of its own, since it is native code that a
dump it does not like may take down.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SECONDS = 120

_SCRIPT = """
import json, sys
import memprocfs
vmm = memprocfs.Vmm(["-device", sys.argv[1], "-disable-symbolserver"])
process = vmm.process(int(sys.argv[2]))
stacks = {}
for tid in map(int, sys.argv[3:]):
    frames = process.maps.thread_callstack(tid)
    stacks[tid] = [[frame["va-rsp"], frame["va-retaddr"]] for frame in frames]
print(json.dumps(stacks))
"""


def section(work: Path, folders: Sequence[Path]) -> list[str]:
    """Return the section of the document: what MemProcFS makes of the x64 dumps."""
    version = install(work / "peers")
    outcomes = [(folder, *stacks(work / "peers", folder)) for folder in folders] if version else []
    opened = [(folder, found) for folder, found, _ in outcomes if found is not None]
    lines = ["## MemProcFS on the same x64 dumps", ""]
    if not version:
        return [*lines, "Could not be installed here."]
    lines.append(f"MemProcFS {version} (PyPI `memprocfs`) opened {len(opened)} of {len(folders)} dumps.")
    if len(opened) < len(folders):
        reasons = Counter(reason for _, found, reason in outcomes if found is None)
        told = "; ".join(f"{count} × {reason}" for reason, count in reasons.most_common())
        lines += [
            "",
            f"The others it refused ({told}). It looks for a kernel of its own accord, and the kernel half of these dumps "
            "holds only what Volatility needs: that says nothing about its walker.",
        ]
    if opened:
        frames, equal = (sum(figures) for figures in zip(*(count(*pair) for pair in opened), strict=True))
        lines += ["", f"On those it opened, {equal} of {frames} recorded frames are in its call stacks."]
    return lines


def install(target: Path) -> str | None:
    """Install MemProcFS into a directory; return its version, or None if it cannot be had."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", str(target)]
    if not list(target.glob("memprocfs-*.dist-info")):
        subprocess.run([*pip, "memprocfs"], check=False, capture_output=True)  # noqa: S603 - our own command
    found = [path.name.split("-")[1].removesuffix(".dist") for path in target.glob("memprocfs-*.dist-info")]
    return found[0] if found else None


def stacks(peers: Path, folder: Path) -> tuple[dict[str, Any] | None, str]:
    """Return the call stacks of a dump's stuck threads by TID, or None and the reason."""
    truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    tids = [str(stuck["tid"]) for stuck in truth["stuck"]]
    command = [sys.executable, "-c", _SCRIPT, str(folder / "MEMORY.DMP"), str(truth["pid"]), *tids]
    try:
        done = subprocess.run(  # noqa: S603 - our own command
            command, env={**os.environ, "PYTHONPATH": str(peers)}, capture_output=True, text=True, check=False,
            timeout=SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return None, f"not done after {SECONDS} s"
    if done.returncode:
        return None, (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return json.loads(done.stdout), ""


def count(folder: Path, found: dict[str, Any]) -> tuple[int, int]:
    """Return how many recorded frames there are, and how many MemProcFS's stack has with the same return address."""
    truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    frames = equal = 0
    for stuck in truth["stuck"]:
        returns = {ret for _, ret in found.get(str(stuck["tid"]), [])}
        recorded = [int(frame["return_address"], 16) for frame in stuck["frames"] if frame["return_address"]]
        frames += len(recorded)
        equal += sum(ret in returns for ret in recorded)
    return frames, equal
