# SPDX-License-Identifier: Apache-2.0
"""What a thread waits for: its wait blocks, the dispatcher objects they lead to, and who has them.

Up to Windows 7 the KWAIT_BLOCKs are a ring (NextWaitBlock); from 8 on they are an array of WaitBlockCount, at
KTHREAD.WaitBlockList, and the thread's timer, which ends a wait with a timeout, is no longer among them. Each points
to an object that begins with a DISPATCHER_HEADER, whose Type says what it is; only objects of the object manager have
an OBJECT_HEADER before them, and only they can have a name.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass

from throwstack.core.errors import ThrowstackError
from throwstack.core.memory import MemoryUnreadable
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.objects.object_headers import ObjectHeaders

_MAX_OBJECTS = 65
"""MAXIMUM_WAIT_OBJECTS, and the timer of the timeout."""
_LOCK_BIT = 0x80
_MUTANT, _PROCESS, _SEMAPHORE, _THREAD = 2, 3, 5, 6
_TIMERS = (8, 9)
_QUEUES = (4, 21)
_TYPES = {
    0: "NotificationEvent",
    1: "SynchronizationEvent",
    2: "Mutant",
    3: "Process",
    4: "Queue",
    5: "Semaphore",
    6: "Thread",
    7: "Gate",
    8: "NotificationTimer",
    9: "SynchronizationTimer",
    21: "Queue",
    24: "Timer2NotificationObject",
    25: "Timer2SynchronizationObject",
}
"""KOBJECTS, in the words of debuggers; 21 is the priority queue that took over from 4 in Windows 10, 24 and 25 are the
timers (KTIMER2) of 8.1 and later.
"""
_OBJECT_TYPES = {0: "Event", 1: "Event", 2: "Mutant", 3: "Process", 5: "Semaphore", 6: "Thread", 8: "Timer", 9: "Timer"}
_WAIT_ALL = 0


@dataclass(frozen=True, slots=True)
class ThreadId:
    """A thread by its ids and the address of its ETHREAD."""

    pid: int
    tid: int
    address: int

    def __str__(self) -> str:
        return f"{self.pid}:{self.tid}"


@dataclass(frozen=True, slots=True)
class WaitObject:
    """An object that a thread waits for. `holder` is the thread that has to act: a mutex's owner, a thread's end.

    `is_timeout` marks the thread's own timer, which ends the wait.
    """

    address: int
    type_name: str
    name: str = ""
    detail: str = ""
    holder: ThreadId | None = None
    is_timeout: bool = False

    def __str__(self) -> str:
        """Return it in a line: address, type, name in quotes, and what its kind tells."""
        parts = [f"{self.address:08x}", self.type_name]
        if self.name:
            parts.append(f'"{self.name}"')
        if self.detail:
            parts.append(self.detail)
        return " ".join(parts)


@dataclass(frozen=True, slots=True)
class Wait:
    """What a thread waits for, in the order of its wait blocks; `problem` says why there may be more."""

    objects: tuple[WaitObject, ...] = ()
    is_for_all: bool = False
    problem: str = ""

    @property
    def holders(self) -> tuple[ThreadId, ...]:
        """The threads without which the wait cannot end: none where it may end by another object or by time."""
        waited = [item for item in self.objects if not item.is_timeout]
        if len(waited) < len(self.objects) or (len(waited) > 1 and not self.is_for_all):
            return ()
        return tuple(item.holder for item in waited if item.holder is not None)


class WaitReader:
    """Reads the waits of threads; the offsets are looked up once."""

    def __init__(self, machine: Machine) -> None:
        """Take offsets from the layout of `machine`."""
        self._machine = machine
        self._headers = ObjectHeaders(machine)
        find, member = machine.layout.find, machine.layout.member
        self._list = find("_ETHREAD.Tcb.WaitBlockList")
        self._own_timer = find("_ETHREAD.Tcb.Timer")
        self._inserted = member("_KTIMER.Header.Inserted")
        self._count = member("_ETHREAD.Tcb.WaitBlockCount")
        self._object = find("_KWAIT_BLOCK.Object")
        self._next = find("_KWAIT_BLOCK.NextWaitBlock")
        self._block_size = machine.layout.size("_KWAIT_BLOCK") if machine.layout.has_type("_KWAIT_BLOCK") else 0
        self._wait_type = member("_KWAIT_BLOCK.WaitType")
        self._signal = machine.layout.find("_DISPATCHER_HEADER.SignalState") or 4
        self._owner = find("_KMUTANT.OwnerThread")
        self._abandoned = member("_KMUTANT.Abandoned")
        self._limit = find("_KSEMAPHORE.Limit")
        self._due = find("_KTIMER.DueTime")
        self._thread_ids = (find("_ETHREAD.Cid.UniqueProcess"), find("_ETHREAD.Cid.UniqueThread"))
        self._pid, self._name = find("_EPROCESS.UniqueProcessId"), find("_EPROCESS.ImageFileName")

    def read(self, thread: int) -> Wait:
        """Return what the waiting thread whose ETHREAD is at `thread` waits for."""
        objects: list[WaitObject] = []
        wait_types: set[int] = set()
        try:
            for block, address in self._blocks(thread):
                if self._wait_type is not None:
                    wait_types.add(self._wait_type.read(self._machine.memory, block))
                objects.append(self._describe(address, thread))
            if self._own_timer is not None and self._times_out(thread + self._own_timer):
                objects.append(self._describe(thread + self._own_timer, thread))
        except (MemoryUnreadable, _Broken) as error:
            return Wait(tuple(objects), _is_for_all(wait_types), f"wait blocks break off: {error}")
        return Wait(tuple(objects), _is_for_all(wait_types))

    def _times_out(self, timer: int) -> bool:
        """Say whether the thread's `timer` runs where no wait block would show it."""
        if self._next is not None or self._inserted is None:
            return False
        return bool(self._inserted.read(self._machine.memory, timer))

    def _blocks(self, thread: int) -> Iterator[tuple[int, int]]:
        """Yield (wait block, object) of each wait block."""
        machine, memory = self._machine, self._machine.memory
        if self._list is None or self._object is None:
            return
        first = machine.pointer(memory, thread + self._list)
        if not first:
            return
        if self._next is None:
            count = self._count.read(memory, thread) if self._count is not None else 0
            if count > _MAX_OBJECTS:
                message = f"WaitBlockCount is {count}"
                raise _Broken(message)
            for index in range(count):
                block = first + index * self._block_size
                yield block, machine.pointer(memory, block + self._object)
            return
        block, seen = first, set[int]()
        while block not in seen:
            if len(seen) == _MAX_OBJECTS:
                message = f"more than {_MAX_OBJECTS} of them"
                raise _Broken(message)
            seen.add(block)
            yield block, machine.pointer(memory, block + self._object)
            block = machine.pointer(memory, block + self._next)
        if block != first:
            message = f"they loop without coming back to the first ({block:#x})"
            raise _Broken(message)

    def _describe(self, address: int, thread: int) -> WaitObject:
        memory = self._machine.memory
        try:
            kind = memory.u8(address) & ~_LOCK_BIT
            signal = _signed(memory.u32(address + self._signal))
        except MemoryUnreadable:
            return WaitObject(address, "unreadable object")
        type_name = _TYPES.get(kind, f"object of type {kind}")
        is_timeout = self._own_timer is not None and address == thread + self._own_timer
        holder: ThreadId | None = None
        try:
            name = self._headers.name(address, _OBJECT_TYPES.get(kind, "")) if not is_timeout else ""
            detail, holder = self._detail(kind, address, signal)
        except MemoryUnreadable:
            name, detail = "", "not readable"
        return WaitObject(address, type_name, name, detail, holder, is_timeout)

    def _detail(self, kind: int, address: int, signal: int) -> tuple[str, ThreadId | None]:
        if kind == _MUTANT and self._owner is not None:
            return self._owned(address, self._owner)
        if kind == _THREAD:
            holder = self.thread_id(address)
            return ("" if holder is None else str(holder)), holder
        return self._state(kind, address, signal), None

    def _owned(self, address: int, owner_at: int) -> tuple[str, ThreadId | None]:
        memory = self._machine.memory
        owner = self._machine.pointer(memory, address + owner_at) & -8
        if not owner:
            is_abandoned = self._abandoned is not None and self._abandoned.read(memory, address)
            return ("abandoned" if is_abandoned else "not owned"), None
        holder = self.thread_id(owner)
        return (f"owned by thread at {owner:#x}" if holder is None else f"owned by {holder}"), holder

    def _state(self, kind: int, address: int, signal: int) -> str:
        machine, memory = self._machine, self._machine.memory
        if kind == _PROCESS and self._pid is not None and self._name is not None:
            pid = machine.pointer(memory, address + self._pid)
            raw = memory.read(address + self._name, 15).split(b"\0", 1)[0]
            return f"{pid} {raw.decode('latin-1')}".rstrip()
        if kind == _SEMAPHORE and self._limit is not None:
            return f"count {signal} of {_signed(memory.u32(address + self._limit))}"
        if kind in _QUEUES:
            return f"{signal} entries"
        if kind in _TIMERS and self._due is not None:
            return self._due_in(memory.u64(address + self._due))
        return "signalled" if signal > 0 else ""

    def _due_in(self, due: int) -> str:
        """Return when a timer is due. DueTime counts 100 ns from boot, as KUSER_SHARED_DATA.InterruptTime does."""
        clock = self._machine.clock
        if clock is None or not clock.interrupt_time:
            return ""
        microseconds = (due - clock.interrupt_time) // 10
        try:
            distance = datetime.timedelta(microseconds=abs(microseconds))
        except OverflowError:
            return "never due"
        return f"due in {duration(distance)}" if microseconds >= 0 else f"was due {duration(distance)} ago"

    def thread_id(self, address: int) -> ThreadId | None:
        """Return the ids of the ETHREAD at `address`, or None if there is none: its dispatcher header must fit."""
        machine, memory = self._machine, self._machine.memory
        pid, tid = self._thread_ids
        if pid is None or tid is None:
            return None
        try:
            if memory.u8(address) & ~_LOCK_BIT != _THREAD:
                return None
            return ThreadId(machine.pointer(memory, address + pid), machine.pointer(memory, address + tid), address)
        except MemoryUnreadable:
            return None


class _Broken(ThrowstackError):
    """The wait blocks make no sense; the message says how."""


def _is_for_all(wait_types: set[int]) -> bool:
    return wait_types == {_WAIT_ALL}


def _signed(value: int) -> int:
    return value if value < 1 << 31 else value - (1 << 32)


def duration(value: datetime.timedelta) -> str:
    """Return a length of time as debuggers print it: `0:00:00.312`, with days before it where there are any."""
    milliseconds = value // datetime.timedelta(milliseconds=1)
    seconds, milliseconds = divmod(milliseconds, 1000)
    hours, rest = divmod(seconds, 3600)
    days, hours = divmod(hours, 24)
    head = f"{days} days " if days else ""
    return f"{head}{hours}:{rest // 60:02}:{rest % 60:02}.{milliseconds:03}"
