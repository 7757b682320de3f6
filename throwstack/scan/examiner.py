# SPDX-License-Identifier: Apache-2.0
"""A process that examines dumps, seen from the Dask worker that it serves.

The process is kept from dump to dump, because it takes a third of a second of processor time to start. It is replaced
when it has ended, when it had to be killed, and when it has grown.
"""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from throwstack.core.errors import ThrowstackError
from throwstack.core.text import escape
from throwstack.scan.examiner_main import IDLE_SECONDS

_GROWN = 160 << 20
"""A process with more bytes resident after a dump is replaced."""
_LOOK_SECONDS = 0.2
"""How often the memory of the process is looked at."""
_MAX_WORDS = 300
_START = """\
import sys
sys.path[:] = {path!r}
from throwstack.scan.examiner_main import main
main()
"""


class ExaminerEnded(ThrowstackError):
    """The process ended before it had answered; the message says how."""


class OutOfTime(ExaminerEnded):
    """The process was killed because it did not answer in time."""


@dataclass(frozen=True, slots=True)
class DumpLimits:
    """What one dump may take: seconds, and bytes of resident memory (None: as many as there are)."""

    seconds: float
    memory: int | None = None


@dataclass(slots=True)
class _Running:
    process: subprocess.Popen[bytes]
    watched: psutil.Process
    answers: queue.Queue[bytes]
    used: float = field(default_factory=time.monotonic)


class Examiner:
    """Gives dumps to a process, one at a time, and starts a new process when there is none."""

    def __init__(self, scratch: Path | None = None) -> None:
        """Keep the process's files in a new private directory in `scratch`, by default the system's."""
        self._directory = tempfile.TemporaryDirectory(prefix="throwstack-", dir=scratch, ignore_cleanup_errors=True)
        self._log = Path(self._directory.name) / "log"
        self._running: _Running | None = None

    def ask(self, request: dict[str, Any], limits: DumpLimits) -> dict[str, Any]:
        """Return the answer to a request; `examiner_main` says what is in both. Raises ExaminerEnded or OutOfTime."""
        running = self._ready()
        try:
            answer = _exchange(running, request, limits)
        except ExaminerEnded as error:
            status = self._end()
            if isinstance(error, OutOfTime) or str(error):
                raise
            raise ExaminerEnded(_how_it_ended(status, self._log)) from None
        except BaseException:
            self._end()
            raise
        running.used = time.monotonic()
        if _resident(running.watched) > _GROWN:
            self._end(at_leisure=True)
        return answer

    def abort(self) -> None:
        """Kill the process from another thread than the one that asks it; `ask` then raises ExaminerEnded."""
        running = self._running
        if running is not None:
            running.process.kill()

    def close(self) -> None:
        """End the process and remove its files."""
        self._end(at_leisure=True)
        self._directory.cleanup()

    def _ready(self) -> _Running:
        running = self._running
        if running is not None and (
            running.process.poll() is not None or time.monotonic() - running.used > IDLE_SECONDS / 2
        ):
            self._end(at_leisure=True)
        if self._running is None:
            self._running = _start(Path(self._directory.name), self._log)
        return self._running

    def _end(self, *, at_leisure: bool = False) -> int:
        """End the process and return its status; with `at_leisure`, let it end by itself, if it does."""
        running, self._running = self._running, None
        if running is None:
            return 0
        process = running.process
        with contextlib.suppress(OSError):
            assert process.stdin is not None
            process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(5 if at_leisure else 0.5)
        process.kill()
        return process.wait()


def _start(directory: Path, log: Path) -> _Running:
    # The current directory is the private one, and not on the module search path: `json.py` beside a dump is not code.
    path = [entry for entry in sys.path if entry]
    with log.open("wb") as messages:
        process = subprocess.Popen(  # noqa: S603 our own interpreter
            [sys.executable, "-c", _START.format(path=path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=messages,
            cwd=directory,
        )
    answers: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=_pass_on, args=(process, answers), daemon=True).start()
    return _Running(process, psutil.Process(process.pid), answers)


def _pass_on(process: subprocess.Popen[bytes], answers: queue.Queue[bytes]) -> None:
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            answers.put(line)
    answers.put(b"")


def _exchange(running: _Running, request: dict[str, Any], limits: DumpLimits) -> dict[str, Any]:
    assert running.process.stdin is not None
    deadline = time.monotonic() + limits.seconds
    try:
        running.process.stdin.write(json.dumps(request).encode("ascii") + b"\n")
        running.process.stdin.flush()
    except OSError as error:
        raise ExaminerEnded from error
    while True:
        try:
            line = running.answers.get(timeout=_LOOK_SECONDS)
            break
        except queue.Empty:
            _look_at(running, limits, deadline)
    if not line:
        raise ExaminerEnded
    answer: dict[str, Any] = json.loads(line)
    return answer


def _look_at(running: _Running, limits: DumpLimits, deadline: float) -> None:
    """Kill the process if it takes too much."""
    if time.monotonic() > deadline:
        running.process.kill()
        message = f"it took more than {limits.seconds:g} s"
        raise OutOfTime(message)
    if limits.memory is not None and _resident(running.watched) > limits.memory:
        running.process.kill()
        message = f"it took more than {limits.memory >> 20} MiB of memory"
        raise ExaminerEnded(message)


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _how_it_ended(status: int, log: Path) -> str:
    """Return in words how the process ended, with the last line that it or Python wrote."""
    if status < 0:
        try:
            how = f"the process that examined it was ended by {signal.Signals(-status).name}"
        except ValueError:
            how = f"the process that examined it was ended by signal {-status}"
    else:
        how = f"the process that examined it ended with status {status}"
    with contextlib.suppress(OSError):
        lines = log.read_bytes()[-4096:].decode("utf-8", "replace").splitlines()
        said = next((line.strip() for line in reversed(lines) if line.strip()), "")
        how += f": {escape(said, _MAX_WORDS)}" if said else ""
    return how
