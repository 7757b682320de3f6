# SPDX-License-Identifier: Apache-2.0
"""The report on one stuck thread, `CrashReport`. It consists of plain values and never reads the dump.

Every string is escaped and can be shown as it is. A value that is not known is None, an empty text or an empty tuple.
`docs/schema` describes the report as JSON, which `throwstack.report.json_form` makes.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from throwstack.core.sides import Side
from throwstack.dispatch.saved_exception import Route
from throwstack.exceptions.model import ExceptionKind, FaultAccess
from throwstack.names.blockers import BlockerKind
from throwstack.report.frame_report import FrameReport, WalkReport
from throwstack.report.stack_parts import StackExtent, StackPartReport, ThreadFigures, ThreadWait
from throwstack.report.values import Hexadecimal
from throwstack.report.verdict import CrashVerdict
from throwstack.stuck.signature import Signature
from throwstack.stuck.stuck_thread import ExceptionRole


@dataclass(frozen=True, slots=True)
class ProcessSummary:
    """A process. `problems` say what of it could not be read."""

    pid: int
    name: str
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BlockerReport:
    """A function that a thread is stuck in (for example one that shows an error box).

    `kind` is None for a function in which the thread failed fast.
    """

    module: str
    function: str
    kind: BlockerKind | None = None

    @property
    def name(self) -> str:
        """Return `module!function`; `module+0x1888` without a name; the address if it is in no module.

        `function` is then `+0x1888`, or the address.
        """
        has_name = self.module and not self.function.startswith("+")
        return f"{self.module}!{self.function}" if has_name else f"{self.module}{self.function}"


@dataclass(frozen=True, slots=True)
class Fault:
    """The memory access that failed: its address, and its kind (read, write or execute) if the record says it."""

    address: Hexadecimal
    kind: FaultAccess | None = None


@dataclass(frozen=True, slots=True)
class InnerException:
    """An exception that another exception names as its cause (.NET), or to whose record another record links.

    One of .NET may have inner exceptions of its own, and the stack that its object recorded; `address` is that of the
    object. Of a record, it is the address of the instruction that raised it.
    """

    code: Hexadecimal | None = None
    address: Hexadecimal | None = None
    type: str = ""
    message: str = ""
    hresult: Hexadecimal | None = None
    inner: tuple[InnerException, ...] = ()
    logical_stack: tuple[FrameReport, ...] = ()


@dataclass(frozen=True, slots=True)
class ExceptionReport:
    """An exception that was raised on a thread and whose handling had not ended when the dump was made.

    `role` says what it has to do with the other exceptions of the thread. `kind` says who raised it. If the record
    could not be described, `kind` and all else that follows from the record are absent. `title` is a line for a
    table, and `details` are sentences that explain more. `type` is the thrown type, and `bases` are the further
    types under which it can be caught. `message` is the text that the program gave. `record_address` and
    `context_address` are None for a record or CONTEXT that is in no memory; a record may be on the kernel stack.
    `routes` say how the CONTEXT was found, the strongest evidence first. `stack` is the stack that threw; it is None
    for the first exception of a crash, whose stack is the crash's `throwing`. `thrown_at` and `signature` are made of
    that stack as those of the crash are. `logical_stack` is the stack that the object of a .NET exception recorded,
    innermost frame first: it goes on over awaits and where the exception was thrown anew. `object_address` is the
    address of that object, for `!pe` of WinDbg's SOS.
    """

    code: Hexadecimal
    address: Hexadecimal
    title: str = ""
    kind: ExceptionKind | None = None
    type: str = ""
    message: str = ""
    hresult: Hexadecimal | None = None
    fault: Fault | None = None
    flags: int = 0
    parameters: tuple[Hexadecimal, ...] = ()
    bases: tuple[str, ...] = ()
    details: tuple[str, ...] = ()
    record_address: Hexadecimal | None = None
    context_address: Hexadecimal | None = None
    routes: tuple[Route, ...] = ()
    inner: tuple[InnerException, ...] = ()
    stack: WalkReport | None = None
    role: ExceptionRole = ExceptionRole.CAUSE
    thrown_at: str = ""
    signature: Signature | None = None
    logical_stack: tuple[FrameReport, ...] = ()
    object_address: Hexadecimal | None = None

    @property
    def found_by(self) -> str:
        """Return in words how the CONTEXT was found."""
        return ", ".join(route.value for route in self.routes)


@dataclass(frozen=True, slots=True)
class CrashReport:
    """A stuck thread: the functions it waits in, its exceptions, and its stacks.

    `side` says whether the thread is stuck in 32-bit or 64-bit code. `arch` says what kind of program that code belongs
    to: `x86`, `x64`, or `wow64` for 32-bit code on 64-bit Windows.

    The crash is named after the first of `exceptions`, the cause: the one whose handling led to the end. It is followed
    by those that ended it (abort's fast-fail, a fault in a crash filter), in the order in which they were raised, and
    by those that were being handled when the cause was raised, the original last. `throwing` is the stack that threw
    the first exception, or None if no exception was found. `blocked` is the stack on which the thread waits, or None if
    the thread's registers are not known. `thrown_at` is the innermost frame of `throwing` that is not exception
    machinery, nor a function that raised the exception to report a failure; without an exception, the innermost frame
    of `blocked` that neither waits nor reports a failure. `signature` is made of the same stack. `doubts` say why the
    report may be wrong, and `notes` contain further facts. A part that could not be made is absent, and a note says
    why.

    What follows `notes` is in reports on a whole dump alone: the addresses of ETHREAD and EPROCESS (for `.thread` and
    `.process`), the thread's figures, how it waits, its kernel stack, and the bounds of the stack that it is stuck on.
    """

    process: ProcessSummary
    tid: int
    side: Side
    arch: str
    verdict: CrashVerdict
    blockers: tuple[BlockerReport, ...] = ()
    exceptions: tuple[ExceptionReport, ...] = ()
    throwing: WalkReport | None = None
    blocked: WalkReport | None = None
    thrown_at: str = ""
    signature: Signature | None = None
    blocked_since: datetime.datetime | None = None
    box_text: str = ""
    doubts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    ethread: Hexadecimal | None = None
    eprocess: Hexadecimal | None = None
    thread: ThreadFigures | None = None
    wait: ThreadWait | None = None
    kernel_stack: StackPartReport | None = None
    stack_bounds: StackExtent | None = None

    @property
    def pid(self) -> int:
        """Return the id of the process."""
        return self.process.pid

    @property
    def exception(self) -> ExceptionReport | None:
        """Return the exception after which the crash is named, or None if none was found."""
        return self.exceptions[0] if self.exceptions else None

    @property
    def blocked_in(self) -> str:
        """Return the functions that the thread is stuck in on one line, first the one that best explains the wait."""
        return ", ".join(blocker.name for blocker in self.blockers)

    def stack_of(self, exception: ExceptionReport) -> WalkReport | None:
        """Return the stack that threw `exception`, which is one of `exceptions`."""
        return self.throwing if exception is self.exception else exception.stack
