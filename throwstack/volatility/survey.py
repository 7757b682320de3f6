# SPDX-License-Identifier: Apache-2.0
"""Examines the selected threads of a machine and yields the stuck ones.

If a process or thread cannot be examined, a line is logged. If a stuck thread may have been missed because of that, the
reason is also recorded as a warning. Each process and thread is examined inside a guard (`throwstack.core.guard`), so
that no content of the dump can end the loop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from volatility3.framework import interfaces
from volatility3.framework.objects import utility

from throwstack.core.guard import UNEXPECTED, Guard
from throwstack.core.memory import MemoryUnreadable
from throwstack.core.sides import BOTH, Side, Sides
from throwstack.core.text import escape
from throwstack.report.crash_report import BlockerReport
from throwstack.report.dump_report import WarningCode
from throwstack.stuck.overwritten import SoundStacks
from throwstack.stuck.stuck_thread import StuckThread
from throwstack.stuck.triage import UNREAD_STACK, Triage
from throwstack.unwind.target import Target, ThreadStack
from throwstack.volatility.asked_for import AskedFor
from throwstack.volatility.memory.guarded import guarded
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.objects.threads import Thread
from throwstack.volatility.processes import NoStack, Process, ProcessReader
from throwstack.volatility.reporters import Reporters
from throwstack.volatility.stopped_threads import FORWARDS, StoppedThreads
from throwstack.volatility.survey_record import SurveyRecord

log = logging.getLogger(__name__)

Progress = Callable[[float, str], None]

_MAX_NAMED = 512


@dataclass(frozen=True, slots=True)
class Finding:
    """A stuck thread, its process, and the side of the process (64-bit or 32-bit code) in which it is stuck."""

    process: Process
    thread: Thread
    side: Side
    stuck: StuckThread
    reporter: str
    """Which process (WerFault, for example) reports on this process, in words; empty if none does."""
    other_side: str = ""
    """What the thread is stuck in on the other side of a WoW64 process, in words; empty if only one side is stuck."""

    @property
    def is_in_wow64_code(self) -> bool:
        """Say whether the thread is stuck on the 32-bit side of a WoW64 process."""
        return self.process.is_wow64 and self.side is Side.X86

    @property
    def arch(self) -> str:
        """Return the value of the column `Arch`: `x86`, `x64`, or `wow64` for the 32-bit side of a WoW64 process."""
        return "wow64" if self.is_in_wow64_code else self.target.arch.value

    @property
    def target(self) -> Target:
        """Return the target (memory, images, symbols, unwinder) of the code that the thread is stuck in."""
        return self.process.sides[self.side]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which processes and threads to look at; empty collections mean all."""

    pids: Collection[int] = ()
    tids: Collection[int] = ()
    names: Collection[str] = ()
    """Image names, with or without `.exe`, in any case; the kernel keeps the first 14 characters."""
    sides: Sides = BOTH
    """Which code of WoW64 processes to look at: 64-bit, 32-bit, or both."""
    handled: bool = False
    """Threads are found, too, on whose stacks there is an exception that a handler has taken."""


class Survey:
    """Examines the processes and threads of a machine."""

    def __init__(self, machine: Machine, selection: Selection, progress: Progress | None = None) -> None:
        """Look at the processes and threads of `machine` that `selection` selects.

        `progress`, if given, is called with a percentage and a text.
        """
        self.machine = machine
        self._reader = ProcessReader(machine)
        self._reporters = Reporters(machine, self._reader)
        self._stops = StoppedThreads(machine, self._reader)
        self.record = SurveyRecord()
        """The counts of what was examined, and the reasons why a stuck thread may have been missed."""
        self._selection = selection
        self._sound = SoundStacks()  # of all processes
        self._progress = progress
        self._missed: list[str] = []
        self._impaired: dict[int, None] = {}
        self.asked = AskedFor(selection.pids, selection.tids, selection.names)
        self._defective: set[int] = set()
        self._failed = False
        """Whether the process opened last could not be examined. If so, the reason has already been logged."""

    @property
    def sides(self) -> Sides:
        """Return the selected sides of WoW64 processes."""
        return self._selection.sides

    @property
    def reader(self) -> ProcessReader:
        """Return the reader of the machine's processes."""
        return self._reader

    def processes(self) -> Iterator[Process]:
        """Yield the selected processes that have user-mode memory; log which selected PIDs have none or are absent."""
        for _, process in self.opened():
            if process is not None:
                yield process

    def opened(self) -> Iterator[tuple[interfaces.objects.ObjectInterface, Process | None]]:
        """Yield (EPROCESS, process) for every selected process; the second is None if it has no user-mode memory.

        The second is also None if the process cannot be examined. At the end, failed reads of the image and of page
        files are logged.
        """
        try:
            yield from self._opened()
        finally:
            self.say_read_problems()

    def say_read_problems(self) -> None:
        """Log how many reads of the image and of page files failed, if any did."""
        for problem in self.machine.read_problems:
            self._warn(WarningCode.READ, problem)

    def _opened(self) -> Iterator[tuple[interfaces.objects.ObjectInterface, Process | None]]:
        impaired: list[Process] = []
        listed = list(self._listed())
        for index, item in enumerate(listed):
            process = self.open(item)
            if process is None:
                self._say_why_not_opened(item)
                yield item, None
                continue
            if self._progress is not None:
                self._progress(100.0 * index / len(listed), f"Examining {escape(process.name)} ({process.pid})")
            self.record.count(processes=1)
            for problem in process.problems:
                log.info("%s (PID %d): %s", escape(process.name), process.pid, problem)
                self.record.warn(WarningCode.PROCESS, problem, pid=process.pid)
            if process.problems:
                impaired.append(process)
            yield item, process
        if self._progress is not None:
            self._progress(100.0, "")
        if impaired:
            first, count = impaired[0], len(impaired)
            which = "1 process" if count == 1 else f"{count} processes"
            log.warning(
                "%s could be read only in part, and a stuck thread may be missed%s: %s (PID %d): %s (-v names all)",
                *(which, "" if count == 1 else "; the first", escape(first.name), first.pid, first.problems[0]),
            )

    def findings(self, sides: Sides | None = None) -> Iterator[Finding]:
        """Yield every selected thread that is stuck; log why others may have been missed, and which TIDs do not exist.

        `sides` selects the code of WoW64 processes to look at. If it is None, the selection of the survey applies.
        """
        seen: set[int] = set()
        self._missed.clear()
        self._impaired.clear()
        for process in self.processes():
            seen.update(thread.tid for thread in process.threads)
            self.asked.may_be_stuck(seen if process.problems else ())
            yield from self._examine(process, self.sides if sides is None else sides)
        self.say_missing(seen)
        for text in self.asked.not_stuck(seen):
            log.warning("%s", text)
        if self._missed:
            log.warning(
                "stuck threads may have been missed: %s (the first of %d such reasons%s; -v names all)",
                *(self._missed[0], len(self._missed), _named(list(self._impaired)[1:])),
            )

    def is_selected(self, thread: Thread) -> bool:
        """Say whether `thread`, a thread of a selected process, is selected. A thread that has ended is not."""
        return not thread.is_terminated and self.asked.thread(thread.tid)

    def say_missing(self, seen: Collection[int]) -> None:
        """Log a warning for each selected TID that is not in `seen`."""
        for tid, text in self.asked.absent_threads(seen):
            self._warn(WarningCode.NOT_FOUND, text, tid=tid)

    def _listed(self) -> Iterator[interfaces.objects.ObjectInterface]:
        asked = self.asked
        asked.forget()
        has_names = asked.has_names and self.machine.layout.find("_EPROCESS.ImageFileName") is not None
        for item in guarded(self._list_breaks_off).each(self.machine.processes()):
            is_wanted = False
            with self._guard_of(item):
                name = utility.array_to_string(item.ImageFileName) if has_names else ""
                is_wanted = asked.process(int(item.UniqueProcessId), name)
            if is_wanted:
                yield item
        if not asked.has_seen_any:
            self._warn(
                WarningCode.PROCESS_LIST,
                "the kernel's list of processes is not readable: this dump is truncated or damaged, or not of the "
                "system whose symbols were found",
            )
            return
        with guarded(self._list_breaks_off):
            if not self.machine.has_all_processes:
                self._warn(WarningCode.PROCESS_LIST, "the kernel's list of processes is broken: some may be missing")
        for pid, text in asked.absent_processes():
            self._warn(WarningCode.NOT_FOUND, text, pid=pid)

    def open(self, item: interfaces.objects.ObjectInterface) -> Process | None:
        """Return the process of an EPROCESS, or None if it has no user-mode memory or cannot be examined."""
        with self._guard_of(item):
            return self._reader.open(item)
        return None

    def _say_why_not_opened(self, item: interfaces.objects.ObjectInterface) -> None:
        """Log why a process was not opened, unless that has been logged already.

        Processes such as System have no user-mode memory: they have no PEB, and their threads have no TEBs. If a
        process has no PEB but has threads with TEBs, its EPROCESS is damaged, and stuck threads in it are lost.
        """
        if self._failed:
            self._failed = False
            return
        with self._guard_of(item):
            pid, lost = int(item.UniqueProcessId), self._reader.threads_without_peb(item)
            if lost:
                reason = f"it has no PEB, but {lost} threads with user-mode stacks"
                log.warning("%s cannot be examined: %s", self._reader.describe(item), reason)
                self.record.not_examined(reason, pid=pid, name=self._reader.identity(self._address(item))[0])
            elif self.asked.has_pids:
                text = f"of the process with PID {pid} there is no user-mode memory to look at"
                self._warn(WarningCode.NOT_FOUND, text, pid=pid)

    def _address(self, item: interfaces.objects.ObjectInterface) -> int:
        return self.machine.canonical(item.vol.offset)

    def _guard_of(self, item: interfaces.objects.ObjectInterface) -> Guard:
        """Return a guard for code that reads an EPROCESS; if it fails, the process is recorded as not examined."""

        def say(reason: str) -> None:
            self._failed = True
            log.warning("%s cannot be examined: %s", self._reader.describe(item), reason)
            try:
                name, pid = self._reader.identity(self._address(item))
            except MemoryUnreadable:
                name, pid = "", None
            self.record.not_examined(reason, pid=pid, name=name)

        return guarded(say)

    def _list_breaks_off(self, reason: str) -> None:
        what = "the kernel's list of processes breaks off, and some may be missing"
        self._warn(WarningCode.PROCESS_LIST, f"{what}: {reason}")

    def _warn(self, code: WarningCode, text: str, *, pid: int | None = None, tid: int | None = None) -> None:
        log.warning("%s", text)
        self.record.warn(code, text, pid=pid, tid=tid)

    def _examine(self, process: Process, sides: Sides) -> Iterator[Finding]:
        triages = self._triages(process, sides)
        for thread in process.threads:
            if not self.is_selected(thread):
                continue
            self.record.count(threads=1)
            finding = self._finding(process, thread, triages)
            if finding is not None:
                yield finding

    def _triages(self, process: Process, sides: Sides) -> list[tuple[Side, Triage]]:
        """Return a `Triage`, which examines threads, for each selected side of `process`."""
        triages: list[tuple[Side, Triage]] = []
        nameless: dict[str, None] = {}
        reasons: dict[str, None] = {}
        for side, target in process.selected(sides):
            with self._guard(process, WarningCode.PROCESS, f"none of its {side.value} stacks can be examined: "):
                triage = Triage(target, handled=self._selection.handled, sound=self._sound)
                triages.append((side, triage))
                nameless.update(dict.fromkeys(triage.missing_names[0]))
                reasons.update(dict.fromkeys(triage.missing_names[1]))
        for label in nameless:
            self._miss(
                process,
                WarningCode.MISSING_NAMES,
                f"no function of {label} has a name, and crashed threads wait there (--image-path may help)",
            )
        for reason in reasons:
            self._miss(process, WarningCode.MISSING_NAMES, reason)
        return triages

    def _finding(self, process: Process, thread: Thread, triages: Sequence[tuple[Side, Triage]]) -> Finding | None:
        found: list[Finding] = []
        for side, triage in triages:
            with self._guard(process, WarningCode.THREAD, "", thread):
                if (stuck := self._stuck(process, thread, side, triage)) is not None:
                    found.append(Finding(process, thread, side, stuck, self._reporters.note(process.pid)))
        if not found:
            return None
        self.asked.may_be_stuck([thread.tid])
        return the_crash(found)

    def _guard(self, process: Process, code: WarningCode, what: str, thread: Thread | None = None) -> Guard:
        """Return a guard for code that examines a part of a process.

        If the code fails, the reason is recorded as one why a stuck thread may have been missed. `what` is put before
        the reason.
        """

        def say(reason: str) -> None:
            self._miss(process, code, what + reason, thread)
            if reason.startswith(UNEXPECTED) and process.address not in self._defective:
                # The summary names the first of all reasons, mostly pages that are not there. This one is another kind.
                self._defective.add(process.address)
                log.warning("stuck threads may have been missed: %s", self._missed[-1])

        return guarded(say)

    def _stuck(self, process: Process, thread: Thread, side: Side, triage: Triage) -> StuckThread | None:
        try:
            stack = self._reader.stack(process, thread, side)
            found = triage.examine(stack, partial(self._reader.completed, thread))
            for reason in found.doubts:
                code = WarningCode.STACK if reason == UNREAD_STACK else WarningCode.THREAD
                self._miss(process, code, reason, thread)
        except NoStack as reason:
            if thread.teb:
                self._miss(process, WarningCode.STACK, str(reason), thread)
        except MemoryUnreadable as reason:
            self._miss(process, WarningCode.STACK, str(reason), thread)
        else:
            return found.stuck or self._stopped(process, thread, stack, triage)
        return None

    def _stopped(self, process: Process, thread: Thread, stack: ThreadStack, triage: Triage) -> StuckThread | None:
        """Return the thread as a stuck one if an exception has stopped it in the kernel; else None."""
        with guarded(lambda reason: log.info("thread %d: what it waits for in the kernel: %s", thread.tid, reason)):
            record = self._stops.exception(process, thread, stack)
            if record is not None:
                return triage.stopped(self._reader.completed(thread, stack), record, ("nt", FORWARDS))
        return None

    def _miss(self, process: Process, code: WarningCode, reason: str, thread: Thread | None = None) -> None:
        """Record why a stuck thread of `process` may have been missed.

        The reason is logged at level INFO only: if much of the memory is paged out, a warning for each would hide the
        results.
        """
        self.asked.may_be_stuck(one.tid for one in (process.threads if thread is None else (thread,)))
        self.record.warn(code, reason, pid=process.pid, tid=None if thread is None else thread.tid)
        self._impaired[process.pid] = None
        where = "" if thread is None else f"thread {thread.tid}: "
        self._missed.append(f"{escape(process.name)} (PID {process.pid}): {escape(where + reason)}")
        log.info("%s", self._missed[-1])


def _named(pids: Sequence[int]) -> str:
    """Return `, others of PID 4, 8`, with at most 512 PIDs so that the line stays readable."""
    if not pids:
        return ""
    more = f" and {len(pids) - _MAX_NAMED} more" if len(pids) > _MAX_NAMED else ""
    return f", others of PID {', '.join(map(str, pids[:_MAX_NAMED]))}{more}"


def the_crash(sides: Sequence[Finding]) -> Finding:
    """Return the finding to report for a thread that is stuck on one or both sides of a WoW64 process.

    `sides` are the findings for the thread, the native one first. A fault in 32-bit code also leaves a 64-bit CONTEXT
    on the 64-bit stack, where the 64-bit dispatcher passed the exception on to the 32-bit one. So two findings are one
    crash, and the 32-bit one is reported. The 64-bit finding is reported only if it has an exception and the 32-bit one
    has none: then 64-bit code threw. The other finding is mentioned in `other_side`.
    """
    native, last = sides[0], sides[-1]
    if native is last:
        return native
    chosen, other = (native, last) if native.stuck.exceptions and not last.stuck.exceptions else (last, native)
    where = ", ".join(BlockerReport(*pair).name for pair in other.stuck.blocked_in)
    note = f"stuck on the {'64' if other is native else '32'}-bit side too, in {where}"
    return replace(chosen, other_side=note)
