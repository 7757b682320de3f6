# SPDX-License-Identifier: Apache-2.0
"""What there is to say of one stuck thread, as values: `CrashReport`. Nothing in it reads the dump.

Every string is escaped and can be shown as it is. A value that is not known is None, an empty text or an empty tuple.
`docs/schema` describes the JSON of it, which `throwstack.report.json_form` writes.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field

from throwstack.core.sides import Side
from throwstack.dispatch.saved_exception import Route
from throwstack.exceptions.model import ExceptionKind, FaultAccess
from throwstack.names.blockers import BlockerKind
from throwstack.report.frame_report import FrameReport, WalkReport
from throwstack.report.values import Hexadecimal
from throwstack.report.verdict import CrashVerdict


@dataclass(frozen=True, slots=True)
class ProcessSummary:
    """A process. `problems` are what could not be read of it."""

    pid: int
    name: str
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BlockerReport:
    """A function that a thread is stuck in. `kind` is None for the function in which a thread failed fast."""

    module: str
    function: str
    kind: BlockerKind | None = None

    @property
    def name(self) -> str:
        """Return `module!function`."""
        return f"{self.module}!{self.function}"


@dataclass(frozen=True, slots=True)
class Fault:
    """The memory access that failed: its address, and what was done there if the record says it."""

    address: Hexadecimal
    kind: FaultAccess | None = None


@dataclass(frozen=True, slots=True)
class InnerException:
    """An exception that another one carries as its cause (.NET), or whose record the record links to."""

    code: Hexadecimal | None = None
    address: Hexadecimal | None = None
    type: str = ""
    message: str = ""
    hresult: Hexadecimal | None = None


@dataclass(frozen=True, slots=True)
class ExceptionReport:
    """One exception in flight.

    `kind` says who raised it; it is None, like all that follows from the record, where it could not be described.
    `title` is the line for a table and `details` are sentences that
    explain more. `type` is the thrown type and `bases` are the types under which it can be caught besides. `message` is
    what the program said. `record_address` and `context_address` are None for a record or CONTEXT that is in no memory
    of the process. `routes` say how the CONTEXT was found, the most telling first. `stack` is the stack that threw, for
    each exception but the first of a crash: the stack of the first one is the crash's `throwing`. `logical_stack` is
    reserved for stacks that the runtime recorded (.NET).
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
    logical_stack: tuple[FrameReport, ...] = ()

    @property
    def found_by(self) -> str:
        """Return the routes in words."""
        return ", ".join(route.value for route in self.routes)


@dataclass(frozen=True, slots=True)
class SignatureReport:
    """The signature of a crash: the functions that name it, and a hash over those and a few frames further out."""

    text: str
    digest: str

    def __str__(self) -> str:
        """Return `ftpsrvdata_pg!PrintProviderError (3f2a9c01)`."""
        return f"{self.text} ({self.digest})"


@dataclass(frozen=True, slots=True)
class CrashReport:
    """A stuck thread: what it waits in, which exceptions are in flight on it, and the stacks.

    `side` says whether the thread is stuck in 32-bit or 64-bit code, `arch` what kind of program that is: `x86`, `x64`,
    or `wow64` for 32-bit code on 64-bit Windows.
    `exceptions`: the first is the one after which the crash is named; each further one was being handled when the one
    before it was raised, so that the last is the original. `throwing` is the stack that threw the first one; it is None
    where no exception was found. `blocked` is the stack on which the thread waits, None where its registers are not
    known. `thrown_at` is the innermost frame of `throwing` that belongs to the program. `doubts` say why the answer may
    be wrong, `notes` what else there is to know; a part that could not be made is absent, and a note says why.
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
    signature: SignatureReport | None = None
    blocked_since: datetime.datetime | None = None
    box_text: str = ""
    doubts: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

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
        """Return the blockers on one line, first the one that explains the wait best."""
        return ", ".join(blocker.name for blocker in self.blockers)

    def stack_of(self, exception: ExceptionReport) -> WalkReport | None:
        """Return the stack that threw one of `exceptions`."""
        return self.throwing if exception is self.exception else exception.stack
