# SPDX-License-Identifier: Apache-2.0
"""The exceptions that a thread has in flight at once: one that was thrown in a catch or finally block, and the first.

The runtime keeps a structure for each exception in flight (ExInfo, ExceptionTracker), with a handle to the object and a
pointer to the structure of the exception before it. With a contract their members are known. The others were seen:

    x64, up to .NET 8   Thread: pointer 0x10 bytes after the last thrown handle; {previous* 0, handle 0x48}
    x86                 in the Thread itself, from the last thrown handle on; {handle 0xC, previous* 0x18}

Up to .NET 8 the structure of an exception is gone on x64 when its catch block begins: only .NET 9 and later, and x86,
have both where a catch block throws.
"""

from __future__ import annotations

from dataclasses import dataclass

from throwstack.core.memory import MemoryUnreadable
from throwstack.managed.exception_class import ExceptionClass
from throwstack.managed.runtime_layout import RuntimeLayout
from throwstack.managed.runtime_memory import RuntimeMemory

_MAX_NESTED = 16


@dataclass(frozen=True, slots=True)
class _Form:
    """Where the first structure is (in the Thread if `is_inside`), and its members; offsets in bytes."""

    first: int
    is_inside: bool
    previous: int
    handle: int


class NestedExceptions:
    """The exceptions in flight of the threads of one process."""

    __slots__ = ("_known", "_layout", "_memory")

    def __init__(self, memory: RuntimeMemory, layout: RuntimeLayout, known: ExceptionClass) -> None:
        """All three are of the same process."""
        self._memory = memory
        self._layout = layout
        self._known = known

    def of_thread(self, thread: int, thrown_at: int) -> tuple[list[int], str]:
        """Return the exception objects in flight of the Thread at `thread`, the last thrown first.

        The string says why there may be more of them, "" if nothing hides one. `thrown_at` is the offset of the
        Thread's handle to the last thrown exception. Raises BudgetSpent.
        """
        memory, form = self._memory, self._form(thrown_at)
        found: dict[int, None] = {}
        seen: set[int] = set()
        try:
            at = thread + form.first if form.is_inside else memory.word(thread + form.first)
            while memory.is_pointer(at) and at not in seen and len(seen) < _MAX_NESTED:
                seen.add(at)
                memory.spend()
                cell = memory.word(at + form.handle)
                target = memory.word(cell) if memory.is_pointer(cell) else 0
                if self._known.is_exception(target):
                    found[target] = None
                at = memory.word(at + form.previous)
        except MemoryUnreadable as error:
            return list(found), str(error)
        is_lost = memory.is_absent(at)
        return list(found), f"where the next one may be, {at:#x}, is not in the dump" if is_lost else ""

    def _form(self, thrown_at: int) -> _Form:
        contract = self._layout.contract
        if contract is not None:
            first = contract.fields.get("Thread", {}).get("ExceptionTracker")
            members = contract.fields.get("ExceptionInfo", {})
            if first is not None and {"PreviousNestedInfo", "ThrownObject"} <= members.keys():
                return _Form(first, False, members["PreviousNestedInfo"], members["ThrownObject"])
        if self._memory.size == 8:
            return _Form(thrown_at + 0x10, False, 0, 0x48)
        return _Form(thrown_at, True, 0x18, 0xC)
