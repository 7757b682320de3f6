# SPDX-License-Identifier: Apache-2.0
"""Gathers what a minidump of a process is made from: `DumpedProcess`, and what a small one is about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from throwstack import __version__
from throwstack.core.memory import MemoryUnreadable
from throwstack.core.sides import Side
from throwstack.core.text import escape
from throwstack.dispatch.saved_exception import SavedException
from throwstack.images.image import Image
from throwstack.minidump.comment_text import comment_text
from throwstack.minidump.dumped import (
    DumpedException,
    DumpedModule,
    DumpedProcess,
    DumpedThread,
    DumpedUnloaded,
    MadeContext,
    Span,
)
from throwstack.minidump.exception_memory import exception_memory, object_memory
from throwstack.minidump.image_version import codeview_record, fixed_file_info
from throwstack.minidump.small_memory import Wanted
from throwstack.minidump.thread_context import made_context, raw_context
from throwstack.names.unloaded_images import unloaded_dlls
from throwstack.report.crash_report import CrashReport, InnerException
from throwstack.report.dump_report import MachineReport
from throwstack.report.frame_report import WHOLE
from throwstack.unwind.target import Target
from throwstack.volatility.crashes import crash_of
from throwstack.volatility.memory.guarded import guarded
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.minidump_handles import HandleReader
from throwstack.volatility.minidump_memory import regions_of
from throwstack.volatility.minidump_system import SystemFacts
from throwstack.volatility.minidump_threads import MinidumpThreads
from throwstack.volatility.processes import Process, ProcessReader
from throwstack.volatility.survey import Finding

_MAX_PATH = 1024


@dataclass(frozen=True, slots=True)
class Subject:
    """The process to write a minidump of, the side of it, and its stuck threads: it is opened at the first of them."""

    process: Process
    side: Side
    findings: tuple[Finding, ...] = ()

    @property
    def target(self) -> Target:
        """Return the memory, images and symbols that the side's code sees."""
        return self.process.sides[self.side]

    @property
    def finding(self) -> Finding | None:
        """Return the stuck thread at which the minidump is opened, or None."""
        return self.findings[0] if self.findings else None

    @property
    def exceptions(self) -> tuple[SavedException, ...]:
        """Return the exceptions of that thread, the cause first; none if another side threw them."""
        return () if self.finding is None or self.finding.side is not self.side else self.finding.stuck.exceptions


class MinidumpContents:
    """Gathers what minidumps of one machine's processes are made from."""

    def __init__(self, machine: Machine, reader: ProcessReader, report: MachineReport, image: str) -> None:
        """`report` is what is known of the machine, and `image` the name of the memory image, without directories."""
        self._machine = machine
        self._report = report
        self._image = image
        self._facts = SystemFacts(machine, report)
        self._threads = MinidumpThreads(machine, reader, self._facts)
        self._handles = HandleReader(machine)

    def process(self, subject: Subject, crash: CrashReport | None) -> DumpedProcess:
        """Return what the minidump is made from; `crash` is the report on its first stuck thread."""
        process, target = subject.process, subject.target
        times = self._facts.times(process.address)
        known = {
            finding.thread.address: finding.stuck.stack for finding in subject.findings if finding.side is subject.side
        }
        threads = self._threads.threads(process, subject.side, known)
        dumped = DumpedProcess(
            process.pid,
            self._facts.system(target.arch),
            process.memory.page,
            time=self._facts.now,
            created=times.created,
            kernel_time=times.kernel,
            user_time=times.user,
            xstate=self._facts.xstate(),
            threads=threads,
            modules=tuple(_modules(subject)),
            unloaded=tuple(_unloaded(target)),
            regions=regions_of(process.pages.views, process.memory, target.arch),
            handles=self._handles.handles(process.address),
            exception=_exception(subject, threads),
        )
        crashes = [] if crash is None else [crash]
        crashes += [crash_of(self._machine, finding) for finding in subject.findings[1:]]
        origin = f"{escape(self._image)}, an image of {self._report.system} {self._report.architecture}"
        if self._report.time is not None:
            origin += f" taken {self._report.time:%Y-%m-%d %H:%M:%S} UTC"
        name = escape(process.name, WHOLE)
        text = comment_text(f"throwstack {__version__}", origin, name, dumped, crashes)
        return replace(dumped, comment=text + "".join(f"{escape(problem, WHOLE)}\n" for problem in process.problems))

    def wanted(self, subject: Subject, dumped: DumpedProcess, crash: CrashReport | None) -> Wanted:
        """Return what a small minidump of the process is about."""
        target, finding = subject.target, subject.finding
        peb = self._threads.peb(subject.process, subject.side)
        base = Wanted(target.arch, dumped.threads, peb, is_in_image=lambda at: target.images.find(at) is not None)
        if finding is None or finding.side is not subject.side:
            return base
        stuck = finding.stuck
        walks = [*stuck.throwing_walks, *([] if stuck.blocked_walk is None else [stuck.blocked_walk])]
        registers = [exception.context.registers for exception in stuck.exceptions]
        waits = [] if stuck.stack.registers is None else [stuck.stack.registers]
        crashed = next((thread for thread in dumped.threads if thread.tid == finding.thread.tid), None)
        return replace(
            base,
            crashed=None if crashed is None else replace(crashed, stack=stuck.stack.bounds),
            sps=tuple(dict.fromkeys(one.sp for one in (*waits, *registers))),
            code=tuple(dict.fromkeys(frame.ip for walk in walks for frame in walk.frames)),
            pointers=tuple(value for one in registers for value in one.gpr if value is not None),
            parts=tuple(self._exception_parts(subject, dumped, crash)),
        )

    @staticmethod
    def _exception_parts(subject: Subject, dumped: DumpedProcess, crash: CrashReport | None) -> Iterator[Span]:
        target = subject.target
        made = None if dumped.exception is None else dumped.exception.context
        if made is not None and made.extended is not None:
            yield made.extended
        for exception in subject.exceptions:
            if exception.context.address:
                yield Span(exception.context.address, exception.context.address + target.arch.facts.context_size)
            yield from exception_memory(target.memory, target.images, target.arch, exception.record)
        for report in () if crash is None else crash.exceptions:
            objects = [report.object_address, *_object_addresses(report.inner)]
            yield from object_memory(target.memory, target.arch, [address for address in objects if address])


def _object_addresses(inner: tuple[InnerException, ...]) -> Iterator[int]:
    """Yield the addresses of the objects of inner exceptions of .NET, however deep."""
    for exception in inner:
        if exception.code is None and exception.address is not None:
            yield exception.address
        yield from _object_addresses(exception.inner)


def _exception(subject: Subject, threads: tuple[DumpedThread, ...]) -> DumpedException | None:
    """Return the cause of the first stuck thread, with its CONTEXT as it is in memory."""
    finding = subject.finding
    if finding is None or not subject.exceptions:
        return None
    exception = subject.exceptions[0]
    context, arch = exception.context, subject.target.arch
    made: MadeContext | None = None
    if context.address:
        try:
            made = raw_context(subject.target.memory, context.address, arch)
        except MemoryUnreadable:
            made = None
    if made is None:
        others = {name: getattr(context, name) for name in ("cs", "ss", "ds", "es", "fs", "gs", "eflags")}
        known = others if any(others.values()) else {}
        made = made_context(arch, context.registers, known)
        of_thread = next((thread for thread in threads if thread.tid == finding.thread.tid), None)
        if of_thread is not None and of_thread.context is not None and of_thread.registers == context.registers:
            made = of_thread.context
    return DumpedException(finding.thread.tid, exception.record, made)


def _modules(subject: Subject) -> Iterator[DumpedModule]:
    """Yield the modules that a reporter of the side's own architecture would list.

    A 32-bit one lists those of 32 bits. A 64-bit one lists all.
    """
    sides = subject.process.sides if subject.side is Side.NATIVE else {subject.side: subject.target}
    seen: set[int] = set()
    for target in sides.values():
        for image in target.images:
            if image.base not in seen:
                seen.add(image.base)
                yield _module(image)


def _module(image: Image) -> DumpedModule:
    module, headers = image.module, image.headers
    found = DumpedModule(escape(module.path or module.name, _MAX_PATH), module.base, module.size)
    with guarded(lambda _: None):
        return replace(
            found,
            checksum=0 if headers is None else headers.checksum,
            timestamp=module.timestamp if headers is None else headers.timestamp,
            version=fixed_file_info(image),
            codeview=codeview_record(image.pdb),
        )
    return found


def _unloaded(target: Target) -> Iterator[DumpedUnloaded]:
    ntdll = next((image for image in target.images if image.module.name.lower() == "ntdll.dll"), None)
    if ntdll is None:
        return
    with guarded(lambda _: None):
        for image in unloaded_dlls(ntdll, target.arch):
            yield DumpedUnloaded(escape(image.name), image.base, image.size)
