# SPDX-License-Identifier: Apache-2.0
"""The objects that a Thread of the runtime refers to: the last thrown exception, and its own object of the program.

A Thread holds handles: the address of a cell that has the object's address. With a contract their places are known.
Else all words of the Thread are looked at. The first that leads to an exception is `m_LastThrownObject`; the one that
leads to a `System.Threading.Thread` is `m_ExposedObject`. The places are the same in all Threads of a process, so that
they are searched once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from throwstack.core.memory import MemoryUnreadable
from throwstack.managed.exception_class import ExceptionClass
from throwstack.managed.heap_objects import HeapObjects
from throwstack.managed.layout import Layout
from throwstack.managed.metadata_error import MetadataError
from throwstack.managed.runtime_memory import BudgetSpent, StructureError

_FROM, _END = 0x80, 0xA00
_THREAD_CLASS = "System.Threading.Thread"


class ThreadHandles:
    """The handles in the Threads of one process."""

    __slots__ = ("_exceptions", "_exposed_at", "_is_exact", "_objects", "_thrown_at")

    def __init__(self, objects: HeapObjects, exceptions: ExceptionClass, layout: Layout) -> None:
        """All three are of the same process."""
        self._objects = objects
        self._exceptions = exceptions
        known = {} if layout.contract is None else layout.contract.fields.get("Thread", {})
        self._is_exact = "LastThrownObject" in known
        self._thrown_at: int | None = known.get("LastThrownObject")
        self._exposed_at: int | None = known.get("GCHandle")

    def last_thrown(self, thread: int) -> int | None:
        """Return the address of the last thrown exception of `thread`; None if there is none. Raises BudgetSpent."""
        if self._is_exact and self._thrown_at is not None:
            return self._through(thread + self._thrown_at, self._exceptions.is_exception)
        at, found = self._search(thread, self._thrown_at, self._exceptions.is_exception)
        if self._thrown_at is None:
            self._thrown_at = at
        return found

    def thread_object(self, thread: int) -> int | None:
        """Return the address of the program's object of `thread`; None if there is none. Raises BudgetSpent."""
        at, found = self._search(thread, self._exposed_at, self._is_thread)
        if self._exposed_at is None:
            self._exposed_at = at
        return found

    def _is_thread(self, address: int) -> bool:
        try:
            table = self._objects.method_table(address)
            return self._objects.tables.is_genuine(table) and self._objects.types.name(table) == _THREAD_CLASS
        except BudgetSpent:
            raise
        except (MemoryUnreadable, StructureError, MetadataError):
            return False

    def _search(
        self, thread: int, known: int | None, is_wanted: Callable[[int], bool]
    ) -> tuple[int | None, int | None]:
        """Return the offset in `thread`, and the object, of the first handle to a wanted object."""
        for at in self._places(known):
            found = self._through(thread + at, is_wanted)
            if found is not None:
                return at, found
        return None, None

    def _places(self, known: int | None) -> Iterator[int]:
        if known is not None:
            yield known
        yield from (at for at in range(_FROM, _END, self._objects.memory.size) if at != known)

    def _through(self, place: int, is_wanted: Callable[[int], bool]) -> int | None:
        """Return the object to which the handle at `place` leads, if it is wanted."""
        memory = self._objects.memory
        memory.spend()
        try:
            cell = memory.word(place)
            found = memory.word(cell) if memory.is_pointer(cell) else 0
        except MemoryUnreadable:
            return None
        return found if memory.is_pointer(found) and is_wanted(found) else None
