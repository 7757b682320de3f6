# SPDX-License-Identifier: Apache-2.0
"""Runs a scan: finds which dumps are still to do, gives them to the workers, and follows what comes of them.

A record is on the disk before its task ends. So there is nothing to save when a scan is interrupted: the next run with
the same directory of results goes on from there.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from throwstack.core.errors import ThrowstackError
from throwstack.core.guard import reason_of
from throwstack.core.text import escape
from throwstack.scan.dump_record import DumpOutcome
from throwstack.scan.examiner import DumpLimits
from throwstack.scan.part_store import PartStore
from throwstack.scan.scan_cluster import ClusterChoice, connected
from throwstack.scan.scan_inputs import DumpInput
from throwstack.scan.scan_settings import ScanSettings, key_of
from throwstack.scan.scan_task import (
    EXAMINE,
    ScanTask,
    TaskResult,
    examine_on_worker,
    leave,
    write_failure,
)

PARTS = "parts"


class ScanStopped(ThrowstackError):
    """The scan cannot go on; what is done is on the disk. The message says why."""


@dataclass(frozen=True, slots=True)
class ScanPlan:
    """What to scan and how.

    `out` is the directory of the results. `seconds` is the time limit of an attempt to examine a dump. With `again`,
    dumps that are done are examined anew. `examine` names the function that examines a dump, for tests.
    """

    inputs: Sequence[DumpInput]
    out: Path
    settings: ScanSettings = field(default_factory=ScanSettings)
    cluster: ClusterChoice = field(default_factory=ClusterChoice)
    seconds: float = 1800.0
    again: bool = False
    examine: str = EXAMINE


@dataclass(slots=True)
class ScanCount:
    """How far a scan is: dumps in all, those that were done before, and the outcomes of those done now."""

    total: int
    before: int = 0
    outcomes: Counter[DumpOutcome] = field(default_factory=Counter)
    crashes: int = 0

    @property
    def done(self) -> int:
        """Return how many dumps this run has examined."""
        return self.outcomes.total()

    @property
    def failed(self) -> int:
        """Return how many dumps this run could not examine."""
        return self.done - self.outcomes[DumpOutcome.EXAMINED]


Watch = Callable[[ScanCount], None]


def scan(plan: ScanPlan, watch: Watch = lambda _: None) -> ScanCount:
    """Examine the dumps of `plan` that are not done, and return the count.

    `watch` is called after each dump, and at times between them. The records of all dumps are in `plan.out/parts`
    afterwards. Raises ScanStopped, StorageFailed, or NoCluster.
    """
    store = PartStore(plan.out.absolute() / PARTS)
    store.prepare()
    fingerprint = plan.settings.fingerprint()
    count = ScanCount(len(plan.inputs))
    name = uuid.uuid4().hex
    tasks = [task for dump in plan.inputs if (task := _task(plan, name, dump, fingerprint, store)) is not None]
    count.before = count.total - len(tasks)
    watch(count)
    if tasks:
        with connected(plan.cluster) as client:
            try:
                for result in _results(client, tasks):
                    count.outcomes[result.outcome or DumpOutcome.FAILED] += 1
                    count.crashes += result.crashes
                    watch(count)
            finally:
                _leave(client, name)
    return count


def _task(plan: ScanPlan, name: str, dump: DumpInput, fingerprint: str, store: PartStore) -> ScanTask | None:
    """Return the task of a dump, or None if its record is there already and holds."""
    key = key_of(dump, fingerprint)
    record = None if plan.again else store.read(dump.path)
    if record is not None and record.key == key and record.outcome.is_final and not record.files_problem:
        return None
    limits = DumpLimits(plan.seconds, plan.cluster.examiner_memory)
    return ScanTask(name, dump, key, plan.settings, str(store.directory), limits, plan.examine)


def _results(client: Any, tasks: list[ScanTask]) -> Iterator[TaskResult]:  # noqa: ANN401 a module without types
    """Yield how each task ended. A dump whose worker was killed time and again is given out once more, as the last."""
    from distributed import as_completed  # noqa: PLC0415 an extra
    from distributed.scheduler import KilledWorker  # noqa: PLC0415

    # The longest first, or the last of them would keep one worker busy while the others have nothing left to do.
    ordered = sorted(tasks, key=lambda task: (-(task.dump.size or 0), task.dump.path))
    futures = _submitted(client, ordered)
    under_way = {future.key: task for future, task in zip(futures, ordered, strict=True)}
    second = set()
    completed = as_completed(futures, loop=client.loop, raise_errors=False)
    del futures
    for future in completed:
        task = under_way.pop(future.key)
        error = future.exception() if future.status != "finished" else None
        if error is None:
            result = future.result()
        elif isinstance(error, KilledWorker) and future.key not in second:
            (again,) = _submitted(client, [task])
            under_way[again.key] = task
            second.add(again.key)
            completed.add(again)
            continue
        elif isinstance(error, KilledWorker):
            result = write_failure(task, DumpOutcome.KILLED, "the workers that had it were killed, each time")
        else:
            message = f"{escape(task.dump.path, 1024)}: a worker cannot examine it: {reason_of(error)}"
            raise ScanStopped(message) from error
        if result.problem:
            raise ScanStopped(result.problem)
        future.release()
        yield result


_serial = iter(range(1 << 62))


def _submitted(client: Any, tasks: list[ScanTask]) -> list[Any]:  # noqa: ANN401
    """Give tasks to the scheduler, each under a key of its own, and return their futures."""
    keys = [f"dump-{task.key[:16]}-{next(_serial)}" for task in tasks]
    submitted: list[Any] = client.map(examine_on_worker, tasks, key=keys, pure=False, batch_size=500)
    return submitted


def _leave(client: Any, name: str) -> None:  # noqa: ANN401
    """End what the workers still do for the scan: a cluster of others goes on without us."""
    with suppress(OSError, TimeoutError):  # it is gone
        client.run(leave, name, on_error="ignore")
