# SPDX-License-Identifier: Apache-2.0
"""Runs a managed program until it is stuck on its exception, and captures all of its memory with the truth."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.live.capture import Capture, CaptureError, CommittedRange, LiveProcess, capture
from tests.live.crash import end_loader, export, has_debugger
from tests.live.wine import Prefix, WineError, end_process, find_process
from tests.managed_live.build_apps import APPS, COMMITTED, App
from tests.managed_live.console_text import ConsoleTextError, as_json, frame_json, parse_console
from tests.managed_live.managed_fixtures import ManagedFixture
from tests.managed_live.noted_threads import EXPORT, NotesError, read_notes

SECONDS_TO_BLOCK = 40.0
LOOK_EVERY = 0.1
STEADY_LOOKS = 3
SECONDS_TO_LIST = 60
# Wine's own mscoree has to be there: .NET 8 loads libraries of IL alone as Windows does, through it.
OVERRIDES = "mshtml="


def crash(fixture: ManagedFixture, app: App, prefix: Prefix, console: Path) -> tuple[Capture, dict[str, Any]]:
    """Run the program and capture it; tries again when Wine stumbles. Raises WineError.

    What the program prints goes to the file `console`, which is in a directory of its own.
    """
    failures = []
    for _ in range(3):
        try:
            return _crash_once(fixture, app, prefix, console)
        except (WineError, CaptureError, ConsoleTextError, NotesError, OSError) as error:
            failures.append(str(error))
            prefix.start_anew()
    message = "; ".join(failures)
    raise WineError(message)


def _crash_once(fixture: ManagedFixture, app: App, prefix: Prefix, console: Path) -> tuple[Capture, dict[str, Any]]:
    marker = f"{fixture.name}.{time.monotonic_ns()}"
    arguments = (*app.arguments, fixture.scenario.name)
    environment = {"THROWSTACK_LIVE": marker}
    loader = prefix.start(app.image, *arguments, environment=environment, console=console, overrides=OVERRIDES)
    pid = 0
    try:
        pid = find_process(app.image, marker)
        with contextlib.closing(LiveProcess(pid, fixture.runtime.is_64bit)) as process:
            windows_pid = _wait_until_stuck(process, loader, fixture)
            committed = committed_memory(prefix, windows_pid, console.with_suffix(".ranges"))
            os.kill(pid, signal.SIGSTOP)
            captured = capture(process, committed=committed)
    finally:
        if pid:
            end_process(pid)
        end_loader(loader)
    return captured, _truth(fixture, captured, prefix.path / "drive_c" / app.help, console)


def _wait_until_stuck(process: LiveProcess, loader: subprocess.Popen[bytes], fixture: ManagedFixture) -> int:
    """Wait until AeDebug's sleeper waits for the process, and its threads are at rest. Return its Windows PID."""
    layout = process.layout
    steady, last = 0, None
    reason = "it did not start"
    deadline = time.monotonic() + SECONDS_TO_BLOCK
    while time.monotonic() < deadline and loader.poll() is None:
        time.sleep(LOOK_EVERY)
        try:
            tebs = process.tebs(layout)
            windows_pid = process.pointer(tebs[0] + layout.teb_client) if tebs else 0
            state = {teb: process.registers(teb) for teb in tebs}
        except CaptureError:
            continue
        if not tebs or not has_debugger(windows_pid):
            reason = "no debugger was started"
            continue
        reason = "registers change"
        steady = steady + 1 if state == last else 0
        last = state
        if steady == STEADY_LOOKS:
            return windows_pid
    message = f"{fixture.name}: {reason if loader.poll() is None else 'it ended'}"
    raise WineError(message)


def committed_memory(prefix: Prefix, windows_pid: int, listing: Path) -> list[CommittedRange]:
    """Return the memory that Wine gave a process, as it tells another of its programs. Raises WineError."""
    lister = prefix.start(Path(APPS) / COMMITTED, str(windows_pid), console=listing)
    try:
        lister.wait(SECONDS_TO_LIST)
    except subprocess.TimeoutExpired:
        lister.kill()
    lines = listing.read_text(encoding="ascii").splitlines()
    listing.unlink()
    if not lines or lines[-1] != "end":
        message = "the memory of the process could not be listed"
        raise WineError(message)
    return [
        CommittedRange(base, base + size, protection, kind)
        for base, size, protection, kind in ([int(word, 16) for word in line.split()] for line in lines[:-1])
    ]


def _truth(fixture: ManagedFixture, captured: Capture, helper: Path, console: Path) -> dict[str, Any]:
    crash_text = parse_console(console.read_text(encoding="utf-8", errors="replace"))
    help_module = next(module for module in captured.modules if module.name.lower() == helper.name)
    threads = read_notes(captured.read, help_module.base + export(helper, EXPORT))
    tids = {thread.tid for thread in captured.threads}
    unknown = sorted({crash_text.tid, *(thread.tid for thread in threads)} - tids)
    if unknown:
        message = f"{fixture.name}: threads {unknown} were not captured"
        raise CaptureError(message)
    return {
        "name": fixture.name,
        "runtime": fixture.runtime.label,
        "version": fixture.runtime.version,
        "scenario": fixture.scenario.name,
        "arch": captured.arch,
        "pid": captured.pid,
        "tid": crash_text.tid,
        "exception": as_json(crash_text.exception),
        "decoys": [
            {"tid": thread.tid, "name": thread.name, "frames": [frame_json(frame) for frame in thread.frames]}
            for thread in threads
        ],
    }
