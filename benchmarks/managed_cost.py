# SPDX-License-Identifier: Apache-2.0
"""What managed code costs `windows.unhandled`, in seconds of the processor, as ratios.

    python benchmarks/managed_cost.py [--dump DIR …] [--rounds N]

A dump directory has MEMORY.DMP and isf/, with a stuck .NET thread in it: `python -m tests.managed_live dump` writes
such ones beside the captures. Each is looked at with `windows.info` and with `windows.unhandled`: of all threads, of a
thread that does not exist, and with the search for a runtime left out. So one sees what the process's threads cost, one
of which is stuck, and how much of that is for managed code. (Less than nothing, where walks need not guess any more.)
The forged case `service-x64`, whose processes have no runtime, is looked at with and without that search. Each run is a
process of its own; runs take turns, and medians are compared. All start with the kernel's place and symbols known (a
saved configuration).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
VOL = "import sys; from volatility3.cli import main; sys.argv[0] = 'vol'; main()"
WITHOUT = f"from throwstack.managed import process_code; process_code.find_runtime_module = lambda _: None; {VOL}"
"""No process has a runtime."""
NO_THREAD = ("--tid", "1")
RUNS = {
    "info": (VOL, "windows.info"),
    "with": (VOL, "windows.unhandled"),
    "without": (WITHOUT, "windows.unhandled"),
    "none": (VOL, "windows.unhandled", *NO_THREAD),
}


def processor_seconds(dump: Path, main: str, plugin: str, *options: str, place: tuple[str, ...]) -> float:
    """Run a plugin through `vol` in a process of its own; return the processor's time that it took."""
    command = [
        *(sys.executable, "-c", main, "-q", "--offline", "--cache-path", str(dump / "cache"), "-r", "csv"),
        *("-p", str(CHECKOUT / "plugins"), "-s", f"{dump / 'isf'};{CHECKOUT / 'symbols'}"),
        *(*place, plugin, *options),
    ]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{plugin} failed")
    return usage.ru_utime + usage.ru_stime


def medians(dump: Path, names: list[str], rounds: int) -> dict[str, float]:
    """Return the median of each of the RUNS called `names`, which take turns."""
    config = dump / "saved.json"
    if not config.exists():
        place = "-f", str(dump / "MEMORY.DMP"), "--save-config", str(config)
        processor_seconds(dump, VOL, "windows.info", place=place)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            taken[name].append(processor_seconds(dump, *RUNS[name], place=("-c", str(config))))
    return {name: statistics.median(found) for name, found in taken.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dump", type=Path, nargs="*", default=[], help="directories with a dump of a .NET process")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    for dump in options.dump:
        found = medians(dump, ["info", "with", "without", "none"], options.rounds)
        info = found["info"]
        threads, managed = (found["with"] - found[other] for other in ("none", "without"))
        print(
            f"{dump.name}: threads / windows.info: x {threads / info:.2f} ({threads:.2f} of {info:.2f} s), of which "
            f"managed code: x {managed / info:.2f}; windows.unhandled / windows.info: x {found['with'] / info:.2f}"
        )
    with tempfile.TemporaryDirectory() as directory:
        forged = Path(directory)
        command = [sys.executable, "-m", "tests.forge", "service-x64", str(forged)]
        subprocess.run(command, cwd=CHECKOUT, check=True, stdout=subprocess.DEVNULL)
        (forged / "cache").mkdir(exist_ok=True)
        found = medians(forged, ["with", "without"], options.rounds)
        print(f"processes without a runtime, with / without managed code: x {found['with'] / found['without']:.3f}")


if __name__ == "__main__":
    main()
