# SPDX-License-Identifier: Apache-2.0
"""The objects that a Thread of the runtime refers to: the last thrown exception, and its own object of the program.

A Thread holds handles: the address of a cell that has the object's address. With a contract their places are known.
Else the words after the id of Windows' thread are looked at, where every version has both. The first that leads to an
exception is `m_LastThrownObject` (0x20 to 0x30 bytes after the id in versions that were seen); the one that leads to a
`System.Threading.Thread` is `m_ExposedObject` (4 or 8 bytes after it). Once one is found, its place holds for all
Threads of the process: another word of another Thread that leads to an exception is something else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from throwstack.core.memory import MemoryUnreadable
from throwstack.managed.exception_class import ExceptionClass
from throwstack.managed.heap_objects import HeapObjects
from throwstack.managed.likely_exception import LikelyException
from throwstack.managed.metadata_error import MetadataError
from throwstack.managed.runtime_layout import RuntimeLayout
from throwstack.managed.runtime_memory import BudgetSpent, StructureError
from throwstack.managed.runtime_threads import RuntimeThread

_SEARCHED = 0x100
_KNOWN_FROM, _KNOWN_END = 0x20, 0x34
"""Where `m_LastThrownObject` is after the id, in the versions that were seen."""
_NONE = "no exception was found in the runtime's structure of this thread"
_THREAD_CLASS = "System.Threading.Thread"


@dataclass(frozen=True, slots=True)
class Handle:
    """Where a handle leads: the address of an object, 0 if to none. `reason` says why it is not known, "" if it is."""

    target: int
    reason: str = ""


class ThreadHandles:
    """The handles in the Threads of one process."""

    __slots__ = ("_exceptions", "_exposed_at", "_likely", "_objects", "_thrown_at")

    def __init__(
        self, objects: HeapObjects, exceptions: ExceptionClass, likely: LikelyException, layout: RuntimeLayout
    ) -> None:
        """All four are of the same process."""
        self._likely = likely
        self._objects = objects
        self._exceptions = exceptions
        known = {} if layout.contract is None else layout.contract.fields.get("Thread", {})
        self._thrown_at: int | None = known.get("LastThrownObject")
        self._exposed_at: int | None = known.get("GCHandle")

    def last_thrown(self, thread: RuntimeThread) -> Handle:
        """Return the handle to the last thrown exception of `thread`. Raises BudgetSpent."""
        if self._thrown_at is not None:
            place = thread.address + self._thrown_at
            handle = self._through(place, self._exceptions.is_exception)
            if handle.reason:
                likely = self._through(place, self._likely.adopts)
                return likely if likely.target else handle
            return handle if handle.target else Handle(0, "the runtime keeps no exception of this thread")
        self._thrown_at, handle = self._search(thread, self._exceptions.is_exception)
        if self._thrown_at is None:
            self._thrown_at, handle = self._search(thread, self._likely.adopts, _KNOWN_FROM, _KNOWN_END)
        return handle if self._thrown_at is not None else Handle(0, self._why_none(thread))

    def thread_object(self, thread: RuntimeThread) -> Handle:
        """Return the handle to the program's object of `thread`. Raises BudgetSpent."""
        if self._exposed_at is not None:
            return self._through(thread.address + self._exposed_at, self._is_thread)
        self._exposed_at, handle = self._search(thread, self._is_thread)
        return handle

    @property
    def thrown_at(self) -> int | None:
        """Return the offset in a Thread of the handle to the last thrown exception; None if it is not known yet."""
        return self._thrown_at

    def learnt(self) -> list[str]:
        """Return where a Thread has its handles, in words."""
        places = {"last thrown exception": self._thrown_at, "own object": self._exposed_at}
        return [f"handle of the {what}: {'not found' if at is None else f'at {at:#x}'}" for what, at in places.items()]

    def _is_thread(self, address: int) -> bool:
        try:
            table = self._objects.method_table(address)
            return self._objects.tables.is_genuine(table) and self._objects.types.name(table) == _THREAD_CLASS
        except BudgetSpent:
            raise
        except (MemoryUnreadable, StructureError, MetadataError):
            return False

    def _search(
        self, thread: RuntimeThread, is_wanted: Callable[[int], bool], begin: int = 4, end: int = _SEARCHED
    ) -> tuple[int | None, Handle]:
        """Return the first handle, `begin` to `end` bytes after the id, to a wanted object; its offset first."""
        size = self._objects.memory.size
        for at in range(thread.id_at + begin + size - 1 & -size, thread.id_at + end, size):
            handle = self._through(thread.address + at, is_wanted)
            if handle.target:
                return at, handle
        return None, Handle(0)

    def _why_none(self, thread: RuntimeThread) -> str:
        """Return why no exception was found in `thread`, and what is absent of the memory that may lead to one."""
        memory = self._objects.memory
        for at in range(thread.id_at + _KNOWN_FROM, thread.id_at + _KNOWN_END, memory.size):
            try:
                place = thread.address + (at & -memory.size)
                cell = memory.word(place)
                lost = cell if memory.is_absent(cell) else memory.word(cell) if memory.is_pointer(cell) else 0
            except MemoryUnreadable as error:
                return f"the runtime's structure of this thread is not readable: {error}"
            if memory.is_absent(lost):
                return f"{_NONE}; where its handle to one may lead, {lost:#x}, is not in the dump"
        return _NONE

    def _through(self, place: int, is_wanted: Callable[[int], bool]) -> Handle:
        """Follow the handle at `place`. It leads nowhere, without a reason, if it is null or its cell is."""
        memory = self._objects.memory
        memory.spend()
        try:
            cell = memory.word(place)
            target = memory.word(cell) if cell else 0
        except MemoryUnreadable as error:
            return Handle(0, f"the handle in the runtime's structure of this thread is not readable: {error}")
        if target == 0:
            return Handle(0)
        if memory.is_pointer(target) and is_wanted(target):
            return Handle(target)
        return Handle(0, f"what the runtime's structure of this thread leads to, at {target:#x}, cannot be read")
