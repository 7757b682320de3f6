# SPDX-License-Identifier: Apache-2.0
"""`make test-minidumps`: minidumps of forged cases, or of the folders given, opened by other readers and compared."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import throwstack
from tests.forge.__main__ import forge
from tests.forge.cases import builders
from tests.minidump_peers.peer_comparison import READERS, Opened
from tests.minidump_peers.peer_readings import readings
from tests.minidump_peers.peer_tools import PeerTools, fetch

CASES = (
    "ftp-2003",
    "service-x64",
    "wow64-service",
    "nested",
    "handlers-x64",
    "handlers-x86",
    "shutdown-hang",
    "deadlock",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print what differs and a line for each reader, and return 1 if anything differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.minidump_peers")
    parser.add_argument("work", type=Path)
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--forged", action="store_true", help="forged cases as well")
    parser.add_argument("--full", action="store_true")
    options = parser.parse_args(arguments)
    tools = fetch(options.work.absolute())
    opened: list[Opened] = []
    differences = 0
    for folder in [*(_forged(options.work) if options.forged else ()), *options.folders]:
        for one in opened_minidumps(folder, tools, options.work / "minidumps" / folder.name, full=options.full):
            opened.append(one)
            for what in one.differences():
                differences += 1
                print(f"{folder.name}: {one.report.process} (PID {one.report.pid}): {what}")  # noqa: T201
    for reader in (*READERS, "symbolic"):
        of_reader = [reading for one in opened for reading in one.readings if reading.reader == reader]
        good = sum(not reading.problem for reading in of_reader)
        print(f"{reader}: opened {good} of {len(of_reader)} in {sum(one.seconds for one in of_reader):.1f} s")  # noqa: T201
    print(f"{len(opened)} minidumps, {differences} differences")  # noqa: T201
    return 1 if differences or not opened else 0


def opened_minidumps(folder: Path, tools: PeerTools, out: Path, *, full: bool = False) -> Iterator[Opened]:
    """Write the minidumps of the dump in `folder`, and yield each with what the readers say."""
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("*.dmp"):
        old.unlink()
    with throwstack.open(folder / "MEMORY.DMP", symbols=folder / "isf", symbol_path="", offline=True) as dump:
        crashes = {(crash.pid, crash.tid): crash for crash in dump.crashes()}
        for report in dump.minidumps(out, full=full):
            assert report.path is not None, report.problem
            crash = crashes.get((report.pid, report.tid or 0))
            said = readings(tools, report.path, folder / "symbols", folder / "images")
            yield Opened(report, crash, tuple(said))


def _forged(work: Path) -> Iterator[Path]:
    for case in CASES:
        folder = work / "forged" / case
        if not (folder / "MEMORY.DMP").exists():
            forge(builders()[case][0](), folder)
        yield folder


if __name__ == "__main__":
    sys.exit(main())
