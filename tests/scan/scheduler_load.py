# SPDX-License-Identifier: Apache-2.0
"""What the scheduler's part of a scan costs: `python -m tests.scan.scheduler_load --tasks 10000`.

The tasks are those of a real scan, of dumps that are not there, and each does nothing. So what is measured is all that
comes to the work on the dumps: tasks and results between scheduler and workers, and in the end the tables and the page.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

from tests.scan.made_records import made_crash, made_record
from throwstack.scan import run_scan
from throwstack.scan.dump_record import DumpOutcome
from throwstack.scan.part_store import PartStore
from throwstack.scan.run_scan import PARTS, ScanPlan, scan
from throwstack.scan.scan_cluster import ClusterChoice
from throwstack.scan.scan_inputs import DumpInput
from throwstack.scan.scan_task import ScanTask, TaskResult
from throwstack.scan.write_results import write_results

FRAMES = tuple(f"app!function{number}+0x12" for number in range(40))


def no_work(_: ScanTask) -> TaskResult:
    """Stand in for the examination of a dump."""
    return TaskResult(DumpOutcome.EXAMINED, 1, 0.0)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.scan.scheduler_load", description=__doc__)
    parser.add_argument("--tasks", type=int, default=10_000)
    options = parser.parse_args()
    run_scan.examine_on_worker = no_work
    inputs = [DumpInput(f"/dumps/{number:05}/MEMORY.DMP", 1 << 36, 1) for number in range(options.tasks)]
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory)
        begun, processor = time.monotonic(), time.process_time()
        count = scan(ScanPlan(inputs, out, cluster=ClusterChoice(workers=2)))
        assert count.done == options.tasks
        _say("tasks given out and taken back", options.tasks, begun, processor)

        store = PartStore(out / PARTS)
        os.fsync = lambda _: None  # the parts are the workers' business, each on its own
        for number, dump in enumerate(inputs):
            crash = made_crash(f"app!f{number % 500}", frames=FRAMES)
            store.write(made_record(dump.path, crash))
        begun, processor = time.monotonic(), time.process_time()
        totals = write_results(out, store.records(dump.path for dump in inputs))
        assert totals.dumps == options.tasks
        _say("tables and page made", options.tasks, begun, processor)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        sys.stdout.write(f"most memory of the scanning process: {peak} MiB\n")
        sys.stdout.write(f"page: {(out / 'index.html').stat().st_size >> 10} KiB\n")


def _say(what: str, tasks: int, begun: float, processor: float) -> None:
    seconds, used = time.monotonic() - begun, time.process_time() - processor
    sys.stdout.write(
        f"{what}: {seconds:.1f} s, {1000 * used / tasks:.2f} ms of processor each ({tasks / seconds:.0f} a second)\n"
    )


if __name__ == "__main__":
    main()
