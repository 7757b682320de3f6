# SPDX-License-Identifier: Apache-2.0
"""Scans hundreds of dumps in all ways and compares: `python -m tests.scan DIR`; `make test-scan` runs it.

The scan with two workers is the one that the others have to equal: one with a single worker (how much faster are two?),
one that is killed ten times and resumed, one on a cluster of Dask's own commands, and the plugin on dumps alone (what
does a dump cost there?). It fails where tables differ.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq

from tests.forge.__main__ import forge
from tests.forge.cases import builders
from tests.scan.corpus import CASES, make_corpus
from tests.scan.scans import external_cluster
from tests.support.vol import CHECKOUT, vol
from throwstack.scan.table_columns import DUMPS

MEASURED = ("seconds", "processor_seconds", "peak_memory", "attempts")
KILLS = 10


def main() -> int:
    """Run the stages that were asked for; return 1 if tables differ."""
    parser = argparse.ArgumentParser(prog="python -m tests.scan", description=__doc__)
    parser.add_argument("directory", type=Path, help="gets the dumps and the results")
    parser.add_argument("--dumps", type=int, default=300)
    parser.add_argument("--live", type=Path, help="a directory of live captures (`make test-live` leaves one)")
    parser.add_argument("--alone", type=int, default=40, help="how many dumps the plugin is run on")
    parser.add_argument("--only", nargs="+", choices=["one", "killed", "cluster", "alone"], help="these stages alone")
    options = parser.parse_args()
    stages = options.only or ["one", "killed", "cluster", "alone"]
    run = _Run(options.directory, _bases(options.directory, options.live), options.dumps)
    wrong = run.two()
    if "one" in stages:
        wrong += run.one()
    if "killed" in stages:
        wrong += run.killed()
    if "cluster" in stages:
        wrong += run.cluster()
    if "alone" in stages:
        wrong += run.alone(options.alone)
    _say("\n".join(wrong) or "all tables are equal")
    return bool(wrong)


def _bases(directory: Path, live: Path | None) -> list[Path]:
    """Return the directories of the dumps that the others are made of."""
    made = [directory / "forged" / case for case in CASES]
    for out in made:
        if not (out / "MEMORY.DMP").exists():
            forge(builders()[out.name][0](), out)
    return [*made, *sorted(path.parent for path in live.glob("*/MEMORY.DMP"))] if live else made


class _Run:
    def __init__(self, directory: Path, bases: Sequence[Path], count: int) -> None:
        self.directory = directory
        self.dumps = make_corpus(directory / "dumps", [base / "MEMORY.DMP" for base in bases], count)
        self.symbols = directory / "isf"
        for base in bases:  # the first of two tables of one PDB stays
            for table in sorted((base / "isf").rglob("*.json*")):
                target = self.symbols / table.relative_to(base / "isf")
                target.parent.mkdir(parents=True, exist_ok=True)
                if not target.exists():
                    shutil.copyfile(table, target)

    def two(self) -> list[str]:
        seconds, processor, memory = self._scan("two", "--workers", "2")
        rows = self._rows("two", "dumps")
        outcomes = sorted((outcome, sum(row["outcome"] == outcome for row in rows)) for outcome in _outcomes(rows))
        examined = [row for row in rows if row["outcome"] == "examined"]
        _say(f"two workers: {len(rows)} dumps in {seconds:.0f} s, {processor / len(rows):.2f} s of processor a dump")
        _say(f"  {', '.join(f'{count} {outcome}' for outcome, count in outcomes)}")
        _say(f"  of an examined one: {sum(row['processor_seconds'] for row in examined) / len(examined):.2f} s")
        _say(f"  most memory of a worker with its process: {memory >> 20} MiB")
        self.seconds = seconds
        missing = {str(path) for path in self.dumps} ^ {row["dump"] for row in rows}
        return [f"no row, or one too many: {sorted(missing)}"] if missing else []

    def one(self) -> list[str]:
        seconds, _, _ = self._scan("one", "--workers", "1")
        _say(f"one worker: {seconds:.0f} s, two are {seconds / self.seconds:.2f} times as fast")
        return self._differences("one")

    def killed(self) -> list[str]:
        chosen = random.Random(1)
        for _ in range(KILLS):
            process = self._start("killed", "--workers", "2")
            time.sleep(chosen.uniform(2, 2 + self.seconds / KILLS))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        before = len(list((self.directory / "killed" / "parts").glob("*.json")))
        self._scan("killed", "--workers", "2")
        _say(f"killed {KILLS} times: {before} of {len(self.dumps)} dumps were done before the last run")
        return self._differences("killed")

    def cluster(self) -> list[str]:
        with external_cluster(self.directory) as address:
            seconds, _, _ = self._scan("cluster", "--scheduler", address)
        _say(f"a cluster of somebody else: {seconds:.0f} s")
        return self._differences("cluster")

    def alone(self, count: int) -> list[str]:
        """Compare with the plugin, on dumps that were examined, chosen at random."""
        examined = [row for row in self._rows("two", "dumps") if row["outcome"] == "examined"]
        crashes = self._rows("two", "crashes")
        wrong, plugin, scanned = [], 0.0, 0.0
        for row in random.Random(2).sample(examined, min(count, len(examined))):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            output = vol(self.directory, "windows.unhandled", dump=Path(row["dump"]), isf=self.symbols, may_fail=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            plugin += after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            scanned += row["processor_seconds"]
            expected = sorted((each["PID"], each["TID"], each["Signature"]) for each in output.rows)
            found = sorted(
                (each["pid"], each["tid"], f"{each['signature']} ({each['signature_digest']})")
                for each in crashes
                if each["dump"] == row["dump"]
            )
            if found != expected:
                wrong.append(f"{row['dump']}: {found}, the plugin says {expected}")
        _say(f"processor time of a dump: {scanned / plugin:.2f} of `vol windows.unhandled`")
        return wrong

    def _command(self, out: str, *options: str) -> list[str]:
        command = [
            sys.executable,
            "-m",
            "throwstack.cli",
            "scan",
            str(self.directory / "dumps"),
            "--quiet",
            "--offline",
        ]
        return [*command, "-s", str(self.symbols), "-o", str(self.directory / out), *options]

    def _start(self, out: str, *options: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
        for variable in ("_NT_SYMBOL_PATH", "_NT_EXECUTABLE_IMAGE_PATH"):
            environment.pop(variable, None)
        return subprocess.Popen(
            self._command(out, *options), env=environment, start_new_session=True, stdout=subprocess.DEVNULL
        )

    def _scan(self, out: str, *options: str) -> tuple[float, float, int]:
        """Run a scan; return its seconds, its seconds of processor, and the most bytes that a worker had resident."""
        if out != "killed":
            shutil.rmtree(self.directory / out, ignore_errors=True)
        begun = time.monotonic()
        process = self._start(out, *options)
        most = max(_watched(process), default=0)
        rows = self._rows(out, "dumps")
        return time.monotonic() - begun, sum(row["processor_seconds"] or 0 for row in rows), most

    def _rows(self, out: str, table: str) -> list[dict[str, Any]]:
        return pq.read_table(self.directory / out / f"{table}.parquet").to_pylist()

    def _differences(self, out: str) -> list[str]:
        wrong = []
        for table in ("dumps", "crashes", "frames"):
            without = [name for name in MEASURED if table == "dumps" and name in DUMPS.names]
            tables = (pq.read_table(self.directory / each / f"{table}.parquet") for each in ("two", out))
            first, second = (each.drop_columns(without) for each in tables)
            if not first.equals(second):
                wrong.append(f"{out}: {table} differs from an undisturbed scan with two workers")
        reports = [(self.directory / each / "crashes.jsonl").read_bytes() for each in ("two", out)]
        return wrong if reports[0] == reports[1] else [*wrong, f"{out}: crashes.jsonl differs"]


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _outcomes(rows: list[dict[str, Any]]) -> set[str]:
    return {row["outcome"] for row in rows}


def _watched(process: subprocess.Popen[bytes]) -> Iterator[int]:
    """Yield the bytes resident in each worker and its examining process together, now and then until the end."""
    parent = psutil.Process(process.pid)
    while process.poll() is None:
        with contextlib.suppress(psutil.Error):
            for worker in parent.children():
                with contextlib.suppress(psutil.Error):
                    yield sum(each.memory_info().rss for each in (worker, *worker.children()))
        time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main())
