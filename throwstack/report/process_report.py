# SPDX-License-Identifier: Apache-2.0
"""The report on a process that has a stuck thread, `ProcessReport`.

As in `throwstack.report.crash_report`, it consists of plain values, every string is escaped, and values that are not
known are absent.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass

from throwstack.report.crash_report import CrashReport
from throwstack.report.module_report import ModuleReport
from throwstack.report.thread_groups import ThreadGroup
from throwstack.report.values import Hexadecimal


@dataclass(frozen=True, slots=True)
class ProcessReport:
    """A process that has a stuck thread.

    `name` is the image name as the kernel keeps it, and `image_path` is what the loader was given. `user` is the
    account of the process's token if it has a well-known name (`NT AUTHORITY/SYSTEM`, with a backslash); `user_sid` is
    its SID. `services` are the names of the services that the process runs. `parent_name` is empty if the parent has
    ended: its PID may be another process's by then. `modules` are those of the stacks of its stuck threads.
    `other_threads` are its threads that are not stuck. `notes` say what could not be read.
    """

    pid: int
    name: str
    image_path: str = ""
    command_line: str = ""
    started: datetime.datetime | None = None
    session: int | None = None
    user: str = ""
    user_sid: str = ""
    parent_pid: int | None = None
    parent_name: str = ""
    services: tuple[str, ...] = ()
    is_wow64: bool = False
    eprocess: Hexadecimal | None = None
    peb: Hexadecimal | None = None
    directory_base: Hexadecimal | None = None
    token: Hexadecimal | None = None
    handles: int | None = None
    modules: tuple[ModuleReport, ...] = ()
    other_threads: tuple[ThreadGroup, ...] = ()
    notes: tuple[str, ...] = ()


def process_of(crash: CrashReport, processes: Iterable[ProcessReport]) -> ProcessReport | None:
    """Return the one of `processes` that `crash` is in, None if none is known.

    It is found by its EPROCESS. Only a crash without one is matched by PID: in a dump that was tampered with, two
    processes may have the same.
    """
    if crash.eprocess is None:
        return next((process for process in processes if process.pid == crash.pid), None)
    return next((process for process in processes if process.eprocess == crash.eprocess), None)
