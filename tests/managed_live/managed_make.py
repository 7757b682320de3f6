# SPDX-License-Identifier: Apache-2.0
"""Makes the managed fixtures: fetches the runtimes, builds the programs, crashes and captures each.

A fixture is a directory: console.txt (what the runtime printed), truth.json (what that and the program's notes say) and
capture.gz (the process, `saved_captures.py`).
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.live.build import build_sleeper
from tests.live.machine_setup import install_packages
from tests.live.wine import Prefix, WineError
from tests.managed_live.build_apps import APPS, COMPILED_WITH, RUNTIMES_LINK, App, build_apps
from tests.managed_live.managed_crash import crash
from tests.managed_live.managed_fixtures import ManagedFixture, managed_fixtures
from tests.managed_live.runtimes import RUNTIMES, cache, fetched
from tests.managed_live.saved_captures import save


def make(work: Path, only: Sequence[str] = (), *, quick: bool = False) -> list[str]:
    """Make the fixtures under `work`/managed. Returns what failed; a missing runtime is only said."""
    work = work.resolve()
    started = time.monotonic()
    install_packages()
    wanted = managed_fixtures(only, quick=quick)
    labels = {fixture.runtime.label for fixture in wanted}
    labels |= {COMPILED_WITH[runtime.core_library] for runtime in RUNTIMES if runtime.label in labels}
    folders, missing = fetched([runtime for runtime in RUNTIMES if runtime.label in labels])
    for line in missing:
        _say(started, line)
    built, failures = build_apps(work / "apps", folders)
    apps = {app.runtime.label: app for app in built}
    possible = [fixture for fixture in wanted if fixture.runtime.label in apps]
    for fixture in wanted:
        if fixture not in possible:  # nothing is to be said of what an earlier run made
            shutil.rmtree(out_folder(work) / fixture.name, ignore_errors=True)
    _say(started, f"programs built for {', '.join(apps) or 'no runtime'}; {len(possible)} processes to crash")
    failed = list(_crash_all(work, possible, apps)) if possible else []
    _say(started, f"{len(possible) - len(failed)} processes in {out_folder(work)}")
    return failures + failed


def out_folder(work: Path) -> Path:
    """Return the directory of the fixtures' directories."""
    return work / "managed"


def _crash_all(work: Path, wanted: Sequence[ManagedFixture], apps: Mapping[str, App]) -> Iterator[str]:
    """Crash one program after the other; yield what failed."""
    prefix = Prefix(work / "classic", is_wow64=False)
    try:
        prefix.create(build_sleeper(work / "builds"))
        for name, target in ((APPS, work / "apps"), (RUNTIMES_LINK, cache())):
            link = prefix.path / "drive_c" / name
            link.unlink(missing_ok=True)
            link.symlink_to(target.resolve())
    except (WineError, OSError) as error:
        yield f"no managed process could be crashed: {error}"
        return
    for fixture in wanted:
        yield from _crash_one(fixture, apps[fixture.runtime.label], prefix, out_folder(work) / fixture.name)
    try:
        prefix.stop()
    except WineError as error:
        yield str(error)


def _crash_one(fixture: ManagedFixture, app: App, prefix: Prefix, out: Path) -> Iterator[str]:
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    try:
        capture, truth = crash(fixture, app, prefix, out / "console.txt")
    except WineError as error:
        (out / "console.txt").replace(out / "failed.txt")
        yield f"{fixture.name} could not be made: {error}"
        return
    save(capture, out)
    (out / "truth.json").write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")


def _say(started: float, text: str) -> None:
    print(f"[{time.monotonic() - started:4.0f} s] {text}", flush=True)  # noqa: T201 - a command's progress
