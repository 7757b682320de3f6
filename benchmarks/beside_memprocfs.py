# SPDX-License-Identifier: Apache-2.0
"""The x64 walk beside MemProcFS's, on the same threads of the same dump: frames a second, and frames that are right.

    python benchmarks/beside_memprocfs.py [--case CASE | --dump DIR] [--rounds N]

Forges the case `peers` (200 threads with every frame in truth.json) with the kernel that MemProcFS wants. Both open the
dump and find the threads first; timed is then one pass over all stacks from the registers of the trap frames, the first
pass (in which pages are read and unwind data is decoded) apart from the median of the others. Seconds are those of
the processor, on whichever core, so that what else runs on the machine matters little. MemProcFS returns a
list of dictionaries for each stack and looks for names, without symbols here; for ours the time with names is given
too. It needs `pip install '.[peers]'`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from volatility3 import framework

from tests.forge.truth import Truth
from tests.peers.memprocfs import Frame, PeerFailed, is_installed, memprocfs_walk
from throwstack.core.frames import StackBounds
from throwstack.core.registers import Registers
from throwstack.unwind.target import Target, current_stack
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.opening.open_image import open_image, symbol_directories
from throwstack.volatility.opening.sources import Sources
from throwstack.volatility.survey import Selection, Survey

CHECKOUT = Path(__file__).resolve().parents[1]
USER_END = 1 << 47
Stacks = dict[tuple[int, int], list[Frame]]


@dataclass(frozen=True)
class Start:
    """Where a thread's walk begins."""

    key: tuple[int, int]
    target: Target
    registers: Registers
    bounds: StackBounds


def true_stacks(path: Path) -> Stacks:
    """Return the user's half of every stack in a forged case's truth; a live dump's has no blocked stacks."""
    if "stacks" not in json.loads(path.read_text(encoding="utf-8")):
        return {}
    truth = Truth.load(path)
    stacks = {tuple(map(int, key.split(":"))): frames for key, frames in truth.stacks.items()}
    stacks |= {(stuck.pid, stuck.tid): stuck.thread_stack for stuck in truth.stuck}
    return {
        (pid, tid): [(frame.ip, frame.return_address, frame.child_sp) for frame in frames if frame.ip < USER_END]
        for (pid, tid), frames in stacks.items()
    }


def starts(survey: Survey, wanted: Iterable[tuple[int, int]]) -> list[Start]:
    """Return the wanted threads with the registers that their trap frames and kernel stacks hold."""
    keys, found = set(wanted), []
    for process in survey.processes():
        for thread in process.threads:
            if (process.pid, thread.tid) not in keys:
                continue
            side, target = process.selected()[0]
            stack = survey.reader.completed(thread, survey.reader.stack(process, thread, side))
            if stack.registers is None:
                continue
            bounds = current_stack(target, stack).bounds
            found.append(Start((process.pid, thread.tid), target, stack.registers, bounds))
    return found


def walk(start: Start, *, names: bool) -> list[Frame]:
    """Walk one stack; with names, look up those of all frames."""
    frames = start.target.unwinder.walk(start.registers, start.bounds).frames
    if names:
        for frame in frames:
            start.target.symbols.name(frame.ip)
    return [(frame.ip, frame.return_address or 0, frame.child_sp) for frame in frames]


def our_walks(dump: Path, wanted: Iterable[tuple[int, int]], rounds: int) -> tuple[Stacks, list[float], list[float]]:
    """Return our stacks, the processor seconds of each pass, and those of each pass with names."""
    framework.require_interface_version(2, 0, 0)
    with symbol_directories([dump.parent / "isf", CHECKOUT / "symbols"]):
        context, kernel = open_image(dump)
        survey = Survey(Machine(context, kernel, "benchmark", Sources("", "")), Selection())
        todo = starts(survey, wanted)
        passes: list[list[float]] = [[], []]
        stacks: Stacks = {}
        for names, seconds in enumerate(passes):
            for _ in range(rounds):
                started = time.process_time()
                walked = [walk(start, names=bool(names)) for start in todo]
                seconds.append(time.process_time() - started)
                stacks = {start.key: frames for start, frames in zip(todo, walked, strict=True)}
    return stacks, passes[0], passes[1]


def agreement(found: Stacks, truth: Stacks) -> str:
    """Say how many frames have the right ip and rsp, how many that were found do not, and how many stacks are whole."""
    right = wrong = whole = 0
    for key, expected in truth.items():
        frames = found.get(key, [])
        hits = len({(ip, sp) for ip, _, sp in frames} & {(ip, sp) for ip, _, sp in expected})
        right, wrong, whole = right + hits, wrong + len(frames) - hits, whole + (frames == expected)
    total = sum(map(len, truth.values()))
    return f"{right} of {total} frames right, {wrong} wrong, {whole} of {len(truth)} stacks whole" if truth else ""


def report(name: str, frames: int, seconds: Sequence[float], remark: str) -> float:
    """Print and return frames a second, from the median of all passes but the first."""
    speed = frames / statistics.median(seconds[1:])
    print(f"{name:11} {speed:9,.0f} frames/s, first pass {1000 * seconds[0]:4.0f} ms   {remark}".rstrip())
    return speed


def main() -> int:
    """Forge, walk with both, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", default="peers", help="case to forge (peers)")
    parser.add_argument("--dump", type=Path, help="directory with MEMORY.DMP, isf/ and truth.json, forged or live")
    parser.add_argument("--rounds", type=int, default=11, help="passes over all stacks (11)")
    options = parser.parse_args()
    if not is_installed():
        print("MemProcFS is not there: pip install '.[peers]'")
        return 1
    with tempfile.TemporaryDirectory() as scratch:
        forged = options.dump or Path(scratch)
        if options.dump is None:
            command = [sys.executable, "-m", "tests.forge", options.case, str(forged), "--fuller-kernel"]
            subprocess.run(command, check=True, cwd=CHECKOUT)
        truth = true_stacks(forged / "truth.json")
        try:
            peer = memprocfs_walk(forged / "MEMORY.DMP", rounds=options.rounds)
        except PeerFailed as reason:
            print(f"MemProcFS: {reason}")
            return 1
        stacks, plain, named = our_walks(forged / "MEMORY.DMP", peer.stacks, options.rounds)
    counts = [sum(map(len, found.values())) for found in (peer.stacks, stacks)]
    print(f"{len(peer.stacks)} threads, frames: MemProcFS {counts[0]}, throwstack {counts[1]}")
    print(f"MemProcFS took {peer.opening:.1f} s to open the dump")
    speeds = [
        report("MemProcFS", counts[0], peer.rounds, agreement(peer.stacks, truth)),
        report("throwstack", counts[1], plain, agreement(stacks, truth)),
        report("with names", counts[1], named, ""),
    ]
    print(f"throwstack / MemProcFS: x {speeds[1] / speeds[0]:.1f}, with names x {speeds[2] / speeds[0]:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
