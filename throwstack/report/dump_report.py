# SPDX-License-Identifier: Apache-2.0
"""What there is to say of a whole dump, as values: `DumpReport`.

The same rules hold as for `throwstack.report.crash_report`: values only, every string escaped, unknown is absent.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from enum import Enum

from throwstack.report.crash_report import CrashReport
from throwstack.report.values import ALWAYS, Hexadecimal

SCHEMA_VERSION = "1.0"
"""Version of the JSON. The first number changes when a field is removed or changes its meaning, the second when one is
added."""


@dataclass(frozen=True, slots=True)
class FileReport:
    """The file: its name without directories, its size in bytes, and what kind of image it is.

    `expected_pages` are the pages of 4 KiB that a crash dump's header promises, `missing_pages` those of them that are
    after the end of the file; None for images without such a header.
    """

    name: str
    size: int
    kind: str
    description: str
    expected_pages: int | None = None
    missing_pages: int | None = None

    @property
    def is_complete(self) -> bool | None:
        """Say whether the file holds all that its header promises; None where nothing promises anything."""
        return None if self.missing_pages is None else self.missing_pages == 0


@dataclass(frozen=True, slots=True)
class BugCheck:
    """Why the machine stopped: code, name (`KERNEL_DATA_INPAGE_ERROR`; empty for an unknown one) and parameters."""

    code: Hexadecimal
    name: str = ""
    parameters: tuple[Hexadecimal, ...] = ()


@dataclass(frozen=True, slots=True)
class MachineReport:
    """The machine: its system, and when the image was taken. `uptime_seconds` counts from its start."""

    system: str
    architecture: str
    build: int | None = None
    service_pack: str = ""
    processors: int | None = None
    time: datetime.datetime | None = None
    uptime_seconds: float | None = None
    bug_check: BugCheck | None = None


@dataclass(frozen=True, slots=True)
class Examined:
    """How much was looked at. Threads that have ended are not counted."""

    processes: int = 0
    threads: int = 0


class WarningCode(Enum):
    """What kind of thing may have hidden a crash."""

    PROCESS_LIST = "process-list"
    """The kernel's list of processes is broken or not readable."""
    PROCESS = "process"
    """A process cannot be examined, or a side of it cannot."""
    NOT_FOUND = "not-found"
    """A process or thread that was asked for is not there."""
    MISSING_NAMES = "missing-names"
    """The functions in which stuck threads wait have no names in a process."""
    STACK = "stack"
    """A thread's stack, or a part of it, cannot be read."""
    THREAD = "thread"
    """A thread may be stuck, but the proof is missing; or a limit was reached."""
    LIMIT = "limit"
    """There are more warnings than a report holds."""
    READ = "read"
    """The image or a file given beside it could not be read."""
    PAGES = "pages"
    """Pages of processes cannot be found: the kernel's symbols, a VAD tree or the compressed store do not allow it."""


@dataclass(frozen=True, slots=True)
class ReportWarning:
    """What may have hidden a crash; `pid` and `tid` say where, if it belongs to a process or thread."""

    code: WarningCode
    text: str
    pid: int | None = None
    tid: int | None = None


@dataclass(frozen=True, slots=True)
class UnexaminedProcess:
    """A process that could not be examined; `pid` and `name` are absent where even they cannot be read."""

    reason: str
    pid: int | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class WantedFile:
    """A PDB or image file that would improve the report. `manifest_line` is what `symchk /im` takes."""

    manifest_line: str
    module: str
    why: str


@dataclass(frozen=True, slots=True)
class DumpReport:
    """A whole dump: what it is, what was examined, every stuck thread, and what may be hidden."""

    schema_version: str
    file: FileReport
    machine: MachineReport
    examined: Examined
    crashes: tuple[CrashReport, ...] = field(default=(), metadata=ALWAYS)
    warnings: tuple[ReportWarning, ...] = field(default=(), metadata=ALWAYS)
    unexamined: tuple[UnexaminedProcess, ...] = field(default=(), metadata=ALWAYS)
    symbols_wanted: tuple[WantedFile, ...] = ()
