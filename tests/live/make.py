# SPDX-License-Identifier: Apache-2.0
"""Makes the fixtures: builds the programs, crashes and captures each, has the dumps forged.

A fixture is a directory: MEMORY.DMP, isf/, truth.json, and pdb/ (SymSrv layout) for the builds with PDBs.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.live.build import X64_BUILDS, X86_BUILDS, Build, build, build_sleeper
from tests.live.crash import crash
from tests.live.fixtures import Fixture, fixtures
from tests.live.hand_over import hand_over
from tests.live.machine_setup import fetch_runtime, install_packages
from tests.live.wine import Prefix, WineError


def make(work: Path, only: Sequence[str] = ()) -> list[str]:
    """Make all fixtures, or those whose name contains one of `only`, under `work`/out. Returns what failed."""
    work = work.resolve()
    install_packages()
    started = time.monotonic()
    wanted = [f for f in fixtures() if not only or any(text in f.name for text in only)]
    builds = work / "builds"
    build_all(builds, work / "wheels", wanted)
    sleeper = build_sleeper(builds)
    prefixes = {is_wow64: Prefix(work / ("wow64" if is_wow64 else "classic"), is_wow64) for is_wow64 in (False, True)}
    _say(started, f"programs built; {len(wanted)} processes to crash")
    # A prefix runs one program at a time; the two run side by side.
    with ThreadPoolExecutor(2) as pool:
        sides = [
            pool.submit(
                _make_side, [f for f in wanted if f.is_wow64 is is_wow64], prefix, builds, sleeper, work / "out"
            )
            for is_wow64, prefix in prefixes.items()
        ]
        failures = [line for side in sides for line in side.result()]
    _say(started, f"{len(wanted) - len(failures)} dumps in {work / 'out'}")
    return failures


def build_all(builds: Path, wheels: Path, wanted: Sequence[Fixture]) -> None:
    """Build the programs that the wanted fixtures need."""
    needed = {(f.build.is_64bit, f.build.label) for f in wanted}
    for config in (*X64_BUILDS, *X86_BUILDS):
        if (config.is_64bit, config.label) in needed:
            out = build(config, builds / program_folder(config))
            if config.is_64bit and config.has_pdb:
                shutil.copy(fetch_runtime(wheels), out)


def program_folder(config: Build) -> Path:
    """Return the folder of a build's programs, below the builds and below `live` on the prefix's drive."""
    return Path("x64" if config.is_64bit else "x86") / config.label


def _make_side(wanted: list[Fixture], prefix: Prefix, builds: Path, sleeper: Path, out: Path) -> list[str]:
    if not wanted:
        return []
    try:
        prefix.create(sleeper)
        link = prefix.path / "drive_c" / "live"
        link.unlink(missing_ok=True)
        link.symlink_to(builds)
    except (WineError, OSError) as error:
        return [f"no process of {prefix.path.name} could be crashed: {error}"]
    failures = [line for fixture in wanted for line in _make_one(fixture, prefix, builds, out / fixture.name)]
    try:
        prefix.stop()
    except WineError as error:
        failures.append(str(error))
    return failures


def _make_one(fixture: Fixture, prefix: Prefix, builds: Path, out: Path) -> list[str]:
    folder = program_folder(fixture.build)
    shutil.rmtree(out, ignore_errors=True)
    try:
        capture, truth = crash(fixture, prefix, Path("live") / folder / fixture.program)
        out.mkdir(parents=True)
        hand_over(capture, fixture.program, out)
    except (WineError, OSError, ValueError) as error:
        # What a live process holds differs from run to run: a fixture that does not come about leaves the others alone.
        shutil.rmtree(out, ignore_errors=True)
        return [f"{fixture.name} could not be made: {error}"]
    (out / "truth.json").write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")
    if fixture.build.has_pdb:
        shutil.copytree(builds / folder / "pdb", out / "pdb")
    return []


def _say(started: float, text: str) -> None:
    print(f"[{time.monotonic() - started:4.0f} s] {text}", flush=True)  # noqa: T201 - a command's progress
