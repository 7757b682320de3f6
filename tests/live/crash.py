# SPDX-License-Identifier: Apache-2.0
"""Runs one fixture's program until it is stuck, and captures it with its truth."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from functools import cache
from pathlib import Path
from typing import Any

import pefile

from tests.live.capture import Capture, CaptureError, LiveProcess, capture
from tests.live.fixtures import Fixture
from tests.live.noted_values import EXPORT, NOTED_IN, SIZE, parse_values
from tests.live.truth import DECOYS, TRUTH, ThreadTruth, TruthError, as_json, name_reader, parse
from tests.live.wine import Prefix, WineError, end_process, find_process

SECONDS_TO_BLOCK = 40.0
STEADY_LOOKS = 5
LOOK_EVERY = 0.1
WAITS = (
    *("NtWaitForMultipleObjects", "NtWaitForSingleObject", "NtDelayExecution", "NtSignalAndWaitForSingleObject"),
    "NtWaitForAlertByThreadId",
)


def crash(fixture: Fixture, prefix: Prefix, program: Path, attempts: int = 3) -> tuple[Capture, dict[str, Any]]:
    """Run `program` (its path under drive_c) and capture it; tries again when Wine stumbles. Raises WineError.

    A process that does not come to rest as it should, that is gone, or whose notes and memory differ is run anew: on a
    busy machine a wait that looked final can end.
    """
    failures = []
    for _ in range(attempts):
        try:
            return _crash_once(fixture, prefix, program)
        except (WineError, CaptureError, TruthError, OSError) as error:
            failures.append(str(error))
            prefix.start_anew()
    message = "; ".join(failures)
    raise WineError(message)


def _crash_once(fixture: Fixture, prefix: Prefix, program: Path) -> tuple[Capture, dict[str, Any]]:
    marker = f"{fixture.name}.{time.monotonic_ns()}"
    loader = prefix.start(program, fixture.scenario, environment={"THROWSTACK_LIVE": marker})
    pid = 0
    try:
        pid = find_process(program, marker)
        is_64bit = fixture.build.is_64bit or fixture.is_wow64
        with contextlib.closing(LiveProcess(pid, is_64bit)) as process:
            truth_at = wait_until_stuck(process, fixture, prefix.path / "drive_c" / program)
            os.kill(pid, signal.SIGSTOP)
            text = name_reader(process.read)
            _, threads = parse(process.read(truth_at, TRUTH), text)
            values = _values(process, truth_at, prefix.path / "drive_c" / program, text)
            also = {address for thread in threads for address in thread.addresses}
            captured = capture(process, throws=fixture.program == "throw.exe", also=also)
        truth = as_json(captured, threads, fixture.name, program.name, fixture.build.label)
        truth["values"] = values
    finally:
        if pid:
            end_process(pid)
        end_loader(loader)
    if len(truth["stuck"]) + len(truth["shutting_down"]) != fixture.crashes:
        message = f"{fixture.name}: not all threads crashed"
        raise TruthError(message)
    return captured, truth


def _values(process: LiveProcess, truth_at: int, image: Path, text: Any) -> list[dict[str, Any]]:
    """Return the values of variables that the program noted; none if it is not the one that does."""
    if image.name != NOTED_IN:
        return []
    distance = export(image, EXPORT) - export(image, "ts_truth")
    return parse_values(process.read(truth_at + distance, SIZE), text)


def end_loader(loader: subprocess.Popen[bytes]) -> None:
    """Wait for the loader of a process that has ended; kill it if it stays."""
    try:
        loader.wait(5)
    except subprocess.TimeoutExpired:
        loader.kill()
        loader.wait()


def wait_until_stuck(process: LiveProcess, fixture: Fixture, image: Path) -> int:
    """Wait until every thread that is to crash waits for good; return the address of `ts_truth`. Raises WineError."""
    deadline = time.monotonic() + SECONDS_TO_BLOCK
    steady, last = 0, None
    reason = "it did not start"
    while time.monotonic() < deadline:
        time.sleep(LOOK_EVERY)
        try:
            truth_at, state, reason = _look(process, fixture, image)
        except (CaptureError, TruthError, OSError) as error:
            steady, last, reason = 0, None, str(error)
            continue
        steady = steady + 1 if state is not None and state == last else 0
        last = state
        if steady == STEADY_LOOKS:
            return truth_at
    message = f"{fixture.name}: {reason}"
    raise WineError(message)


def _look(process: LiveProcess, fixture: Fixture, image: Path) -> tuple[int, Any, str]:
    """Return the truth's address, what must stay steady (None while not stuck) and the reason why not yet."""
    layout = process.layout
    tebs = process.tebs(layout)
    if not tebs:
        return 0, None, "no TEB yet"
    peb = process.pointer(tebs[0] + layout.teb_peb)
    truth_at = process.pointer(peb + layout.peb_image_base) + export(image, "ts_truth")
    ready, threads = parse(process.read(truth_at, TRUTH), name_reader(process.read))
    blocked = [thread for thread in threads if thread.role in {"crashes", "shuts-down"}]
    waiting = [thread for thread in threads if thread.role == "walked"]
    if not ready or len(blocked) != fixture.crashes or len(waiting) != fixture.waits:
        begun, wanted = len(blocked) + len(waiting), fixture.crashes + fixture.waits
        return truth_at, None, f"{begun} of {wanted} threads begun"
    if not all(_has_raised(thread, fixture) for thread in blocked) or not {thread.role for thread in threads} >= DECOYS:
        return truth_at, None, "exceptions or decoys are missing"
    if fixture.waits_for_debugger and not has_debugger(process.pointer(tebs[0] + layout.teb_client)):
        return truth_at, None, "no debugger was started"
    registers = {process.pointer(teb + layout.teb_client + layout.size): process.registers(teb) for teb in tebs}
    waits = wait_ranges(process)
    ip = "rip" if process.is_64bit else "eip"
    for thread in threads:
        at = registers.get(thread.tid, {}).get(ip, 0)
        if at != thread.waits_at and not any(start <= at < start + 32 for start in waits):
            return truth_at, None, f"thread {thread.tid} ({thread.note}) is at {at:#x}, not in a wait"
    return truth_at, registers, "registers change"


def _has_raised(thread: ThreadTruth, fixture: Fixture) -> bool:
    return sum(not raised.handled for raised in thread.exceptions) == fixture.exceptions


def has_debugger(pid: int) -> bool:
    """Say whether AeDebug's sleeper runs for the process with this Windows PID."""
    wanted = [b"c:\\sleeper.exe", str(pid).encode()]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().replace(b" ", b"\0").split(b"\0")
            except OSError:
                continue
            if words[:2] == wanted:
                return True
    return False


def wait_ranges(process: LiveProcess) -> list[int]:
    """Return the addresses of ntdll's waiting system calls."""
    for mapping in process.mappings():
        wanted = "/x86_64-windows/ntdll.dll" if process.is_64bit else "/i386-windows/ntdll.dll"
        if mapping.file.endswith(wanted):
            return [mapping.start + export(Path(mapping.file), name) for name in WAITS]
    message = "no ntdll"
    raise CaptureError(message)


def export(image: Path, name: str) -> int:
    """Return the RVA of an export. Raises CaptureError."""
    found = _exports(image).get(name)
    if found is None:
        message = f"{image} exports no {name}"
        raise CaptureError(message)
    return found


@cache
def _exports(image: Path) -> dict[str, int]:
    with pefile.PE(str(image), fast_load=True) as pe:
        pe.parse_data_directories([pefile.DIRECTORY_ENTRY["IMAGE_DIRECTORY_ENTRY_EXPORT"]])
        return {s.name.decode(): s.address for s in pe.DIRECTORY_ENTRY_EXPORT.symbols if s.name}
