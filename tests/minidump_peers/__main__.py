# SPDX-License-Identifier: Apache-2.0
"""`make test-minidumps`: minidumps of forged cases, or of the folders given, opened by other readers and compared."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import throwstack
from tests.forge.__main__ import forge
from tests.forge.cases import builders
from tests.live.hand_over import hand_over
from tests.managed_live.saved_captures import load
from tests.minidump_peers.peer_comparison import READERS, Opened
from tests.minidump_peers.peer_readings import readings
from tests.minidump_peers.peer_symbols import WalkerFiles, files_of
from tests.minidump_peers.peer_tools import PeerTools, fetch
from tests.minidump_peers.walker_table import TITLE, section
from tests.support.document_sections import replace_section

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
    parser.add_argument("--out", type=Path, help="the document whose table of walkers is written")
    options = parser.parse_args(arguments)
    tools = fetch(options.work.absolute())
    looked_at: list[tuple[Path, Opened]] = []
    differences = 0
    for folder in [*(_forged(options.work) if options.forged else ()), *options.folders]:
        for one in opened_minidumps(folder, tools, options.work / "minidumps" / folder.name, full=options.full):
            looked_at.append((folder, one))
            for what in one.differences():
                differences += 1
                print(f"{folder.name}: {one.report.process} (PID {one.report.pid}): {what}")  # noqa: T201
    opened = [one for _, one in looked_at]
    for reader in (*READERS, "symbolic"):
        of_reader = [reading for one in opened for reading in one.readings if reading.reader == reader]
        good = sum(not reading.problem for reading in of_reader)
        print(f"{reader}: opened {good} of {len(of_reader)} in {sum(one.seconds for one in of_reader):.1f} s")  # noqa: T201
    print(f"{len(opened)} minidumps, {differences} differences")  # noqa: T201
    if options.out is not None:
        replace_section(options.out, TITLE, section(looked_at))
    return 1 if differences or not opened else 0


def opened_minidumps(folder: Path, tools: PeerTools, out: Path, *, full: bool = False) -> Iterator[Opened]:
    """Write the minidumps of the dump in `folder`, and yield each with what the readers say."""
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("*.dmp"):
        old.unlink()
    if not (folder / "MEMORY.DMP").exists():
        with tempfile.TemporaryDirectory(dir=out) as whole:
            captured = load(folder)
            hand_over(captured, captured.modules[0].name, Path(whole))
            yield from _opened(Path(whole), WalkerFiles(out / "none"), tools, out, full=full)
        return
    yield from _opened(folder, files_of(folder, tools, out.parent.parent), tools, out, full=full)


def _opened(folder: Path, files: WalkerFiles, tools: PeerTools, out: Path, *, full: bool) -> Iterator[Opened]:
    with throwstack.open(folder / "MEMORY.DMP", symbols=folder / "isf", symbol_path="", offline=True) as dump:
        crashes = {(crash.pid, crash.tid): crash for crash in dump.crashes()}
        for report in dump.minidumps(out, full=full):
            assert report.path is not None, report.problem
            crash = crashes.get((report.pid, report.tid or 0))
            said = readings(tools, report.path, files)
            yield Opened(report, crash, tuple(said))


def _forged(work: Path) -> Iterator[Path]:
    for case in CASES:
        folder = work / "forged" / case
        if not (folder / "MEMORY.DMP").exists():
            forge(builders()[case][0](), folder)
        yield folder


if __name__ == "__main__":
    sys.exit(main())
