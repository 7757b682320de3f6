# SPDX-License-Identifier: Apache-2.0
"""Takes a snapshot: forges the dumps that are not there yet, and runs a worker on each."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.forge.__main__ import forge
from tests.forge.cases import builders

WORKER = Path(__file__).with_name("worker.py")
SECONDS_FOR_A_DUMP = 600


def take(out: Path, checkout: Path, dumps: Path, live: Path, *, jobs: int, only: Sequence[str] = ()) -> int:
    """Write what the product code of `checkout` prints on all dumps to `out`; return the exit status.

    `dumps` keeps forged dumps from snapshot to snapshot, `live` is where `make test-live` keeps its captures.
    """
    started = time.monotonic()
    captures = sorted(path.parent for path in (live / "out").glob("*/MEMORY.DMP"))
    if not captures:
        _say(f"no live captures in {live} (`make test-live` makes them): forged dumps alone")
    folders = [*_forged(dumps, only), *(folder for folder in captures if _is_wanted(folder.name, only))]
    with ThreadPoolExecutor(jobs) as pool:
        failed = [line for line in pool.map(lambda folder: _work(checkout, folder, out), folders) if line]
    for line in failed:
        _say(line)
    _say(f"{out}: {len(folders) - len(failed)} dumps in {time.monotonic() - started:.0f} s")
    return 1 if failed or not folders else 0


def _forged(dumps: Path, only: Sequence[str]) -> Iterator[Path]:
    """Yield the directories of all cases, the largest first; forge what is missing, and let nobody see half a dump."""
    for name, (build, _) in sorted(builders().items(), key=lambda case: case[0] != "fleet"):
        folder = dumps / name
        if not _is_wanted(name, only):
            continue
        if not folder.exists():
            dumps.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=dumps) as work:
                made = Path(work) / name
                forge(build(), made)
                made.rename(folder)
        yield folder


def _is_wanted(name: str, only: Sequence[str]) -> bool:
    return not only or any(text in name for text in only)


def _work(checkout: Path, folder: Path, out: Path) -> str:
    """Run the commands on one dump; return why it did not work, or ""."""
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, WORKER, checkout, folder, out / folder.name, cache]
        variables = {**os.environ, "PYTHONPATH": str(checkout), "PYTHONUTF8": "1", "XDG_CACHE_HOME": cache, "TZ": "UTC"}
        for name in ("_NT_SYMBOL_PATH", "_NT_EXECUTABLE_IMAGE_PATH"):
            variables.pop(name, None)
        try:
            done = subprocess.run(
                command, capture_output=True, encoding="utf-8", check=False, env=variables, timeout=SECONDS_FOR_A_DUMP
            )
        except subprocess.TimeoutExpired:
            return f"{folder.name}: not done after {SECONDS_FOR_A_DUMP} s"
    if not done.returncode:
        return ""
    return f"{folder.name}: exit status {done.returncode}: {done.stderr.strip().splitlines()[-1:]}"


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - a command's output
