# SPDX-License-Identifier: Apache-2.0
"""Reports on every selected thread: its facts, its whole stack, what it waits for, and which threads own that."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from volatility3.framework import interfaces

from throwstack.core.sides import Side
from throwstack.core.text import escape
from throwstack.names.symbols import Name
from throwstack.stuck.locks import Locks, LockWait
from throwstack.stuck.wait_cycles import WaitCycles
from throwstack.volatility.memory.guarded import guarded
from throwstack.volatility.objects.thread_facts import NOTHING_KNOWN, ThreadFacts, ThreadFactsReader
from throwstack.volatility.objects.threads import Thread
from throwstack.volatility.objects.wait_objects import ThreadId, Wait, WaitReader
from throwstack.volatility.processes import Process
from throwstack.volatility.survey import Survey
from throwstack.volatility.thread_walks import StackPart, ThreadWalker

log = logging.getLogger(__name__)

_KEPT_PROCESSES = 8


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that threads belong to; `process` is None if it has no user-mode memory (System)."""

    address: int
    pid: int
    name: str
    process: Process | None
    threads: tuple[Thread, ...] = field(repr=False)
    by_tid: Mapping[int, Thread] = field(init=False, repr=False)
    by_address: Mapping[int, Thread] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # Asked for each thread: as properties they would make the run's time grow with the square of the threads.
        object.__setattr__(self, "by_tid", {thread.tid: thread for thread in reversed(self.threads)})
        object.__setattr__(self, "by_address", {thread.address: thread for thread in self.threads})

    @property
    def problems(self) -> tuple[str, ...]:
        """Return what went wrong when the process was opened."""
        return () if self.process is None else self.process.problems


@dataclass(frozen=True, slots=True)
class Blockage:
    """What a thread waits for.

    `wait` are the kernel objects, and `lock` is a user-mode lock such as a critical section. `holders` are the threads
    that have to act before the wait can end.
    """

    facts: ThreadFacts
    wait: Wait = field(default_factory=Wait)
    lock: LockWait | None = None
    holders: tuple[ThreadId, ...] = ()


@dataclass(frozen=True, slots=True)
class ThreadReport:
    """A report on a thread.

    `sides` are the parts of its stack. `cycle` is the deadlock that the thread is in or waits behind, empty if there is
    none. `start` and `win32_start` are the names of its start addresses. `problem` says why parts are missing.
    """

    owner: Owner
    thread: Thread
    blockage: Blockage
    sides: tuple[StackPart, ...] = ()
    cycle: tuple[ThreadId, ...] = ()
    start: Name | None = None
    win32_start: Name | None = None
    problem: str = ""


class ThreadSurvey:
    """Makes the reports on the threads that a survey selects."""

    def __init__(self, survey: Survey) -> None:
        """Keep `survey`, which selects the processes, the threads, and the code of WoW64 processes to walk."""
        self._survey = survey
        machine = survey.machine
        self._machine = machine
        self._facts = ThreadFactsReader(machine)
        self._waits = WaitReader(machine)
        self._walker = ThreadWalker(machine, survey.reader, survey.sides)
        # A WoW64 program waits for a critical section on its 32-bit stack, also where only the native one is shown.
        self._lock_walker = (
            self._walker if Side.X86 in survey.sides else ThreadWalker(machine, survey.reader, frozenset({Side.X86}))
        )
        self._owners: dict[int, Owner | None] = {}
        self._blockages: dict[int, Blockage] = {}
        self._cycles = WaitCycles(self._holders)

    def reports(self) -> Iterator[ThreadReport]:
        """Yield a report for each selected thread, and log which selected TIDs do not exist."""
        seen: set[int] = set()
        for item, process in self._survey.opened():
            owner = self._owner(item, process)
            if owner is None:
                continue
            self._keep(owner.pid, owner)
            seen.update(thread.tid for thread in owner.threads)
            for thread in owner.threads:
                if self._survey.is_selected(thread):
                    yield self._report(owner, thread)
        self._survey.say_missing(seen)

    def deadlocked(self) -> Iterator[ThreadReport]:
        """Yield the reports on those selected threads that are in a deadlock or wait for the end of one.

        Only they are walked in the kernel, and have their frames named.
        """
        for item, process in self._survey.opened():
            owner = self._owner(item, process)
            if owner is None:
                continue
            self._keep(owner.pid, owner)
            for thread in owner.threads:
                if self._survey.is_selected(thread) and self._is_deadlocked(owner, thread):
                    yield self._report(owner, thread)

    def _is_deadlocked(self, owner: Owner, thread: Thread) -> bool:
        with guarded(lambda reason: log.info("what thread %d waits for is not known: %s", thread.tid, reason)):
            if self._blockage(owner, thread).holders:
                return bool(self._cycles.of(ThreadId(owner.pid, thread.tid, thread.address)))
        return False

    def report(self, process: Process, thread: Thread) -> ThreadReport:
        """Return the report on a thread of `process`, selected or not."""
        owner = self._owners.get(process.pid)
        if owner is None or owner.process is not process:
            owner = Owner(process.address, process.pid, process.name, process, process.threads)
            self._keep(process.pid, owner)
        return self._report(owner, thread)

    def _owner(self, item: interfaces.objects.ObjectInterface, process: Process | None) -> Owner | None:
        if process is not None:
            return Owner(process.address, process.pid, process.name, process, process.threads)
        reader = self._survey.reader
        with guarded(lambda reason: log.warning("%s cannot be examined: %s", reader.describe(item), reason)):
            address = self._machine.canonical(item.vol.offset)
            name, pid = reader.identity(address)
            return Owner(address, pid, name, None, tuple(reader.threads.threads(address)))
        return None

    def _report(self, owner: Owner, thread: Thread) -> ThreadReport:
        """Return the report on a thread; parts that cannot be found out are missing, and `problem` says why."""
        problems: list[str] = []

        def note(reason: str) -> None:
            log.warning("%s (PID %d) thread %d: %s", escape(owner.name), owner.pid, thread.tid, reason)
            problems.append(reason)

        facts = NOTHING_KNOWN
        with guarded(note):
            facts = self._facts.read(thread.address)
        sides: list[StackPart] = []
        blockage = Blockage(facts)
        deadlock: tuple[ThreadId, ...] = ()
        start: Name | None = None
        win32_start: Name | None = None
        with guarded(note):
            sides.extend(self._walker.sides(owner.process, thread, facts))
        with guarded(note):
            blockage = self._blockage(owner, thread, tuple(sides))
            if blockage.holders:
                deadlock = self._cycles.of(ThreadId(owner.pid, thread.tid, thread.address))
        with guarded(note):
            start = self._name(owner, facts.start)
            win32_start = self._name(owner, facts.win32_start)
        return ThreadReport(owner, thread, blockage, tuple(sides), deadlock, start, win32_start, "; ".join(problems))

    def _blockage(self, owner: Owner, thread: Thread, sides: tuple[StackPart, ...] | None = None) -> Blockage:
        found = self._blockages.get(thread.address)
        if found is not None:
            return found
        facts = self._facts.read(thread.address)
        if not facts.is_waiting:
            return self._blockages.setdefault(thread.address, Blockage(facts))
        wait = self._waits.read(thread.address)
        if sides is None or self._lock_walker is not self._walker:
            sides = tuple(self._lock_walker.user_sides(owner.process, thread, facts))
        lock = self._lock(owner, thread, sides)
        holders = wait.holders
        if lock is not None:
            held_by = None if lock.owner is None else owner.by_tid.get(lock.owner)
            # The object is the section's event, which has no owner of its own.
            holders = () if held_by is None else (ThreadId(owner.pid, held_by.tid, held_by.address),)
        return self._blockages.setdefault(thread.address, Blockage(facts, wait, lock, holders))

    def _lock(self, owner: Owner, thread: Thread, sides: tuple[StackPart, ...]) -> LockWait | None:
        process = owner.process
        if process is None:
            return None
        target = process.program
        frames = next((side.frames for side in sides if side.target is target), ())
        if not frames:
            return None
        return Locks(target, owner.by_tid.keys()).wait(frames, thread.tid)

    def _holders(self, identity: ThreadId) -> tuple[ThreadId, ...]:
        """Return the threads that have to act before the wait of a thread, of any process, can end."""
        owner = self._owner_of(identity.pid)
        if owner is None:
            return ()
        thread = owner.by_address.get(identity.address)
        if thread is None or thread.is_terminated:
            return ()
        with guarded(lambda reason: log.info("what thread %s waits for is not known: %s", identity, reason)):
            return self._blockage(owner, thread).holders
        return ()

    def _owner_of(self, pid: int) -> Owner | None:
        if pid not in self._owners:
            item = self._items.get(pid)
            process = None if item is None else self._survey.open(item)
            self._keep(pid, None if item is None else self._owner(item, process))
        return self._owners[pid]

    def _keep(self, pid: int, owner: Owner | None) -> None:
        """Keep a process; forget the process kept longest if there are more than eight, because each caches pages."""
        self._owners[pid] = owner
        while len(self._owners) > _KEPT_PROCESSES:
            del self._owners[next(iter(self._owners))]

    @cached_property
    def _items(self) -> dict[int, interfaces.objects.ObjectInterface]:
        """Return all processes by PID, because a deadlock may include threads of processes that are not selected."""
        found: dict[int, interfaces.objects.ObjectInterface] = {}
        guard = guarded(lambda reason: log.info("a process that may be part of a deadlock: %s", reason))
        for item in guard.each(self._machine.processes()):
            with guard:
                found.setdefault(int(item.UniqueProcessId), item)
        return found

    def _name(self, owner: Owner, address: int | None) -> Name | None:
        """Name a start address in user code (64-bit or 32-bit) or in the kernel."""
        if not address:
            return None
        process = owner.process
        targets = [] if process is None else list(process.sides.values())
        targets.append(self._walker.kernel_target(process))
        names = [target.symbols.name(address) for target in targets]
        return next((name for name in names if name.module), names[0])
