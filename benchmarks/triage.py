# SPDX-License-Identifier: Apache-2.0
"""Triage of a whole machine beside Volatility's own list of its threads: time and peak memory, as ratios.

    python benchmarks/triage.py [--rounds N] [--dump DIR]

Forges the case `fleet` (200 processes, 4,000 threads, three of them crashed) unless a directory with a forged dump is
given, then runs `vol windows.threads` and `vol windows.unhandled` on it in turn, each in a process of its own, and
compares the medians. Both start with the kernel's place and symbols known (a saved configuration), so that what is
compared is the plugins' work rather than Volatility's search for a kernel; `--cold` leaves the search in. On a machine
that is busy with other things only the processor's time means something.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
MAIN = "import sys; from volatility3.cli import main; sys.argv[0] = 'vol'; main()"


@dataclass(frozen=True)
class Cost:
    """One run: seconds of wall time and of the processor, MiB of peak resident memory, rows printed."""

    seconds: float
    processor: float
    mebibytes: float
    rows: int


def run(forged: Path, plugin: str, config: Path | None) -> Cost:
    """Run a plugin through `vol` and measure the process."""
    command = [
        *(sys.executable, "-c", MAIN, "-q", "--offline", "--cache-path", str(forged / "cache"), "-r", "csv"),
        *("-p", str(CHECKOUT / "plugins"), "-s", f"{forged / 'isf'};{CHECKOUT / 'symbols'}"),
        *(("-c", str(config)) if config else ("-f", str(forged / "MEMORY.DMP"))),
        plugin,
    ]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    with tempfile.TemporaryFile() as out:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        if status:
            sys.exit(f"{plugin} failed")
        out.seek(0)
        rows = sum(1 for line in out if line.strip()) - 1
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, rows)


def saved_config(forged: Path) -> Path:
    """Return a configuration with which `vol` need not search for the kernel."""
    config = forged / "config.json"
    command = [
        *(sys.executable, "-c", MAIN, "-q", "--offline", "--cache-path", str(forged / "cache")),
        *("-s", str(forged / "isf"), "-f", str(forged / "MEMORY.DMP"), "--save-config", str(config)),
        "windows.pslist",
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return config


def main() -> None:
    """Forge, run, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each plugin (3)")
    parser.add_argument("--dump", type=Path, help="directory with MEMORY.DMP and isf/ (forged anew without this)")
    parser.add_argument("--cold", action="store_true", help="let Volatility search for the kernel in every run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        forged = options.dump or Path(scratch)
        if options.dump is None:
            subprocess.run([sys.executable, "-m", "tests.forge", "fleet", str(forged)], check=True, cwd=CHECKOUT)
        (forged / "cache").mkdir(exist_ok=True)
        config = None if options.cold else saved_config(forged)
        costs: dict[str, list[Cost]] = {"windows.threads": [], "windows.unhandled": []}
        for _ in range(options.rounds):
            for plugin, runs in costs.items():
                runs.append(run(forged, plugin, config))
    peer, ours = costs.values()
    for plugin, runs in costs.items():
        seconds, processor, mebibytes = (
            statistics.median(getattr(cost, name) for cost in runs) for name in ("seconds", "processor", "mebibytes")
        )
        shown = f"{seconds:7.2f} s ({processor:.2f} s of the processor) {mebibytes:7.0f} MiB"
        print(f"{plugin:18} {shown} {runs[0].rows:6} rows")
    ratios = [
        statistics.median(getattr(cost, name) for cost in ours)
        / statistics.median(getattr(cost, name) for cost in peer)
        for name in ("seconds", "processor", "mebibytes")
    ]
    text = f"time x {ratios[0]:.2f}, processor time x {ratios[1]:.2f}, peak memory x {ratios[2]:.2f}"
    print(f"windows.unhandled / windows.threads: {text}")


if __name__ == "__main__":
    main()
