# SPDX-License-Identifier: Apache-2.0
"""Throwing stacks: of every stuck thread, or from a CONTEXT record at an address the user gives."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import partial

from throwstack.core.contexts import Context, read_context
from throwstack.core.frames import End, Frame, StackBounds, Trust, Walk
from throwstack.core.guard import Guard
from throwstack.core.memory import PAGE_SIZE, MemoryUnreadable
from throwstack.core.registers import Registers
from throwstack.core.text import escape
from throwstack.dispatch.saved import SavedException
from throwstack.files.needed_files import NeededFile, needed_files
from throwstack.stuck.triage import BROKE_OFF
from throwstack.unwind.target import Target
from throwstack.volatility.memory.guarded import guarded
from throwstack.volatility.objects.threads import Thread
from throwstack.volatility.processes import NoStack, Process
from throwstack.volatility.survey import Finding, Survey

log = logging.getLogger(__name__)


class WhichSide(Enum):
    """Which stack of a thread of a 32-bit process on 64-bit Windows."""

    X86 = "x86"
    NATIVE = "native"


_UNKNOWN_STACK = 1 << 20
"""How far a walk may go where the CONTEXT's stack belongs to no thread: the default reserve of a stack."""


@dataclass(frozen=True, slots=True)
class ThrowingStack:
    """A stack unwound from a saved CONTEXT; `tid` is None where its stack belongs to no thread.

    `context` is None for the other side of a WoW64 thread, which is unwound from where it waits, and for a fast-fail,
    which leaves none.
    """

    process: Process
    tid: int | None
    target: Target
    context: Context | None
    walk: Walk
    title: str


def throwing_stacks(survey: Survey, *, of_wow64: WhichSide = WhichSide.X86) -> Iterator[ThrowingStack]:
    """Yield the throwing stacks of every stuck thread that the survey finds, those of nested exceptions one by one."""
    for finding in survey.findings():
        stuck = finding.stuck
        if of_wow64 is WhichSide.NATIVE and stuck.target is finding.process.wow64 and stuck.exceptions:
            found = _native_side(survey, finding)
            if found is not None:
                yield found
            continue
        for note in stuck.notes:
            if note.startswith(BROKE_OFF):
                _say(finding.process, finding.thread, note)
        for exception in stuck.exceptions:
            walk = _safe_walk(exception.context.registers, partial(stuck.throwing_walk, exception))
            title = _title(exception, stuck.exceptions)
            context = exception.context if exception.context.address else None
            yield ThrowingStack(finding.process, finding.thread.tid, stuck.target, context, walk, title)


def _native_side(survey: Survey, finding: Finding) -> ThrowingStack | None:
    """Return the 64-bit stack of a thread that is stuck on its 32-bit side; says why where there is none."""
    process, thread = finding.process, finding.thread

    with guarded(partial(_say, process, thread)):
        try:
            stack = survey.reader.completed(thread, survey.stack(process, thread, process.native))
        except NoStack as reason:
            _say(process, thread, reason)
            return None
        if stack.registers is None:
            _say(process, thread, stack.missing)
            return None
        walk = _safe_walk(stack.registers, partial(process.native.unwinder.walk, stack.registers, stack.bounds))
        title = f"64-bit side of a thread stuck on its 32-bit side, {finding.stuck.exceptions[0].where}"
        return ThrowingStack(process, thread.tid, process.native, None, walk, title)
    return None


def _say(process: Process, thread: Thread, reason: object) -> None:
    log.warning("%s (PID %d) thread %d: %s", escape(process.name), process.pid, thread.tid, reason)


def _safe_walk(registers: Registers, walk: Callable[[], Walk]) -> Walk:
    """Return what `walk` does, or its first frame, whose `registers` are known, and why there are no more."""
    problems: list[str] = []
    with guarded(problems.append):
        return walk()
    first = Frame(registers, registers.sp, None, None, Trust.CONTEXT, is_interrupted=True)
    return Walk((first,), End.FAULT, problems[0])


def _title(exception: SavedException, exceptions: tuple[SavedException, ...]) -> str:
    found = f"{exception.record.code:#010x}, {exception.where} ({exception.found_by})"
    if len(exceptions) == 1:
        return found
    if exception is exceptions[-1]:
        return f"original exception {found}"
    return f"raised while the exception further out was being handled: {found}"


def stack_at(survey: Survey, address: int) -> Iterator[ThrowingStack]:
    """Yield the stack of the CONTEXT at `address` in the survey's processes; says what is wrong where there is none."""
    for process in survey.processes():
        found = _stack_at(survey, process, address)
        if found is not None:
            yield found


def _stack_at(survey: Survey, process: Process, address: int) -> ThrowingStack | None:
    def say(reason: str) -> None:
        log.warning("%s (PID %d): %s", escape(process.name), process.pid, reason)

    with guarded(say):
        found = _context_at(process, address)
        if isinstance(found, str):
            say(found)
            return None
        target, context = found
        registers = context.registers
        tid, bounds = _stack_of(survey, process, target, registers.sp)
        if tid is not None and survey.tids and tid not in survey.tids:
            log.warning("the CONTEXT at %#x is thread %d's, which --tid leaves out", address, tid)
            return None
        title = f"context {address:#x} given" + ("" if tid is not None else ", its stack is that of no thread")
        walk = _safe_walk(registers, partial(target.unwinder.walk, registers, bounds))
        return ThrowingStack(process, tid, target, context, walk, title)
    return None


def _context_at(process: Process, address: int) -> tuple[Target, Context] | str:
    targets = [target for target in (process.native, process.wow64) if target is not None]
    try:
        contexts = [(target, read_context(process.memory, address, target.arch)) for target in targets]
    except (MemoryUnreadable, OverflowError):
        return f"there is no readable memory for a CONTEXT at {address:#x}"
    for target, context in contexts:
        if context.has_plausible_flags and context.has_user_selectors:
            return target, context
    return (
        f"what lies at {address:#x} is not a user-mode CONTEXT (ContextFlags {contexts[0][1].context_flags:#x}, "
        f"cs {contexts[0][1].cs:#x}): windows.unhandled shows where the saved ones are"
    )


def _stack_of(survey: Survey, process: Process, target: Target, sp: int) -> tuple[int | None, StackBounds]:
    for thread in process.threads:
        with Guard(lambda reason: log.info("a thread's stack is not known: %s", reason), (NoStack, MemoryUnreadable)):
            stack = survey.stack(process, thread, target)
            if stack.bounds.contains(sp):
                return thread.tid, stack.bounds
    limit = sp & -PAGE_SIZE
    return None, StackBounds(limit, limit + _UNKNOWN_STACK)


def files_needed(stacks: Iterable[ThrowingStack]) -> tuple[NeededFile, ...]:
    """Return the PDBs and image files that the modules on these stacks lack, each once."""
    needed: dict[str, NeededFile] = {}
    said: dict[str, None] = {}
    for stack in stacks:
        who = f"{escape(stack.process.name)} (PID {stack.process.pid})"
        with guarded(partial(log.warning, "%s: not all files that its stack calls for are known: %s", who)):
            found = (stack.target.images.find(frame.ip) for frame in stack.walk.frames)
            images = {image.base: image for image in found if image is not None}
            for file in needed_files(images.values(), stack.target.symbols, said.setdefault):
                needed.setdefault(file.manifest_line, file)
    for message in said:
        log.warning("%s", message)
    return tuple(needed.values())
