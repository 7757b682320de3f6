# SPDX-License-Identifier: Apache-2.0
"""Makes the stack that threw each exception of the stuck threads, or the stack of a CONTEXT at an address given."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from throwstack.core.contexts import Context, read_context
from throwstack.core.frames import StackBounds, Walk
from throwstack.core.guard import Guard
from throwstack.core.memory import PAGE_SIZE, MemoryUnreadable
from throwstack.core.sides import BOTH, Side, Sides
from throwstack.core.text import escape
from throwstack.files.needed_files import NeededFile, needed_files
from throwstack.report.crash_report import ExceptionReport, ProcessSummary
from throwstack.report.frame_report import WHOLE, FrameDetail, WalkReport, bare_walk_report, walk_report
from throwstack.stuck.stuck_thread import ExceptionRole, StuckThread
from throwstack.stuck.walk_evidence import BROKE_OFF
from throwstack.unwind.target import Target, guarded_walk
from throwstack.volatility.crashes import exceptions_of
from throwstack.volatility.memory.guarded import guarded
from throwstack.volatility.objects.threads import Thread
from throwstack.volatility.processes import NoStack, Process
from throwstack.volatility.survey import Finding, Survey
from throwstack.volatility.tables.frame_table import FrameRow
from throwstack.volatility.types_wanted import TypesWanted

log = logging.getLogger(__name__)


_BLOCKED = "blocked stack: no exception was found, so these are the frames on which the thread waits"
_TITLE_LIMIT = 256
"""The limit on the characters of an exception's title in a row's notes."""
_UNKNOWN_STACK = 1 << 20
"""The size in bytes that is assumed of a stack that belongs to no thread: the default reserve of a stack."""


@dataclass(frozen=True, slots=True)
class ThrowingStack:
    """A stack unwound from a saved CONTEXT.

    `tid` is None if the stack belongs to no thread. `context` is None in three cases: for the 64-bit stack of a WoW64
    thread that is stuck in 32-bit code and for a thread without an exception (both are unwound from where the thread
    waits), and for a fast-fail, which leaves no CONTEXT. `describe` returns what the exception is, or "".
    """

    process: Process
    tid: int | None
    target: Target
    context: Context | None
    walk: Walk
    title: str
    describe: Callable[[], str] = str


def throwing_stacks(survey: Survey) -> Iterator[ThrowingStack]:
    """Yield the stacks that threw the exceptions of every stuck thread that the survey finds, one for each exception.

    A thread has several exceptions if one was raised while another was being handled. A thread without an exception
    gets the stack on which it waits. If the survey selects only the
    native (64-bit) stacks of WoW64 processes, a thread that is stuck in 32-bit code gets its native stack, unwound from
    where the thread waits.
    """
    is_native_wanted = Side.X86 not in survey.sides
    for finding in survey.findings(BOTH if is_native_wanted else survey.sides):
        stuck = finding.stuck
        if is_native_wanted and finding.is_in_wow64_code:
            found = _native_side(survey, finding)
            if found is not None:
                yield found
            continue
        for note in stuck.notes:
            if note.startswith(BROKE_OFF):
                _say(finding.process, finding.thread, note)
        yield from stacks_of(finding)


def stacks_of(finding: Finding) -> Iterator[ThrowingStack]:
    """Yield the stacks that threw the exceptions in flight on a stuck thread, the cause's first.

    A thread without an exception gets the stack on which it waits, if that is known.
    """
    stuck = finding.stuck
    if not stuck.exceptions and stuck.blocked_walk is not None:
        yield ThrowingStack(finding.process, finding.thread.tid, finding.target, None, stuck.blocked_walk, _BLOCKED)
    described: list[ExceptionReport] = []

    def describe(index: int) -> str:
        if not described:
            described.extend(exceptions_of(finding))
        return _described(described[index]) if described else ""

    for index, (exception, walk) in enumerate(zip(stuck.exceptions, stuck.throwing_walks, strict=True)):
        context = exception.context if exception.context.address else None
        yield ThrowingStack(
            *(finding.process, finding.thread.tid, finding.target, context, walk, _title(stuck, index)),
            describe=partial(describe, index),
        )


def _native_side(survey: Survey, finding: Finding) -> ThrowingStack | None:
    """Return the 64-bit stack of a thread that is stuck in 32-bit code; if there is none, log why and return None."""
    process, thread = finding.process, finding.thread
    target = process.sides[Side.NATIVE]
    with guarded(partial(_say, process, thread)):
        try:
            stack = survey.reader.completed(thread, survey.reader.stack(process, thread, Side.NATIVE))
        except NoStack as reason:
            _say(process, thread, reason)
            return None
        if stack.registers is None:
            _say(process, thread, stack.missing)
            return None
        walk = guarded_walk(target.unwinder.walk, stack.registers, stack.bounds)
        where = finding.stuck.exceptions[0].where if finding.stuck.exceptions else "no exception was found"
        title = f"64-bit side of a thread stuck on its 32-bit side, {where}"
        return ThrowingStack(process, thread.tid, target, None, walk, title)
    return None


def _say(process: Process, thread: Thread, reason: object) -> None:
    log.warning("%s (PID %d) thread %d: %s", escape(process.name), process.pid, thread.tid, reason)


def _title(stuck: StuckThread, index: int) -> str:
    exception, role = stuck.exceptions[index], stuck.role_of(index)
    found = f"{exception.record.code:#010x}, {exception.where} ({exception.found_by})"
    if len(stuck.exceptions) == 1:
        return found
    if role is ExceptionRole.END:
        return f"raised while an earlier exception (the stack above) was being reported: {found}"
    has_outer = len(stuck.exceptions) > 1 + stuck.end_count
    if not has_outer or (index and index + 1 == len(stuck.exceptions)):
        return f"original exception {found}"
    where = "the next stack below" if index or not stuck.end_count else "a stack further below"
    return f"raised while an earlier exception ({where}) was being handled: {found}"


def _described(exception: ExceptionReport) -> str:
    """Return role, type and message, place and signature of an exception in words."""
    title = escape(exception.title, _TITLE_LIMIT) or f"{exception.code:#010x}"
    where = f", thrown at {escape(exception.thrown_at)}" if exception.thrown_at else ""
    signed = "" if exception.signature is None else f", signature {exception.signature}"
    return f"{exception.role.value}: {title}{where}{signed}"


def stack_at(survey: Survey, address: int) -> Iterator[ThrowingStack]:
    """Yield the stack of the CONTEXT at `address`, for each of the survey's processes that has one there.

    For a process that has no user-mode CONTEXT at `address`, the reason is logged.
    """
    for process in survey.processes():
        found = _stack_at(survey, process, address)
        if found is not None:
            yield found


def _stack_at(survey: Survey, process: Process, address: int) -> ThrowingStack | None:
    # Without a choice of processes, each would have its line, and all but one of them are as they should be.
    level = logging.WARNING if survey.asked.has_processes else logging.INFO

    def say(reason: str) -> None:
        log.log(level, "%s (PID %d): %s", escape(process.name), process.pid, reason)

    with guarded(say):
        found = _context_at(process, survey.sides, address)
        if isinstance(found, str):
            say(found)
            return None
        side, context = found
        target, registers = process.sides[side], context.registers
        tid, bounds = _stack_of(survey, process, side, registers.sp)
        if tid is not None and survey.asked.tids and tid not in survey.asked.tids:
            log.warning("the CONTEXT at %#x is thread %d's, which --tid leaves out", address, tid)
            return None
        title = f"context {address:#x} given" + ("" if tid is not None else ", its stack is that of no thread")
        walk = guarded_walk(target.unwinder.walk, registers, bounds)
        return ThrowingStack(process, tid, target, context, walk, title)
    return None


def _context_at(process: Process, sides: Sides, address: int) -> tuple[Side, Context] | str:
    try:
        contexts = [
            (side, read_context(process.memory, address, target.arch)) for side, target in process.selected(sides)
        ]
    except (MemoryUnreadable, OverflowError):
        return f"there is no readable memory for a CONTEXT at {address:#x}"
    for side, context in contexts:
        if context.has_plausible_flags and context.has_user_selectors:
            return side, context
    return (
        f"what lies at {address:#x} is not a user-mode CONTEXT (ContextFlags {contexts[0][1].context_flags:#x}, "
        f"cs {contexts[0][1].cs:#x}): windows.unhandled shows where the saved ones are"
    )


def _stack_of(survey: Survey, process: Process, side: Side, sp: int) -> tuple[int | None, StackBounds]:
    for thread in process.threads:
        with Guard(lambda reason: log.info("a thread's stack is not known: %s", reason), (NoStack, MemoryUnreadable)):
            stack = survey.reader.stack(process, thread, side)
            if stack.bounds.contains(sp):
                return thread.tid, stack.bounds
    limit = sp & -PAGE_SIZE
    return None, StackBounds(limit, limit + _UNKNOWN_STACK)


def frame_rows(stacks: Iterable[ThrowingStack], detail: FrameDetail) -> Iterator[FrameRow]:
    """Yield the frames of throwing stacks, innermost first, stack after stack.

    If variables are wanted, the PDBs that would have more of them are logged at the end.
    """
    wanted = TypesWanted()
    for stack in stacks:
        if detail.variables:
            wanted.add(stack.target, (frame.ip for frame in stack.walk.frames))
        yield from _rows_of(stack, detail)
    wanted.say()


def _rows_of(stack: ThrowingStack, detail: FrameDetail) -> list[FrameRow]:
    problems: list[str] = []
    process = ProcessSummary(stack.process.pid, escape(stack.process.name, WHOLE))
    walk: WalkReport | None = None
    with guarded(problems.append):
        substitutes = stack.process.pages.substitutes
        walk = walk_report(stack.target, stack.walk, substitutes, context=stack.context, detail=detail)
    if walk is None:
        walk = bare_walk_report(stack.walk, problems[0])
    says = [text for text in (stack.title, stack.describe()) if text]
    digits = 2 * stack.target.arch.pointer_size
    ethread = next((one.address for one in stack.process.threads if one.tid == stack.tid), None)
    eprocess = stack.process.address
    rows = [
        FrameRow(process, stack.tid, frame, digits=digits, ethread=ethread, eprocess=eprocess) for frame in walk.frames
    ]
    rows[:1] = [replace(first, title="; ".join(says), heading="; ".join(reversed(says))) for first in rows[:1]]
    return rows


class FilesNeeded:
    """Collects the PDBs and image files that the modules on stacks lack, each once."""

    def __init__(self) -> None:
        """Begin with no files."""
        self._files: dict[str, NeededFile] = {}
        self._said: dict[str, None] = {}

    def add(self, stacks: Iterable[ThrowingStack]) -> None:
        """Add the files that the modules of the frames on `stacks` lack."""
        for stack in stacks:
            who = f"{escape(stack.process.name)} (PID {stack.process.pid})"
            with guarded(partial(log.warning, "%s: not all files that its stack calls for are known: %s", who)):
                found = (stack.target.images.find(frame.ip) for frame in stack.walk.frames)
                images = {image.base: image for image in found if image is not None}
                for file in needed_files(images.values(), stack.target.symbols, self._said.setdefault):
                    self._files.setdefault(file.manifest_line, file)

    def files(self) -> tuple[NeededFile, ...]:
        """Return the files that were collected, and log the reasons why others cannot be listed."""
        for message in self._said:
            log.warning("%s", message)
        return tuple(self._files.values())


def files_needed(stacks: Iterable[ThrowingStack]) -> tuple[NeededFile, ...]:
    """Return the PDBs and image files that the modules on these stacks lack, each once."""
    needed = FilesNeeded()
    needed.add(stacks)
    return needed.files()
