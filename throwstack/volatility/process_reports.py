# SPDX-License-Identifier: Apache-2.0
"""Makes what a report on a whole dump has beside each stuck thread: its process, modules, other threads, and its wait.

Only `Dump.report` pays for this. A process is reported when its last stuck thread has been, so that the pages of one
process at a time are kept. A part that cannot be read is absent.
"""

from __future__ import annotations

import datetime
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial

from throwstack.core.guard import Say
from throwstack.core.sides import Side
from throwstack.core.text import escape
from throwstack.report.accounts import account_name
from throwstack.report.crash_report import CrashReport
from throwstack.report.dump_report import Deadlock
from throwstack.report.frame_report import WHOLE, FrameDetail, FrameReport
from throwstack.report.make_module import modules_of
from throwstack.report.module_report import ModuleReport
from throwstack.report.process_report import ProcessReport
from throwstack.report.services import service_named_by
from throwstack.report.stack_parts import StackExtent, ThreadFigures
from throwstack.report.thread_groups import grouped
from throwstack.report.thread_report import ThreadStackReport
from throwstack.report.values import Hexadecimal, hexadecimal
from throwstack.unwind.target import Target
from throwstack.volatility.crashes import crash_of
from throwstack.volatility.deadlocks import Deadlocks
from throwstack.volatility.memory.guarded import guarded
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.objects.process_facts import ProcessFacts, ProcessFactsReader
from throwstack.volatility.objects.service_manager import MANAGER, running_services
from throwstack.volatility.processes import Process
from throwstack.volatility.survey import Finding, Survey
from throwstack.volatility.thread_stacks import thread_stack
from throwstack.volatility.thread_survey import ThreadReport, ThreadSurvey

log = logging.getLogger(__name__)

_DETAIL = FrameDetail(variables=True)
_SYSTEM = "S-1-5-18"
"""The SID of the account that Windows itself runs as."""
_MAX_OTHERS = 1000
"""The limit on the threads of one process that are not stuck and are looked at."""
_MAX_OTHERS_OF_ALL = 8000


@dataclass(slots=True)
class _Told:
    """A process whose stuck threads are being reported, with the stacks that its modules are taken from."""

    process: Process
    tids: list[int] = field(default_factory=list)
    stacks: list[tuple[Target, Sequence[FrameReport], bool]] = field(default_factory=list)
    """Target, frames, and whether the target is the kernel."""


class ProcessReports:
    """Makes the reports on stuck threads and on their processes."""

    def __init__(self, machine: Machine, survey: Survey, build: int | None) -> None:
        """Keep `machine`, the `survey` whose findings are reported, and the build of Windows."""
        self._machine = machine
        self._build = build
        self._survey = survey
        self._threads = ThreadSurvey(survey)
        self._facts = ProcessFactsReader(machine)
        self._told: _Told | None = None
        self._reports: dict[int, ProcessReport] = {}
        self._deadlocks = Deadlocks()
        self._left = _MAX_OTHERS_OF_ALL

    def crash(self, finding: Finding) -> CrashReport:
        """Return the report on a stuck thread, with its wait, its kernel stack and its figures."""
        if self._told is None or self._told.process is not finding.process:
            self._end_process()
            self._told = _Told(finding.process)
        crash, told = crash_of(self._machine, finding, _DETAIL), self._told
        told.tids.append(finding.thread.tid)
        for walk in (crash.throwing, *(exception.stack for exception in crash.exceptions), crash.blocked):
            if walk is not None:
                told.stacks.append((finding.target, walk.frames, False))
        bounds = finding.stuck.stack.bounds
        extent = StackExtent(Hexadecimal(bounds.base), Hexadecimal(bounds.limit))
        crash = replace(
            crash,
            ethread=Hexadecimal(finding.thread.address),
            eprocess=Hexadecimal(finding.process.address),
            stack_bounds=extent,
        )
        with guarded(partial(log.info, "thread %d: how it waits is not known: %s", finding.thread.tid)):
            return self._with_wait(crash, self._threads.report(finding.process, finding.thread), told)
        return crash

    def processes(self) -> tuple[ProcessReport, ...]:
        """Return the reports on the processes of all stuck threads so far."""
        self._end_process()
        return tuple(self._reports.values())

    def look_for_deadlocks(self, survey: Survey) -> None:
        """Look for deadlocks among all threads that `survey` selects. It counts what it looks at once more."""
        for report in ThreadSurvey(survey).deadlocked():
            self._deadlocks.add(report)

    @property
    def deadlocks(self) -> tuple[Deadlock, ...]:
        """Return the deadlocks among the threads looked at."""
        return self._deadlocks.found()

    def _with_wait(self, crash: CrashReport, report: ThreadReport, told: _Told) -> CrashReport:
        self._deadlocks.add(report)
        in_kernel = tuple(part for part in report.sides if part.side is Side.KERNEL)
        stack = thread_stack(self._machine, replace(report, sides=in_kernel))
        part = next((part for part in stack.parts if part.frames or part.ending), None)
        if part is not None:
            told.stacks.append((in_kernel[0].target, part.frames, True))
        return replace(crash, thread=_figures(stack), wait=stack.wait, kernel_stack=part)

    def _end_process(self) -> None:
        told, self._told = self._told, None
        if told is None or told.process.address in self._reports:
            return
        process, problems = told.process, list[str]()
        made = ProcessReport(
            process.pid, escape(process.name, WHOLE), is_wow64=process.is_wow64, eprocess=Hexadecimal(process.address)
        )
        with guarded(problems.append):
            made = self._with_facts(made, self._facts.read(process.address, process.peb, process.memory), process.peb)
        with guarded(problems.append):
            made = replace(made, modules=tuple(self._modules(told)))
        with guarded(problems.append):
            others = list(self._others(told, problems.append))
            made = replace(made, other_threads=grouped(others))
        self._reports[process.address] = replace(made, notes=tuple(escape(problem, WHOLE) for problem in problems))

    def _with_facts(self, made: ProcessReport, facts: ProcessFacts, peb: int) -> ProcessReport:
        services = self._services.get(made.pid) or [service_named_by(made.name, facts.command_line)]
        return replace(
            made,
            image_path=escape(facts.image_path, WHOLE),
            command_line=escape(facts.command_line, WHOLE),
            started=facts.created,
            session=facts.session,
            user=account_name(facts.user),
            user_sid=facts.user,
            parent_pid=facts.parent,
            parent_name=self._parent_name(facts),
            services=tuple(escape(service) for service in sorted(services, key=str.lower) if service),
            peb=hexadecimal(peb or None),
            directory_base=hexadecimal(facts.directory_base),
            token=hexadecimal(facts.token),
            handles=facts.handles,
        )

    def _parent_name(self, facts: ProcessFacts) -> str:
        """Return the image name of the parent; "" if the process that has its PID was started after the child."""
        name, started = self._names.get(facts.parent or 0, ("", None))
        is_later = started is not None and facts.created is not None and started > facts.created
        return "" if is_later else escape(name, WHOLE)

    @cached_property
    def _services(self) -> dict[int, list[str]]:
        """Return the services that each process runs, from the memory of the service control manager.

        Any program can be named services.exe. The manager is the first of them that was started, and runs as SYSTEM.
        """
        found: dict[int, list[str]] = {}
        managers: list[tuple[float, int]] = []
        guard = guarded(partial(log.info, "the services of processes are not all known: %s"))
        items = list(guard.each(self._machine.processes()))
        for number, item in enumerate(items):
            with guard:
                address = self._machine.canonical(item.vol.offset)
                named = self._survey.reader.identity(address)[0].lower()
                if named == MANAGER and self._facts.user(address) in {"", _SYSTEM}:
                    started = self._facts.created(address)
                    managers.append((started.timestamp() if started else math.inf, number))
        if managers:
            with guard:
                manager = self._survey.reader.open(items[min(managers)[1]])
                if manager is not None and self._build is not None:
                    found.update(running_services(self._machine, self._build, manager.memory, manager.pages))
        return found

    @cached_property
    def _names(self) -> dict[int, tuple[str, datetime.datetime | None]]:
        """Return the name and the start of every process by PID."""
        found: dict[int, tuple[str, datetime.datetime | None]] = {}
        guard = guarded(partial(log.info, "the name of a process: %s"))
        for item in guard.each(self._machine.processes()):
            with guard:
                address = self._machine.canonical(item.vol.offset)
                name, pid = self._survey.reader.identity(address)
                found.setdefault(pid, (name, self._facts.created(address)))
        return found

    def _modules(self, told: _Told) -> Iterator[ModuleReport]:
        clock = self._machine.clock
        now = None if clock is None else clock.now
        seen: set[Hexadecimal] = set()
        for target, frames, is_kernel in told.stacks:
            for module in modules_of(target, frames, now, is_kernel=is_kernel):
                if module.base not in seen:
                    seen.add(module.base)
                    yield module

    def _others(self, told: _Told, say: Say) -> Iterator[ThreadStackReport]:
        process = told.process
        others = [thread for thread in process.threads if thread.tid not in told.tids and not thread.is_terminated]
        looked_at = others[: min(_MAX_OTHERS, self._left)]
        self._left -= len(looked_at)
        if len(looked_at) < len(others):
            say(f"{len(others) - len(looked_at)} more threads of this process were not looked at")
        for thread in looked_at:
            report = self._threads.report(process, thread)
            self._deadlocks.add(report)
            yield thread_stack(self._machine, report)


def _figures(stack: ThreadStackReport) -> ThreadFigures:
    return ThreadFigures(**{one.name: getattr(stack, one.name) for one in fields(ThreadFigures)})
