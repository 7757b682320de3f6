# SPDX-License-Identifier: Apache-2.0
"""Threads with equal stacks, told once: `ThreadGroup`, and `grouped`, which makes the groups."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from throwstack.report.frame_report import FrameReport
from throwstack.report.thread_report import ThreadStackReport


@dataclass(frozen=True, slots=True)
class ThreadGroup:
    """The threads of a process that are at the same place: their stacks have the same return addresses.

    `frames` are those of the first thread, kernel to user. `state` and `wait_reason` are the same for all threads.
    `ending` says why the frames end early. `notes` say of single threads what else there is to know, such as a lock
    that one waits for.
    """

    tids: tuple[int, ...]
    frames: tuple[FrameReport, ...] = ()
    state: str = ""
    wait_reason: str = ""
    ending: str = ""
    notes: tuple[str, ...] = ()


def grouped(threads: Iterable[ThreadStackReport]) -> tuple[ThreadGroup, ...]:
    """Return the groups of `threads`, that with most threads first; of equal ones, that whose first TID is lower."""
    found: dict[tuple[object, ...], list[ThreadStackReport]] = {}
    for thread in threads:
        stack = tuple(frame.ip for _, frame in thread.frames if not frame.is_inline)
        key = (thread.state, _reason(thread), stack or thread.notes)
        found.setdefault(key, []).append(thread)
    groups = [_group(sorted(members, key=lambda thread: thread.tid)) for members in found.values()]
    return tuple(sorted(groups, key=lambda group: (-len(group.tids), group.tids[0])))


def _group(members: list[ThreadStackReport]) -> ThreadGroup:
    first = members[0]
    endings = (part.ending for part in first.parts if part.ending)
    return ThreadGroup(
        tids=tuple(thread.tid for thread in members),
        frames=tuple(frame for _, frame in first.frames),
        state=first.state,
        wait_reason=_reason(first),
        ending="; ".join(endings),
        notes=tuple(note for thread in members for note in _notes(thread)),
    )


def _reason(thread: ThreadStackReport) -> str:
    return "" if thread.wait is None else thread.wait.reason


def _notes(thread: ThreadStackReport) -> Iterator[str]:
    if thread.wait is not None:
        for text in (thread.wait.lock, thread.wait.deadlock):
            if text:
                yield f"thread {thread.tid}: {text}"
