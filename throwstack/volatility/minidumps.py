# SPDX-License-Identifier: Apache-2.0
"""Writes minidumps of processes: of each that has a stuck thread, opened at its exception, or of those asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

from throwstack.core.errors import ThrowstackError
from throwstack.core.sides import Side
from throwstack.core.text import escape
from throwstack.minidump.comment_text import unknown_registers
from throwstack.minidump.dumped import DumpedProcess, Span
from throwstack.minidump.full_memory import FullMemory, Limits
from throwstack.minidump.minidump_file import TooLarge
from throwstack.minidump.minidump_report import MinidumpReport
from throwstack.minidump.new_file import minidump_name, open_new
from throwstack.minidump.small_memory import pick, stack_part
from throwstack.minidump.write_minidump import Written, write_full, write_small
from throwstack.report.crash_report import CrashReport
from throwstack.report.dump_report import MachineReport, ReportWarning, UnexaminedProcess
from throwstack.report.frame_report import WHOLE
from throwstack.volatility.crashes import crash_of
from throwstack.volatility.memory.guarded import guarded
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.minidump_contents import MinidumpContents, Subject
from throwstack.volatility.minidump_memory import MinidumpPages
from throwstack.volatility.processes import Process
from throwstack.volatility.survey import Finding, Selection, Survey

log = logging.getLogger(__name__)

_PAGE = 0x1000
_LOOKED_AT, _WRITTEN = 1 << 22, 1 << 20
"""How many pages may be looked at beside as many as the image has, eight times over; and written, twice over."""


class CannotWrite(ThrowstackError):
    """A minidump cannot be written; the message names the file and the reason."""


OnMiss = Callable[[ReportWarning | UnexaminedProcess], object]
"""Takes a reason why a stuck thread may have been missed."""


@dataclass(frozen=True, slots=True)
class MinidumpOrder:
    """What to write and where to.

    `native` asks for the 64-bit side of WoW64 processes. `image` is the name of the memory image and `image_size` its
    size in bytes, which bounds what can be written.
    """

    directory: Path
    image: str
    image_size: int
    full: bool = False
    native: bool = False
    pids: Collection[int] = ()
    tids: Collection[int] = ()
    on_miss: OnMiss | None = None
    """Is called at the end with each reason why a stuck thread may have been missed."""


SurveyOf = Callable[[Selection], Survey]


def minidumps(
    machine: Machine, report: MachineReport, survey_of: SurveyOf, order: MinidumpOrder
) -> Iterator[MinidumpReport]:
    """Write a minidump of each process that has a stuck thread, and of each of `order.pids`; yield what came of each.

    `report` is what is known of the machine, and `survey_of` makes a survey of a selection. Raises `CannotWrite` if a
    file cannot be written.
    """
    survey = survey_of(Selection(order.pids, order.tids))
    contents = MinidumpContents(machine, survey.reader, report, order.image)
    written: set[int] = set()
    for _, group in groupby(survey.findings(), lambda finding: finding.process.address):
        subject = _subject(tuple(group), survey_of, native=order.native)
        if order.tids:
            subject = replace(subject, findings=(*subject.findings, *_others(subject, survey_of)))
        written.add(subject.process.pid)
        yield _guarded(machine, contents, subject, order)
    if order.on_miss is not None:
        for warning in survey.record.warnings:
            order.on_miss(warning)
        for process_left_out in survey.record.unexamined:
            order.on_miss(process_left_out)
    rest = [pid for pid in order.pids if pid not in written]
    if not rest or order.tids:
        return
    for process in survey_of(Selection(rest)).processes():
        side = next(iter(process.sides)) if order.native else tuple(process.sides)[-1]
        yield _guarded(machine, contents, Subject(process, side), order)


def _subject(findings: tuple[Finding, ...], survey_of: SurveyOf, *, native: bool) -> Subject:
    """Return what to write of a process with stuck threads.

    A thread of a WoW64 process that is stuck on both sides is found as one that is stuck on the 32-bit side. The 64-bit
    minidump is opened at what it threw on the 64-bit side, if it did.
    """
    first = findings[0]
    if not (native and first.is_in_wow64_code):
        return Subject(first.process, first.side, findings)
    tids = [finding.thread.tid for finding in findings]
    own = tuple(survey_of(Selection([first.process.pid], tids, sides=frozenset({Side.NATIVE}))).findings())
    return Subject((own or findings)[0].process, Side.NATIVE, own or findings)


def _others(subject: Subject, survey_of: SurveyOf) -> Iterator[Finding]:
    """Yield the stuck threads of the process that were not chosen: the comment names them, too."""
    chosen = {finding.thread.tid for finding in subject.findings}
    for finding in survey_of(Selection([subject.process.pid])).findings():
        if finding.process.address == subject.process.address and finding.thread.tid not in chosen:
            yield finding


def _guarded(machine: Machine, contents: MinidumpContents, subject: Subject, order: MinidumpOrder) -> MinidumpReport:
    """Write the minidump of one process; if that fails for what the process holds, say why."""
    process = subject.process
    problems: list[str] = []
    failed: CannotWrite | None = None
    with guarded(problems.append):
        try:
            return _written(machine, contents, subject, order)
        except CannotWrite as error:  # a matter of the caller's disk, and not of the process
            failed = error
        except TooLarge as error:
            problems.append(str(error))
    if failed is not None:
        raise failed
    log.warning("%s (PID %d): no minidump: %s", escape(process.name), process.pid, problems[0])
    return MinidumpReport(process.pid, escape(process.name, WHOLE), problem=problems[0])


def _written(machine: Machine, contents: MinidumpContents, subject: Subject, order: MinidumpOrder) -> MinidumpReport:
    process, finding = subject.process, subject.finding
    crash = None if finding is None else crash_of(machine, finding)
    signature = None if crash is None else crash.signature
    dumped = contents.process(subject, crash)
    name = minidump_name(process.name, process.pid, "" if signature is None else signature.digest)
    try:
        path, out = open_new(order.directory, name)
    except OSError as error:
        raise _cannot(order.directory, error) from error
    try:
        with out:
            if order.full:
                made = _full(machine, process, dumped, out, order.image_size)
            else:
                made = write_small(out, dumped, pick(process.memory, contents.wanted(subject, dumped, crash)))
    except BaseException as error:
        with suppress(OSError):
            path.unlink()
        if isinstance(error, OSError):
            raise _cannot(path, error) from error
        raise
    return _report(subject, crash, dumped, made, path)


def _full(machine: Machine, process: Process, dumped: DumpedProcess, out: BinaryIO, image_size: int) -> Written:
    pages = image_size // _PAGE
    source = MinidumpPages(process.pages, machine.memory, machine.mode.value.entry_size)
    limits = Limits(looked_at=8 * pages + _LOOKED_AT, written=2 * pages + _WRITTEN)
    memory = FullMemory(source, dumped.regions, limits)
    stacks: dict[int, Span] = {}
    for index, thread in enumerate(dumped.threads):
        part = stack_part(process.memory, thread)
        if part is not None:
            stacks[index] = part
    return write_full(out, dumped, memory, stacks)


def _report(
    subject: Subject, crash: CrashReport | None, dumped: DumpedProcess, made: Written, path: Path
) -> MinidumpReport:
    exception = None if crash is None else crash.exception
    has_exception = dumped.exception is not None
    return MinidumpReport(
        subject.process.pid,
        escape(subject.process.name, WHOLE),
        path,
        dumped.system.arch.value,
        tid=None if crash is None else crash.tid,
        title="" if exception is None or not has_exception else exception.title,
        signature="" if crash is None or crash.signature is None else str(crash.signature),
        size=made.size,
        left_out=made.left_out,
        unknown=tuple(unknown_registers(dumped)),
    )


def _cannot(path: Path, error: OSError) -> CannotWrite:
    return CannotWrite(f"{escape(str(path), WHOLE)}: {error.strerror or error}")
