# SPDX-License-Identifier: Apache-2.0
"""`make test-big`: a full minidump of a process that has reserved 64 GiB and uses 4 GiB, beside reading alone.

Each measurement is a process of its own, which prints seconds and the growth of its peak memory from the start of the
work on.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import throwstack
from tests.big.sparse_process import BASE, RESERVED, USED, write_sparse_dump
from throwstack.core.memory import PAGE_SIZE
from throwstack.volatility.dump import Dump
from throwstack.volatility.survey import Selection, Survey

LEAST_SPEED = 0.5
"""Of reading the same pages without writing."""
MOST_MEMORY = 200 << 20


def main() -> int:
    """Measure, print, and return 1 if a figure is not good enough."""
    parser = argparse.ArgumentParser(prog="python -m tests.big")
    parser.add_argument("work", type=Path)
    parser.add_argument("--only", choices=["read", "write"])
    parser.add_argument("--pid", type=int)
    options = parser.parse_args()
    dump = options.work / "MEMORY.DMP"
    if options.only is not None:
        print(json.dumps(_measured(dump, options.pid, write=options.only == "write")))  # noqa: T201
        return 0
    options.work.mkdir(parents=True, exist_ok=True)
    dump, pid = write_sparse_dump(options.work)
    read, write = (_child(options.work, pid, what) for what in ("read", "write"))
    share = read["seconds"] / write["seconds"]
    growth = write["growth"]
    print(  # noqa: T201
        f"{write['pages']:,} pages of {PAGE_SIZE:,} bytes: read in {read['seconds']:.1f} s, written in "
        f"{write['seconds']:.1f} s ({share:.0%} of the speed of reading), peak memory {growth >> 20} MB above the start"
    )
    is_whole = write["pages"] >= read["pages"] >= USED // PAGE_SIZE
    return 0 if is_whole and share >= LEAST_SPEED and growth <= MOST_MEMORY else 1


def _child(work: Path, pid: int, what: str) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.big", str(work), "--only", what, "--pid", str(pid)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _measured(dump: Path, pid: int, *, write: bool) -> dict[str, float]:
    with throwstack.open(dump, symbols=dump.parent / "isf", symbol_path="", offline=True) as opened:
        pages, seconds, growth = _timed(lambda: _write(opened, pid, dump.parent) if write else _read(opened, pid))
    return {"pages": pages, "seconds": seconds, "growth": growth}


def _timed(work: Callable[[], int]) -> tuple[int, float, int]:
    before, began = _peak(), time.monotonic()
    pages = work()
    return pages, time.monotonic() - began, _peak() - before


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _read(opened: Dump, pid: int) -> int:
    """Read every page that has a page table, as the minidump's writer does, and keep none."""
    (process,) = Survey(opened._machine, Selection([pid])).processes()
    page, found = process.pages.page, 0
    for start, end in process.pages.mapped(BASE, BASE + RESERVED - 1):
        for address in range(start, end, PAGE_SIZE):
            found += page(address) is not None
    return found


def _write(opened: Dump, pid: int, out: Path) -> int:
    (report,) = opened.minidumps(out, pids=[pid], full=True)
    assert report.path is not None, report.problem
    size = report.size
    report.path.unlink()
    return size // PAGE_SIZE


if __name__ == "__main__":
    sys.exit(main())
