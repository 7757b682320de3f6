# SPDX-License-Identifier: Apache-2.0
"""Scans for tests: of files whose names say what their examination does, on clusters of two workers."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from tests.scan.misbehave import EXAMINE
from tests.support.vol import CHECKOUT
from throwstack.scan.dump_record import DumpRecord
from throwstack.scan.part_store import PartStore
from throwstack.scan.run_scan import PARTS, ScanPlan
from throwstack.scan.scan_cluster import ClusterChoice
from throwstack.scan.scan_inputs import find_inputs

TWO = ClusterChoice(workers=2)


def plan_of(directory: Path, *names: str, **options) -> ScanPlan:
    dumps = directory / "dumps"
    dumps.mkdir(exist_ok=True)
    for name in names:
        (dumps / name).write_bytes(b"dump")
    inputs = find_inputs([str(dumps)], pattern="*.dmp")
    return ScanPlan(inputs, directory / "out", **{"cluster": TWO, "examine": EXAMINE, "seconds": 30.0, **options})


def records(plan: ScanPlan) -> dict[str, DumpRecord]:
    found = PartStore(plan.out / PARTS).records(dump.path for dump in plan.inputs)
    return {Path(record.path).name: record for record in found}


def outcomes(plan: ScanPlan) -> dict[str, str]:
    return {name: record.outcome.value for name, record in records(plan).items()}


def workers_of(process: psutil.Process) -> list[psutil.Process]:
    """Return the worker processes among the children of `process`."""
    found = []
    for child in process.children():
        with contextlib.suppress(psutil.Error):
            if "dask_worker" in " ".join(child.cmdline()):
                found.append(child)
    return found


@contextlib.contextmanager
def external_cluster(directory: Path) -> Iterator[str]:
    """Start a scheduler and two workers as Dask's users start them, on loopback; give the scheduler's address."""
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    file = directory / "scheduler.json"
    started = []

    def start(what: str, *options: str) -> None:
        module = [sys.executable, "-m", f"distributed.cli.dask_{what}"]
        place = directory / what
        place.mkdir(exist_ok=True)
        done = subprocess.Popen([*module, *options], env=environment, cwd=place, stderr=subprocess.DEVNULL)
        started.append(psutil.Process(done.pid))

    try:
        start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file))
        for _ in range(2):
            start("worker", "--nthreads", "1", "--no-dashboard", "--scheduler-file", str(file))
        deadline = time.monotonic() + 30
        while not file.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        yield json.loads(file.read_text())["address"]
    finally:
        for process in started:
            for one in (*process.children(recursive=True), process):
                with contextlib.suppress(psutil.Error):
                    one.kill()
