# SPDX-License-Identifier: Apache-2.0
"""The report on a whole dump, `DumpReport`.

As in `throwstack.report.crash_report`, it consists of plain values, every string is escaped, and values that are not
known are absent.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from enum import Enum

from throwstack.report.crash_report import CrashReport
from throwstack.report.process_report import ProcessReport
from throwstack.report.values import ALWAYS, Hexadecimal

SCHEMA_VERSION = "1.1"
"""The version of the JSON form.

The first number changes if a field is removed or changes its meaning, the second if a field is added.
"""


@dataclass(frozen=True, slots=True)
class FileReport:
    """The file: its name without directories, its size in bytes, and what kind of image it is.

    `expected_pages` is the number of pages of 4 KiB that a crash dump's header declares. `missing_pages` is the number
    of those that would be after the end of the file. Both are None for images without such a header.
    """

    name: str
    size: int
    kind: str
    description: str
    expected_pages: int | None = None
    missing_pages: int | None = None

    @property
    def is_complete(self) -> bool | None:
        """Say whether the file holds all pages that its header declares; None if no header declares any."""
        return None if self.missing_pages is None else self.missing_pages == 0


@dataclass(frozen=True, slots=True)
class BugCheck:
    """The bug check that stopped the machine: its code, its name (`KERNEL_DATA_INPAGE_ERROR`), and its parameters.

    The name is empty for an unknown code.
    """

    code: Hexadecimal
    name: str = ""
    parameters: tuple[Hexadecimal, ...] = ()


@dataclass(frozen=True, slots=True)
class MachineReport:
    """The machine: its Windows version, its processors, and the time when the image was taken.

    `uptime_seconds` is the time since the machine was started. `has_pae` says of a 32-bit kernel whether it uses
    physical addresses of more than 32 bits. `name` is the name of the computer, as its processes know it.
    """

    system: str
    architecture: str
    build: int | None = None
    service_pack: str = ""
    processors: int | None = None
    time: datetime.datetime | None = None
    uptime_seconds: float | None = None
    bug_check: BugCheck | None = None
    has_pae: bool | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class Examined:
    """How many processes and threads were examined. Threads that have ended are not counted."""

    processes: int = 0
    threads: int = 0


class WarningCode(Enum):
    """The kinds of reasons why a crash may have been missed."""

    PROCESS_LIST = "process-list"
    """The kernel's list of processes is broken or not readable."""
    PROCESS = "process"
    """A process, or the 64-bit or 32-bit code of a WoW64 process, cannot be examined."""
    NOT_FOUND = "not-found"
    """A process or thread that was asked for is not there."""
    MISSING_NAMES = "missing-names"
    """In a process the functions in which stuck threads wait have no names."""
    STACK = "stack"
    """A thread's stack, or a part of it, cannot be read."""
    THREAD = "thread"
    """A thread may be stuck but there is no proof, or a limit was reached while it was examined."""
    LIMIT = "limit"
    """There are more warnings than a report holds."""
    READ = "read"
    """The image or a file given beside it could not be read."""
    PAGES = "pages"
    """Pages of processes cannot be found: the kernel's symbols, a VAD tree or the compressed store do not allow it."""


@dataclass(frozen=True, slots=True)
class ReportWarning:
    """A reason why a crash may have been missed; `pid` and `tid` name the process and thread concerned, if any."""

    code: WarningCode
    text: str
    pid: int | None = None
    tid: int | None = None

    @property
    def may_hide_crash(self) -> bool:
        """Say whether a crash may be hidden. None is if only a process or thread that was asked for is not there."""
        return self.code is not WarningCode.NOT_FOUND


@dataclass(frozen=True, slots=True)
class UnexaminedProcess:
    """A process that could not be examined; `pid` and `name` are absent if they cannot be read either."""

    reason: str
    pid: int | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class WantedFile:
    """A PDB or image file that would improve the report. `manifest_line` is its line in a manifest for `symchk /im`.

    `is_at_hand` says that there is such a PDB already, and that `why` says what a better one would add.
    """

    manifest_line: str
    module: str
    why: str
    is_at_hand: bool = False


@dataclass(frozen=True, slots=True)
class ThreadOfDeadlock:
    """A thread that waits in a deadlock, and what it waits for in words."""

    pid: int
    tid: int
    process: str = ""
    waits_for: str = ""


@dataclass(frozen=True, slots=True)
class Deadlock:
    """Threads that wait for each other in a circle: each for the next, the last for the first.

    `waiting` is the number of threads that are not in the circle and wait for one that is.
    """

    threads: tuple[ThreadOfDeadlock, ...]
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class DumpReport:
    """The report on a whole dump: the file, the machine, every stuck thread, and why others may have been missed.

    `processes` are those that have a stuck thread, in the order of `crashes`. `deadlocks` are looked for among all
    threads if no thread is stuck, and among the threads of `processes` otherwise.
    """

    schema_version: str
    file: FileReport
    machine: MachineReport
    examined: Examined
    crashes: tuple[CrashReport, ...] = field(default=(), metadata=ALWAYS)
    warnings: tuple[ReportWarning, ...] = field(default=(), metadata=ALWAYS)
    unexamined: tuple[UnexaminedProcess, ...] = field(default=(), metadata=ALWAYS)
    symbols_wanted: tuple[WantedFile, ...] = ()
    processes: tuple[ProcessReport, ...] = ()
    deadlocks: tuple[Deadlock, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Say whether nothing may hide a crash: no warning does, and the file is not cut off."""
        hides = any(warning.may_hide_crash for warning in self.warnings) or bool(self.unexamined)
        return not hides and self.file.is_complete is not False
