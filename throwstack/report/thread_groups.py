# SPDX-License-Identifier: Apache-2.0
"""Threads with equal stacks, told once: `ThreadGroup`."""

from __future__ import annotations

from dataclasses import dataclass

from throwstack.report.frame_report import FrameReport


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
