# SPDX-License-Identifier: Apache-2.0
"""Runs mutants in several processes at once, each taking every so many-th number, up to a count or a time."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from selectors import EVENT_READ, DefaultSelector
from typing import Protocol

from tests.fuzz.outcome import Outcome
from tests.fuzz.verdicts import Fault

_BATCH = 0.5


class Runs(Protocol):
    """What runs mutants by number."""

    def prepare(self) -> None:
        """Make what all workers use, before they are forked."""

    def finish(self) -> None:
        """Leave nothing behind in a worker."""

    def describe(self, number: int) -> list[str]:
        """Say what a mutant changes."""

    def run(self, number: int) -> Outcome:
        """Run one."""


@dataclass(frozen=True)
class Extent:
    """How long to go on: `count` mutants, or `seconds` by the clock; whichever is reached first."""

    first: int = 0
    count: int | None = None
    seconds: float | None = None


def outcomes(runs: Runs, extent: Extent, jobs: int) -> Iterator[tuple[int, Outcome]]:
    """Yield the number and outcome of each mutant, as they come."""
    sys.stdout.flush()
    with DefaultSelector() as selector:
        for job in range(jobs):
            begin, end = os.pipe()
            child = os.fork()
            if not child:
                os.close(begin)
                status = 1
                try:
                    _work(runs, extent, job, jobs, end)
                    runs.finish()
                    status = 0
                except BaseException:  # noqa: BLE001 - a worker that fails says so and ends
                    traceback.print_exc()
                finally:
                    sys.stdout.flush()
                    sys.stderr.flush()
                    os._exit(status)
            os.close(end)
            selector.register(os.fdopen(begin, "rb"), EVENT_READ, child)
        while selector.get_map():
            for key, _ in selector.select():
                line = key.fileobj.readline()  # whole lines: a worker writes each at once
                if line:
                    for number, raw in json.loads(line):
                        yield number, Outcome.of(raw)
                    continue
                selector.unregister(key.fileobj)
                key.fileobj.close()
                _, status = os.waitpid(key.data, 0)
                if status:
                    yield -1, Outcome("workers", [Fault("crash", "worker", f"a worker ended with status {status:#x}")])


def _work(runs: Runs, extent: Extent, job: int, jobs: int, descriptor: int) -> None:
    """Run every `jobs`-th mutant and write the outcomes, a line for some of them at a time."""
    done: list[tuple[int, object]] = []
    with os.fdopen(descriptor, "wb") as out:
        start = written = time.monotonic()
        number = extent.first + job
        while extent.count is None or number < extent.first + extent.count:
            now = time.monotonic()
            if extent.seconds is not None and now - start > extent.seconds:
                break
            if now - written > _BATCH:
                out.write(json.dumps(done).encode() + b"\n")
                out.flush()
                written, done = now, []
            done.append((number, asdict(runs.run(number))))
            number += jobs
        out.write(json.dumps(done).encode() + b"\n")
