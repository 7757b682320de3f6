# SPDX-License-Identifier: Apache-2.0
"""Collects the deadlocks among threads that were looked at, each once."""

from __future__ import annotations

from throwstack.core.text import escape
from throwstack.report.dump_report import Deadlock, ThreadOfDeadlock
from throwstack.report.frame_report import WHOLE
from throwstack.volatility.objects.wait_objects import ThreadId
from throwstack.volatility.thread_survey import ThreadReport

_MAX_DEADLOCKS = 256
_MAX_THREADS = 1024
"""The limit on the threads of one deadlock that are named."""


class Deadlocks:
    """Collects deadlocks from reports on threads."""

    def __init__(self) -> None:
        """Begin with none."""
        self._cycles: dict[frozenset[int], tuple[ThreadId, ...]] = {}
        self._waiting: dict[frozenset[int], int] = {}
        self._threads: dict[int, tuple[str, str]] = {}

    def add(self, report: ThreadReport) -> None:
        """Add the deadlock that a thread is in, or whose end it waits for, if there is one."""
        if not report.cycle:
            return
        key = frozenset(node.address for node in report.cycle)
        if key not in self._cycles and len(self._cycles) >= _MAX_DEADLOCKS:
            return
        self._cycles.setdefault(key, _from_lowest(report.cycle))
        if report.thread.address not in key:
            self._waiting[key] = self._waiting.get(key, 0) + 1
            return
        blockage = report.blockage
        waits_for = [str(item) for item in blockage.wait.objects] if blockage.lock is None else [str(blockage.lock)]
        self._threads[report.thread.address] = (
            escape(report.owner.name, WHOLE),
            escape("; ".join(waits_for), WHOLE),
        )

    def found(self) -> tuple[Deadlock, ...]:
        """Return the deadlocks, in the order in which they were found."""
        return tuple(
            Deadlock(tuple(self._thread(node) for node in cycle[:_MAX_THREADS]), self._waiting.get(key, 0))
            for key, cycle in self._cycles.items()
        )

    def _thread(self, node: ThreadId) -> ThreadOfDeadlock:
        process, waits_for = self._threads.get(node.address, ("", ""))
        return ThreadOfDeadlock(node.pid, node.tid, process, waits_for)


def _from_lowest(cycle: tuple[ThreadId, ...]) -> tuple[ThreadId, ...]:
    """Return the same circle, beginning with the thread of the lowest PID and TID."""
    first = min(range(len(cycle)), key=lambda index: (cycle[index].pid, cycle[index].tid))
    return cycle[first:] + cycle[:first]
