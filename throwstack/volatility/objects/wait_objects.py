# SPDX-License-Identifier: Apache-2.0
"""Finds the dispatcher objects that a thread waits for, by its wait blocks, and the threads that own these objects.

A waiting thread has a KWAIT_BLOCK for each object that it waits for. Up to Windows 7, the wait blocks are a ring,
linked by NextWaitBlock; if the wait has a timeout, one of them points to the thread's own timer. Since Windows 8, they
are an array of WaitBlockCount elements at KTHREAD.WaitBlockList, and none of them is for the timer. Then the wait has a
timeout if the timer is active.

An object begins with a DISPATCHER_HEADER, whose Type says what kind of object it is. Objects of the object manager have
an OBJECT_HEADER before them, and only they can have a name.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass

from throwstack.core.errors import ThrowstackError
from throwstack.core.memory import MemoryUnreadable
from throwstack.core.text import in_quotes
from throwstack.volatility.memory.layout import Member
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.memory.offsets import member, offset, size, take
from throwstack.volatility.objects.object_headers import ObjectHeaders

_MAX_OBJECTS = 65
"""MAXIMUM_WAIT_OBJECTS (64), plus one for the timer of the timeout."""
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
"""The kinds of dispatcher objects (KOBJECTS), in the words of debuggers.

21 is the priority queue, which replaced 4 in Windows 10. 24 and 25 are the timers (KTIMER2) of 8.1 and later.
"""
_OBJECT_TYPES = {0: "Event", 1: "Event", 2: "Mutant", 3: "Process", 5: "Semaphore", 6: "Thread", 8: "Timer", 9: "Timer"}
_WAIT_ALL = 0


@dataclass(frozen=True, slots=True)
class ThreadId:
    """A thread, identified by its PID, its TID, and the address of its ETHREAD."""

    pid: int
    tid: int
    address: int

    def __str__(self) -> str:
        return f"{self.pid}:{self.tid}"


@dataclass(frozen=True, slots=True)
class WaitObject:
    """An object that a thread waits for.

    `holder` is the thread that has to act before the wait can end: the owner of a mutex, or the thread whose end is
    waited for. `is_timeout` is true if the object is the thread's own timer, whose expiry is the wait's timeout.
    """

    address: int
    type_name: str
    name: str = ""
    detail: str = ""
    holder: ThreadId | None = None
    is_timeout: bool = False

    def __str__(self) -> str:
        """Return one line: address, type, name in quotes, and detail."""
        parts = [f"{self.address:08x}", self.type_name]
        if self.name:
            parts.append(in_quotes(self.name))
        if self.detail:
            parts.append(self.detail)
        return " ".join(parts)


@dataclass(frozen=True, slots=True)
class Wait:
    """The objects that a thread waits for, in the order of its wait blocks; `problem` says why some may be missing.

    `is_for_all` is true if the wait ends only when all objects are signalled.
    """

    objects: tuple[WaitObject, ...] = ()
    is_for_all: bool = False
    problem: str = ""

    @property
    def holders(self) -> tuple[ThreadId, ...]:
        """Return the threads that have to act before the wait can end; none if something else can end the wait.

        Something else is another object, if the wait is not for all objects, or a timeout.
        """
        waited = [item for item in self.objects if not item.is_timeout]
        if len(waited) < len(self.objects) or (len(waited) > 1 and not self.is_for_all):
            return ()
        return tuple(item.holder for item in waited if item.holder is not None)


@dataclass(frozen=True, slots=True)
class _Offsets:
    wait_blocks: int | None = offset("_ETHREAD.Tcb.WaitBlockList", optional=True)
    count: Member | None = member("_ETHREAD.Tcb.WaitBlockCount", optional=True)
    timer: int | None = offset("_ETHREAD.Tcb.Timer", optional=True)
    timer_inserted: Member | None = member("_KTIMER.Header.Inserted", optional=True)
    due: int | None = offset("_KTIMER.DueTime", optional=True)
    block_object: int | None = offset("_KWAIT_BLOCK.Object", optional=True)
    next_block: int | None = offset("_KWAIT_BLOCK.NextWaitBlock", optional=True)
    block_size: int | None = size("_KWAIT_BLOCK", optional=True)
    wait_type: Member | None = member("_KWAIT_BLOCK.WaitType", optional=True)
    signal: int | None = offset("_DISPATCHER_HEADER.SignalState", optional=True)
    owner: int | None = offset("_KMUTANT.OwnerThread", optional=True)
    abandoned: Member | None = member("_KMUTANT.Abandoned", optional=True)
    limit: int | None = offset("_KSEMAPHORE.Limit", optional=True)
    pid_of_thread: int | None = offset("_ETHREAD.Cid.UniqueProcess", optional=True)
    tid: int | None = offset("_ETHREAD.Cid.UniqueThread", optional=True)
    pid: int | None = offset("_EPROCESS.UniqueProcessId", optional=True)
    image_name: int | None = offset("_EPROCESS.ImageFileName", optional=True)


class WaitReader:
    """Reads the objects that the threads of a machine wait for."""

    def __init__(self, machine: Machine) -> None:
        """Look up the offsets of the structures to read in the symbols of `machine`."""
        self._machine = machine
        self._headers = ObjectHeaders(machine)
        self._offsets = take(_Offsets, machine.layout)

    def read(self, thread: int) -> Wait:
        """Return the objects that the waiting thread whose ETHREAD is at `thread` waits for."""
        objects: list[WaitObject] = []
        wait_types: set[int] = set()
        wait_type, timer = self._offsets.wait_type, self._offsets.timer
        try:
            for block, address in self._blocks(thread):
                if wait_type is not None:
                    wait_types.add(wait_type.read(self._machine.memory, block))
                objects.append(self._describe(address, thread))
            if timer is not None and self._times_out(thread + timer):
                objects.append(self._describe(thread + timer, thread))
        except (MemoryUnreadable, _Broken) as error:
            return Wait(tuple(objects), _is_for_all(wait_types), f"wait blocks break off: {error}")
        return Wait(tuple(objects), _is_for_all(wait_types))

    def _times_out(self, timer: int) -> bool:
        """Say whether the thread's `timer` is active and no wait block can say so (since Windows 8)."""
        offsets = self._offsets
        if offsets.next_block is not None or offsets.timer_inserted is None:
            return False
        return bool(offsets.timer_inserted.read(self._machine.memory, timer))

    def _blocks(self, thread: int) -> Iterator[tuple[int, int]]:
        """Yield (wait block, object) of each wait block."""
        machine, memory, offsets = self._machine, self._machine.memory, self._offsets
        if offsets.wait_blocks is None or offsets.block_object is None:
            return
        first = machine.pointer(memory, thread + offsets.wait_blocks)
        if not first:
            return
        if offsets.next_block is None:
            count = 0 if offsets.count is None else offsets.count.read(memory, thread)
            if count > _MAX_OBJECTS:
                message = f"WaitBlockCount is {count}"
                raise _Broken(message)
            if offsets.block_size is None:
                message = "the symbols do not say how large one is"
                raise _Broken(message)
            for block in range(first, first + count * offsets.block_size, offsets.block_size):
                yield block, machine.pointer(memory, block + offsets.block_object)
            return
        block, seen = first, set[int]()
        while block not in seen:
            if len(seen) == _MAX_OBJECTS:
                message = f"more than {_MAX_OBJECTS} of them"
                raise _Broken(message)
            seen.add(block)
            yield block, machine.pointer(memory, block + offsets.block_object)
            block = machine.pointer(memory, block + offsets.next_block)
        if block != first:
            message = f"they loop without coming back to the first ({block:#x})"
            raise _Broken(message)

    def _describe(self, address: int, thread: int) -> WaitObject:
        memory, offsets = self._machine.memory, self._offsets
        try:
            kind = memory.u8(address) & ~_LOCK_BIT
            signal = None if offsets.signal is None else _signed(memory.u32(address + offsets.signal))
        except MemoryUnreadable:
            return WaitObject(address, "unreadable object")
        type_name = _TYPES.get(kind, f"object of type {kind}")
        is_timeout = offsets.timer is not None and address == thread + offsets.timer
        holder: ThreadId | None = None
        try:
            name = self._headers.name(address, _OBJECT_TYPES.get(kind, "")) if not is_timeout else ""
            detail, holder = self._detail(kind, address, signal)
        except MemoryUnreadable:
            name, detail = "", "not readable"
        return WaitObject(address, type_name, name, detail, holder, is_timeout)

    def _detail(self, kind: int, address: int, signal: int | None) -> tuple[str, ThreadId | None]:
        if kind == _MUTANT and self._offsets.owner is not None:
            return self._owned(address, self._offsets.owner)
        if kind == _THREAD:
            holder = self.thread_id(address)
            return ("" if holder is None else str(holder)), holder
        return self._state(kind, address, signal), None

    def _owned(self, address: int, owner_at: int) -> tuple[str, ThreadId | None]:
        memory = self._machine.memory
        owner = self._machine.pointer(memory, address + owner_at) & -8
        if not owner:
            abandoned = self._offsets.abandoned
            is_abandoned = abandoned is not None and abandoned.read(memory, address)
            return ("abandoned" if is_abandoned else "not owned"), None
        holder = self.thread_id(owner)
        return (f"owned by thread at {owner:#x}" if holder is None else f"owned by {holder}"), holder

    def _state(self, kind: int, address: int, signal: int | None) -> str:
        machine, memory, offsets = self._machine, self._machine.memory, self._offsets
        if kind == _PROCESS and offsets.pid is not None and offsets.image_name is not None:
            pid = machine.pointer(memory, address + offsets.pid)
            raw = memory.read(address + offsets.image_name, 15).split(b"\0", 1)[0]
            return f"{pid} {raw.decode('latin-1')}".rstrip()
        if kind in _TIMERS and offsets.due is not None:
            return self._due_in(memory.u64(address + offsets.due))
        if signal is None:
            return ""
        if kind == _SEMAPHORE and offsets.limit is not None:
            return f"count {signal} of {_signed(memory.u32(address + offsets.limit))}"
        if kind in _QUEUES:
            return f"{signal} entries"
        return "signalled" if signal > 0 else ""

    def _due_in(self, due: int) -> str:
        """Return when a timer is due, in words; "" if the time since boot is not known.

        `due` is the timer's DueTime in units of 100 ns since boot, as KUSER_SHARED_DATA.InterruptTime is.
        """
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
        """Return the ids of the ETHREAD at `address`, or None if it cannot be read or is not a thread by its type."""
        machine, memory = self._machine, self._machine.memory
        pid, tid = self._offsets.pid_of_thread, self._offsets.tid
        if pid is None or tid is None:
            return None
        try:
            if memory.u8(address) & ~_LOCK_BIT != _THREAD:
                return None
            return ThreadId(machine.pointer(memory, address + pid), machine.pointer(memory, address + tid), address)
        except MemoryUnreadable:
            return None


class _Broken(ThrowstackError):
    """The error that the wait blocks of a thread make no sense; the message says how."""


def _is_for_all(wait_types: set[int]) -> bool:
    return wait_types == {_WAIT_ALL}


def _signed(value: int) -> int:
    return value if value < 1 << 31 else value - (1 << 32)


def duration(value: datetime.timedelta) -> str:
    """Return a length of time as debuggers print it: `0:00:00.312`, preceded by the days if there are any."""
    milliseconds = value // datetime.timedelta(milliseconds=1)
    seconds, milliseconds = divmod(milliseconds, 1000)
    hours, rest = divmod(seconds, 3600)
    days, hours = divmod(hours, 24)
    head = f"{days} days " if days else ""
    return f"{head}{hours}:{rest // 60:02}:{rest % 60:02}.{milliseconds:03}"
