# SPDX-License-Identifier: Apache-2.0
"""Throwing stacks: of every stuck thread, or from a CONTEXT record at an address the user gives."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from throwstack.contexts import Context, read_context
from throwstack.dispatch.saved import SavedException
from throwstack.files.needed import NeededFile, needed_files
from throwstack.frames import StackBounds, Walk
from throwstack.memory import PAGE_SIZE, MemoryUnreadable
from throwstack.target import Target
from throwstack.text import escape
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
            yield from _native_side(survey, finding)
            continue
        for exception in stuck.exceptions:
            walk = stuck.throwing_walk(exception)
            title = _title(exception, stuck.exceptions)
            context = exception.context if exception.context.address else None
            yield ThrowingStack(finding.process, finding.thread.tid, stuck.target, context, walk, title)


def _native_side(survey: Survey, finding: Finding) -> Iterator[ThrowingStack]:
    """Yield the 64-bit stack of a thread that is stuck on its 32-bit side; says why where there is none."""
    process, thread = finding.process, finding.thread
    try:
        stack = survey.reader.completed(thread, survey.stack(process, thread, process.native))
    except (NoStack, MemoryUnreadable) as reason:
        log.warning("%s (PID %d) thread %d: %s", escape(process.name), process.pid, thread.tid, reason)
        return
    if stack.registers is None:
        log.warning("%s (PID %d) thread %d: %s", escape(process.name), process.pid, thread.tid, stack.missing)
        return
    walk = process.native.unwinder.walk(stack.registers, stack.bounds)
    title = f"64-bit side of a thread stuck on its 32-bit side, {finding.stuck.exceptions[0].where}"
    yield ThrowingStack(process, thread.tid, process.native, None, walk, title)


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
        found = _context_at(process, address)
        if isinstance(found, str):
            log.warning("%s (PID %d): %s", escape(process.name), process.pid, found)
            continue
        target, context = found
        tid, bounds = _stack_of(survey, process, target, context.registers.sp)
        if tid is not None and survey.tids and tid not in survey.tids:
            log.warning("the CONTEXT at %#x is thread %d's, which --tid leaves out", address, tid)
            continue
        title = f"context {address:#x} given" + ("" if tid is not None else ", its stack is that of no thread")
        yield ThrowingStack(process, tid, target, context, target.unwinder.walk(context.registers, bounds), title)


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
        try:
            stack = survey.stack(process, thread, target)
        except (NoStack, MemoryUnreadable):
            continue
        if stack.bounds.contains(sp):
            return thread.tid, stack.bounds
    limit = sp & -PAGE_SIZE
    return None, StackBounds(limit, limit + _UNKNOWN_STACK)


def files_needed(stacks: Iterable[ThrowingStack]) -> tuple[NeededFile, ...]:
    """Return the PDBs and image files that the modules on these stacks lack, each once."""
    needed: dict[str, NeededFile] = {}
    said: dict[str, None] = {}
    for stack in stacks:
        found = (stack.target.images.find(frame.ip) for frame in stack.walk.frames)
        images = {image.base: image for image in found if image is not None}
        for file in needed_files(images.values(), stack.target.symbols, said.setdefault):
            needed.setdefault(file.manifest_line, file)
    for message in said:
        log.warning("%s", message)
    return tuple(needed.values())
