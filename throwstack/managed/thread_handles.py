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

from throwstack.core.memory import MemoryUnreadable
from throwstack.managed.exception_class import ExceptionClass
from throwstack.managed.heap_objects import HeapObjects
from throwstack.managed.metadata_error import MetadataError
from throwstack.managed.runtime_layout import RuntimeLayout
from throwstack.managed.runtime_memory import BudgetSpent, StructureError
from throwstack.managed.runtime_threads import RuntimeThread

_SEARCHED = 0x100
_THREAD_CLASS = "System.Threading.Thread"


class ThreadHandles:
    """The handles in the Threads of one process."""

    __slots__ = ("_exceptions", "_exposed_at", "_objects", "_thrown_at")

    def __init__(self, objects: HeapObjects, exceptions: ExceptionClass, layout: RuntimeLayout) -> None:
        """All three are of the same process."""
        self._objects = objects
        self._exceptions = exceptions
        known = {} if layout.contract is None else layout.contract.fields.get("Thread", {})
        self._thrown_at: int | None = known.get("LastThrownObject")
        self._exposed_at: int | None = known.get("GCHandle")

    def last_thrown(self, thread: RuntimeThread) -> int | None:
        """Return the address of the last thrown exception of `thread`; None if there is none. Raises BudgetSpent."""
        if self._thrown_at is not None:
            return self._through(thread.address + self._thrown_at, self._exceptions.is_exception)
        self._thrown_at, found = self._search(thread, self._exceptions.is_exception)
        return found

    def thread_object(self, thread: RuntimeThread) -> int | None:
        """Return the address of the program's object of `thread`; None if there is none. Raises BudgetSpent."""
        if self._exposed_at is not None:
            return self._through(thread.address + self._exposed_at, self._is_thread)
        self._exposed_at, found = self._search(thread, self._is_thread)
        return found

    def _is_thread(self, address: int) -> bool:
        try:
            table = self._objects.method_table(address)
            return self._objects.tables.is_genuine(table) and self._objects.types.name(table) == _THREAD_CLASS
        except BudgetSpent:
            raise
        except (MemoryUnreadable, StructureError, MetadataError):
            return False

    def _search(self, thread: RuntimeThread, is_wanted: Callable[[int], bool]) -> tuple[int | None, int | None]:
        """Return the offset in `thread`, and the object, of the first handle to a wanted object."""
        size = self._objects.memory.size
        first = thread.id_at + size & -size
        for at in range(first, first + _SEARCHED, size):
            found = self._through(thread.address + at, is_wanted)
            if found is not None:
                return at, found
        return None, None

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
