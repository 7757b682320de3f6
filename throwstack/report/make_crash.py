# SPDX-License-Identifier: Apache-2.0
"""Turns what the engine found about a stuck thread into a `CrashReport`, which consists of plain values.

A part that cannot be made is absent, and a note says why. The report is made in any case.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from throwstack.core.exception_record import nested_records
from throwstack.core.frames import Trust, Walk
from throwstack.core.guard import Guard
from throwstack.core.sides import Side
from throwstack.core.text import escape
from throwstack.dispatch.raisers import is_fail_fast_of_clr, is_in_raiser
from throwstack.dispatch.saved_exception import SavedException
from throwstack.exceptions.clr import CLR, CLR_OLD, managed_title
from throwstack.exceptions.describe import describe
from throwstack.exceptions.faults import is_fault
from throwstack.exceptions.managed_throw import ManagedThread, managed_throw, may_be_managed
from throwstack.exceptions.model import ExceptionText, ManagedThrow
from throwstack.managed.process_code import ManagedCode
from throwstack.names.blockers import blocker_named
from throwstack.names.frame_names import name_of
from throwstack.names.symbols import Name, SymbolKind
from throwstack.report.crash_report import (
    BlockerReport,
    CrashReport,
    ExceptionReport,
    Fault,
    InnerException,
    ProcessSummary,
)
from throwstack.report.frame_report import NO_DETAIL, WHOLE, FrameDetail, WalkReport, walk_report
from throwstack.report.managed_report import inner_exceptions, logical_stack, names_of_stack, objects_of
from throwstack.report.values import Hexadecimal, hexadecimal
from throwstack.report.verdict import verdict
from throwstack.stuck.error_box import box_text
from throwstack.stuck.signature import (
    Signature,
    is_raised_by_call,
    kind_of_failure,
    signature,
    thrown_at,
    waiting_signature,
    waits_at,
)
from throwstack.stuck.stuck_thread import ExceptionRole, StuckThread
from throwstack.unwind.target import Target

_TITLE_LIMIT = 200
"""The limit on the characters of an exception's title in a note. The report on the exception has it whole."""


@dataclass(frozen=True, slots=True)
class CrashSite:
    """The process of a stuck thread, and what is known about the thread from outside its stack.

    `target` is the memory, images, symbols and unwinder of the code that the thread is stuck in. `region_of` says what
    an address outside every module belongs to. `substitutes` are the pages that came from image files. `blocked_since`
    returns when the thread began to wait. `notes` are put before the notes made here. `managed` is the managed code of
    the process, None if it can have none.
    """

    target: Target
    process: ProcessSummary
    tid: int
    side: Side
    arch: str
    region_of: Callable[[int], str]
    substitutes: AbstractSet[int]
    blocked_since: Callable[[], datetime.datetime | None]
    notes: tuple[str, ...] = ()
    managed: ManagedCode | None = None


def make_crash(stuck: StuckThread, site: CrashSite, detail: FrameDetail = NO_DETAIL) -> CrashReport:
    """Return the report on a stuck thread; `detail` says what to show of each frame."""
    return _CrashMaker(stuck, site, detail).make()


def described_exceptions(stuck: StuckThread, site: CrashSite) -> tuple[ExceptionReport, ...]:
    """Return the reports on the exceptions of a stuck thread, without their stacks, in the order of `stuck`."""
    return tuple(_CrashMaker(stuck, site, NO_DETAIL).described())


class _CrashMaker:
    def __init__(self, stuck: StuckThread, site: CrashSite, detail: FrameDetail) -> None:
        self._stuck = stuck
        self._site = site
        self._detail = detail
        self._notes = list(site.notes)

    def make(self) -> CrashReport:
        stuck, site = self._stuck, self._site
        exceptions = self.described()
        throwing: WalkReport | None = None
        for index, (exception, walk) in enumerate(zip(stuck.exceptions, stuck.throwing_walks, strict=True)):
            stack = self._throwing(exception, walk)
            if index:
                exceptions[index] = replace(exceptions[index], stack=stack)
            else:
                throwing = stack
                self._notes += _about_the_throw(walk)
        self._notes += _about_the_others(stuck, exceptions)
        taken = [(item, self._exception(item, None)) for item in stuck.taken]
        self._notes += self._about_the_taken(taken)
        self._notes += self._about_the_in_flight([*exceptions, *(made for _, made in taken)])
        if exceptions:
            where, signed = exceptions[0].thrown_at, exceptions[0].signature
        else:
            where, signed = self._named_after_wait()
        blocked: WalkReport | None = None
        if stuck.blocked_walk is not None:
            with self._part("blocked stack"):
                blocked = walk_report(site.target, stuck.blocked_walk, site.substitutes, detail=self._detail)
        self._notes += self._about_managed_code()
        since: datetime.datetime | None = None
        with self._part("clock"):
            since = site.blocked_since()
        shown = ""
        with self._part("error box"):
            shown = box_text(site.target, stuck.blocked_walk)
        return CrashReport(
            process=site.process,
            tid=site.tid,
            side=site.side,
            arch=site.arch,
            verdict=verdict(stuck.kinds, has_exception=bool(stuck.exceptions), box_text=shown, dispatch=stuck.dispatch),
            blockers=tuple(_blocker(module, symbol) for module, symbol in stuck.blocked_in),
            exceptions=tuple(exceptions),
            throwing=throwing,
            blocked=blocked,
            thrown_at=where,
            signature=signed,
            blocked_since=since,
            box_text=shown,
            doubts=tuple(escape(note, WHOLE) for note in stuck.notes),
            notes=tuple(escape(note, WHOLE) for note in self._notes),
        )

    def described(self) -> list[ExceptionReport]:
        """Return the reports on the thread's exceptions, without their stacks."""
        stuck = self._stuck
        found: list[ExceptionReport] = []
        for index, (exception, walk) in enumerate(zip(stuck.exceptions, stuck.throwing_walks, strict=True)):
            made = self._exception(exception, walk)
            where, signed = self._named_after(exception, walk, made)
            found.append(replace(made, role=stuck.role_of(index), thrown_at=where, signature=signed))
        return found

    def _about_the_taken(self, taken: Sequence[tuple[SavedException, ExceptionReport]]) -> Iterator[str]:
        """Yield a note about each exception that a handler has taken, but none about those that have the row itself."""
        exceptions = self._stuck.exceptions
        shown = {exception.context.address for exception in exceptions}
        for item, made in taken:
            if item.context.address not in shown:
                thrown = f"{item.record.code:#010x}{_title_of_runtime(made)}"
                is_outer = exceptions and item.context.registers.sp > exceptions[0].context.registers.sp
                where = "further out on this stack" if is_outer else "on this stack"
                yield (
                    f"{where} {thrown} was raised at {item.record.address:#x}; "
                    f"a handler seems to have taken it ({item.where})"
                )

    def _about_the_in_flight(self, reports: Sequence[ExceptionReport]) -> Iterator[str]:
        """Yield a note about each exception object of .NET in flight that none of `reports` has, nor as an inner one.

        Example: a catch block throws. .NET 10 has not raised the first exception in Windows, and on x86 nothing of its
        dispatch is left on the stack. The runtime keeps its object.

        An object that has recorded no frame is passed over: nobody handles it. The runtime puts such a one, made when
        it started, where it ends the process itself (ExecutionEngineException), or has just made it of the fault that
        is told (AccessViolationException).
        """
        managed, symbols = self._site.managed, self._site.target.symbols
        if managed is None or managed.runtime is None or not reports:
            return
        shown = {address for report in reports for address in objects_of(report)}
        for found in managed.exceptions_in_flight(self._site.tid):
            if found.address not in shown and (found.stack or found.reasons):
                stack = logical_stack(found, symbols)
                where = f" at {stack[0].name}" if stack else ""
                title = escape(managed_title(found), _TITLE_LIMIT)
                yield f"raised while {title} was being handled, thrown{where} (object {found.address:#x})"

    def _about_managed_code(self) -> Sequence[str]:
        """Return notes on what may be missing of the thread's managed exceptions and of the methods on its stacks."""
        managed, stuck = self._site.managed, self._stuck
        if managed is None or managed.runtime is None:
            return ()
        walks = [*stuck.throwing_walks, *([] if stuck.blocked_walk is None else [stuck.blocked_walk])]
        with self._part("managed code"):
            return managed.what_is_missing(self._site.tid, [frame.ip for walk in walks for frame in walk.frames])
        return ()

    def _part(self, name: str) -> Guard:
        return Guard(lambda reason: self._notes.append(f"{name}: {reason}"))

    def _exception(self, exception: SavedException, walk: Walk | None) -> ExceptionReport:
        """Return the report on `exception`; `walk` is the stack that threw it, None if it was not kept."""
        record, target = exception.record, self._site.target
        made = ExceptionReport(
            code=Hexadecimal(record.code),
            address=Hexadecimal(record.address),
            flags=record.flags,
            parameters=tuple(Hexadecimal(value) for value in record.parameters),
            record_address=hexadecimal(record.location or None),
            context_address=hexadecimal(exception.context.address or None),
            routes=exception.routes,
        )
        with self._part("exception"):
            thrown = self._managed_throw(exception, walk)
            text = describe(record, target.memory, target.images, target.arch, self._site.region_of, managed=thrown)
            nested = tuple(
                InnerException(Hexadecimal(inner.code), Hexadecimal(inner.address))
                for inner in nested_records(target.memory, record, target.arch)
            )
            found = text.managed
            return replace(
                made,
                title=text.title,
                type=text.thrown_type,
                message=text.message,
                hresult=hexadecimal(text.hresult),
                bases=text.bases,
                kind=text.kind,
                fault=_fault(text),
                details=text.details,
                inner=nested if found is None else (*inner_exceptions(found, target.symbols), *nested),
                logical_stack=() if found is None else logical_stack(found, target.symbols),
                object_address=hexadecimal(None if found is None else found.address),
            )
        return made

    def _managed_throw(self, exception: SavedException, walk: Walk | None) -> ManagedThrow | None:
        stuck, site = self._stuck, self._site
        if site.managed is None or not may_be_managed(site.managed, exception.record):
            return None
        with self._part("exception object"):
            bounds, sp = stuck.stack.bounds, exception.context.registers.sp
            walk = walk or site.target.walk(exception.context.registers, bounds)
            inner = min(other.context.registers.sp for other in (*stuck.exceptions, *stuck.taken, exception))
            thread = ManagedThread(site.managed, site.target.symbols, site.tid, bounds)
            return managed_throw(thread, exception, walk, is_innermost=sp <= inner)
        return None

    def _throwing(self, exception: SavedException, walk: Walk) -> WalkReport | None:
        context = exception.context if exception.context.address else None
        with self._part("throwing stack"):
            return walk_report(
                self._site.target,
                walk,
                self._site.substitutes,
                context=context,
                detail=self._detail,
                is_throw=True,
            )
        return None

    def _named_after(
        self, exception: SavedException, walk: Walk, made: ExceptionReport
    ) -> tuple[str, Signature | None]:
        """Return where the program threw, and the signature.

        An exception that the runtime of .NET raised is named after the stack that its object recorded. That stack has
        the frames of where it was thrown first, also where it was awaited or thrown anew since.
        """
        where, signed = "", None
        with self._part("throwing stack"):
            symbols = self._site.target.symbols
            names = [name_of(symbols, frame) for frame in walk.frames]
            is_raised = is_raised_by_call(names) or not is_fault(exception.record.code)
            if self._is_raised_by_runtime(exception, walk):
                first = next((index for index, name in enumerate(names) if name.kind is SymbolKind.CLR), 0)
                names = names_of_stack(made.logical_stack) or names[first:]
                is_raised = not is_fault(exception.record.code)
            elif is_fail_fast_of_clr(self._site.target, exception.record, exception.context.registers.ip):
                # The exception that Environment.FailFast was given, if any, may have been thrown long before.
                names = names[next((index for index, name in enumerate(names) if name.kind is SymbolKind.CLR), 0) :]
            where = self._place(thrown_at(names, is_raised=is_raised) or names[0])
            kind = made.type or kind_of_failure(exception.record, names) or f"{exception.record.code:#010x}"
            signed = signature(names, kind)
        return where, signed

    def _is_raised_by_runtime(self, exception: SavedException, walk: Walk) -> bool:
        """Say whether the runtime of .NET raised the exception with RaiseException, also a fault of managed code.

        Where .NET Core 3.1 raises a fault anew, the record has the address of the faulting instruction; on .NET 10 it
        has that of RaiseException. An exception of native code that managed code has called is not the runtime's.
        """
        if exception.record.code in {CLR, CLR_OLD}:
            return True
        managed, target = self._site.managed, self._site.target
        if managed is None or len(walk.frames) < 2 or not is_in_raiser(target, exception.context.registers.ip):
            return False
        return managed.is_in_runtime(walk.frames[1].ip)

    def _place(self, name: Name) -> str:
        """Return `name` as text. A part of a function that is apart from it is named after the function."""
        return escape(str(self._site.target.symbols.whole_function(name)), WHOLE)

    def _named_after_wait(self) -> tuple[str, Signature | None]:
        """Return where a thread without an exception was when its failure was reported, and the signature."""
        where, signed = "", None
        walk, kinds = self._stuck.blocked_walk, self._stuck.kinds
        if walk is not None and walk.frames:
            with self._part("signature of the blocked stack"):
                names = [name_of(self._site.target.symbols, frame) for frame in walk.frames]
                at = waits_at(names)
                if at is not None:
                    where = self._place(at)
                    inside = walk.frames[: names.index(at) + 1]
                    if any(frame.trust is Trust.SCAN for frame in inside):
                        self._notes.append("where it was thrown and the signature rest on guessed frames")
                signed = waiting_signature(names, kinds[0].value if kinds else "")
        return where, signed


def _fault(text: ExceptionText) -> Fault | None:
    return None if text.fault_address is None else Fault(Hexadecimal(text.fault_address), text.fault_kind)


def _blocker(module: str, symbol: str) -> BlockerReport:
    known = blocker_named(module, symbol)
    return BlockerReport(escape(module, WHOLE), escape(symbol, WHOLE), None if known is None else known.kind)


def _about_the_throw(walk: Walk) -> Iterator[str]:
    if not walk.is_complete:
        yield f"throwing stack ends early: {walk.end.in_words(walk.detail)}"


def _about_the_others(stuck: StuckThread, reports: Sequence[ExceptionReport]) -> Iterator[str]:
    """Yield a note about each exception of the thread but the cause. `reports` are the reports on its exceptions."""
    for index, (other, made) in enumerate(zip(stuck.exceptions, reports, strict=True)):
        title = escape(made.title, _TITLE_LIMIT) or f"{other.record.code:#010x}"
        if index and (_has_same_object(made, reports[0]) or _is_raised_anew(stuck.exceptions[0], other)):
            yield f"the runtime raised the same exception before, at {other.record.address:#x} ({other.where})"
        elif made.role is ExceptionRole.END:
            where = f"{made.thrown_at}, raised while this exception was being reported"
            yield f"ended by {title} at {where} ({other.where})"
        elif made.role is ExceptionRole.OUTER:
            label = "the original exception" if index + 1 == len(reports) else "an exception"
            title = _title_of_runtime(made)
            yield (
                f"raised while {label} {other.record.code:#010x}{title} at {other.record.address:#x} was being handled "
                f"({other.where})"
            )


def _has_same_object(made: ExceptionReport, other: ExceptionReport) -> bool:
    return made.object_address is not None and made.object_address == other.object_address


def _is_raised_anew(last: SavedException, first: SavedException) -> bool:
    """Say whether the runtime of .NET raised the fault `first` anew, as `last`: the record's address is the same.

    A second fault at the same place has a CONTEXT of that place, and not of the function that raised it.
    """
    record = last.record
    is_same = (record.code, record.address) == (first.record.code, first.record.address)
    return is_same and last.context.registers.ip != record.address == first.context.registers.ip


def _title_of_runtime(made: ExceptionReport) -> str:
    """Return in parentheses what an exception of a language's runtime is, or "": another's title repeats its code."""
    return f" ({escape(made.title, _TITLE_LIMIT)})" if made.type or made.message else ""
