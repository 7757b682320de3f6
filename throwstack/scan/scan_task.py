# SPDX-License-Identifier: Apache-2.0
"""What a Dask worker does with one dump: have its process examine it, and if that ends, once more in a fresh one.

The result of a task is small, because it goes to the scheduler. The record is written to the parts by the worker's own
process, on storage that all share.
"""

from __future__ import annotations

import atexit
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from throwstack import __version__
from throwstack.scan.dump_record import DumpOutcome, DumpRecord
from throwstack.scan.examiner import DumpLimits, Examiner, ExaminerEnded, OutOfTime
from throwstack.scan.part_store import PartStore, StorageFailed
from throwstack.scan.scan_inputs import DumpInput
from throwstack.scan.scan_settings import ScanSettings

EXAMINE = "throwstack.scan.examine_dump:examine"
ATTEMPTS = 2


@dataclass(frozen=True, slots=True)
class ScanTask:
    """One dump to examine, and where its record goes (`parts`, a directory). `examine` names a function by its module.

    `scan` identifies the run of the scan, and `version` is that of throwstack where it was started.
    """

    scan: str
    dump: DumpInput
    key: str
    settings: ScanSettings
    parts: str
    limits: DumpLimits
    examine: str = EXAMINE
    version: str = __version__


@dataclass(frozen=True, slots=True)
class TaskResult:
    """How a task ended. `problem` says why no record could be written; then the whole scan cannot go on."""

    outcome: DumpOutcome | None
    crashes: int = 0
    seconds: float = 0.0
    problem: str = ""


_of_thread = threading.local()
_all: list[Examiner] = []
_busy: dict[Examiner, str] = {}
"""Which scan each examiner works for at the moment."""
_left: set[str] = set()
"""The scans that have ended while this worker goes on."""


def examine_on_worker(task: ScanTask) -> TaskResult:
    """Examine a dump and write its record."""
    if task.version != __version__:
        problem = f"a worker has throwstack {__version__}, and this is {task.version}"
        return TaskResult(None, problem=problem)
    parts = Path(task.parts)
    if not parts.is_dir():
        problem = f"a worker does not see {parts}: dumps and results have to be on storage that all workers share"
        return TaskResult(None, problem=problem)
    begun = time.monotonic()
    request = {
        "dump": asdict(task.dump),
        "key": task.key,
        "settings": asdict(task.settings),
        "parts": task.parts,
        "examine": task.examine,
    }
    outcome, reasons = DumpOutcome.KILLED, list[str]()
    for attempt in range(1, ATTEMPTS + 1):
        if task.scan in _left:
            break
        try:
            answer = _ask(task, {**request, "attempt": attempt})
        except OutOfTime as error:
            outcome = DumpOutcome.TIMED_OUT
            reasons.append(str(error))
        except ExaminerEnded as error:
            outcome = DumpOutcome.KILLED
            reasons.append(str(error))
        else:
            if "storage" in answer:
                return TaskResult(None, problem=answer["storage"])
            return TaskResult(DumpOutcome(answer["outcome"]), answer["crashes"], answer["seconds"])
    if task.scan in _left:
        return TaskResult(None, problem="the scan was ended")
    return _given_up(task, outcome, reasons, time.monotonic() - begun)


def _ask(task: ScanTask, request: dict[str, Any]) -> dict[str, Any]:
    examiner = _examiner()
    _busy[examiner] = task.scan
    try:
        return examiner.ask(request, task.limits)
    finally:
        del _busy[examiner]


def _given_up(task: ScanTask, outcome: DumpOutcome, reasons: list[str], seconds: float) -> TaskResult:
    reason = "; then ".join(dict.fromkeys(reasons)) + f" (in each of {len(reasons)} attempts)"
    return write_failure(task, outcome, reason, round(seconds, 3), len(reasons))


def write_failure(
    task: ScanTask, outcome: DumpOutcome, reason: str, seconds: float | None = None, attempts: int = ATTEMPTS
) -> TaskResult:
    """Write the record of a dump that could not be examined."""
    dump = task.dump
    record = DumpRecord(
        dump.path, task.key, outcome, dump.size, dump.modified, reason=reason, seconds=seconds, attempts=attempts
    )
    try:
        PartStore(Path(task.parts)).write(record)
    except StorageFailed as error:
        return TaskResult(None, problem=str(error))
    return TaskResult(outcome, seconds=seconds or 0.0)


def leave(scan: str) -> None:
    """End what this worker does for a scan, because nobody waits for it any more. A dump it is at has no record."""
    _left.add(scan)
    for examiner, busy_with in list(_busy.items()):
        if busy_with == scan:
            examiner.abort()


def end_examiners() -> None:
    """End the processes of this worker; the next task starts a new one."""
    while _all:
        _all.pop().close()


atexit.register(end_examiners)


def _examiner() -> Examiner:
    """Return the examiner of this thread: a worker with several threads examines as many dumps at once."""
    found: Examiner | None = getattr(_of_thread, "examiner", None)
    if found is None or found not in _all:
        found = _of_thread.examiner = Examiner(_scratch())
        _all.append(found)
    return found


def _scratch() -> Path | None:
    """Return the directory that Dask gives to a worker and removes with it; None outside a worker."""
    from distributed import get_worker  # noqa: PLC0415 only workers have it loaded

    try:
        return Path(get_worker().local_directory)
    except ValueError:
        return None
