# SPDX-License-Identifier: Apache-2.0
"""The last thrown exception where System.Exception cannot be recognised, because its metadata or types are absent.

A dump may lack pages of the runtime's library that name System.Exception, or those of MethodTables. The handle in a
Thread still leads to the object, and the object still has its message and its stack. So an object is taken for an
exception if it is where a contract says, or the versions that were seen keep, the last thrown one, and is filled as an
exception is: a failure HRESULT, a message that is null or a string, and a recorded stack with a genuine method in it.
This is a guess, and is labelled as one.
"""

from __future__ import annotations

from throwstack.core.memory import MemoryUnreadable
from throwstack.managed.exception_class import ExceptionClass, ExceptionPlaces
from throwstack.managed.heap_objects import HeapObjects
from throwstack.managed.methods import Methods
from throwstack.managed.runtime_layout import RuntimeLayout
from throwstack.managed.runtime_memory import BudgetSpent, StructureError
from throwstack.managed.stack_trace import recorded_stack

_PLACES = {
    8: (
        ExceptionPlaces(0x10, 0x20, 0x30, None, 0x74),  # .NET Core 3.1, .NET 8
        ExceptionPlaces(0x18, 0x28, 0x38, None, 0x7C),  # .NET Core 2.1
    ),
    4: (ExceptionPlaces(0xC, 0x14, 0x1C, None, 0x38),),  # .NET Core 2.1
}
_FAILURE = 0x80000000


class LikelyException:
    """Recognises exceptions of one process by how they are filled."""

    __slots__ = ("_kind", "_layout", "_methods", "_objects")

    def __init__(self, objects: HeapObjects, kind: ExceptionClass, methods: Methods, layout: RuntimeLayout) -> None:
        """All four are of the same process."""
        self._layout = layout
        self._objects = objects
        self._kind = kind
        self._methods = methods

    def adopts(self, address: int) -> bool:
        """Say whether an object, to which the Thread's handle leads, is likely an exception.

        If so, its class is from then on taken for one that derives from System.Exception. Raises BudgetSpent.
        """
        known = self._kind.places
        for places in (known, *_PLACES[self._objects.memory.size]) if self._layout.contract is None else (known,):
            try:
                if self._is_filled(address, places):
                    self._kind.adopt(address, places)
                    return True
            except BudgetSpent:
                raise
            except (MemoryUnreadable, StructureError):
                continue
        return False

    def _is_filled(self, address: int, places: ExceptionPlaces) -> bool:
        objects, memory = self._objects, self._objects.memory
        if places.message is None or places.stack is None or places.hresult is None:
            return False
        if not memory.memory.u32(address + places.hresult) & _FAILURE:
            return False
        objects.string(memory.word(address + places.message))
        stack = recorded_stack(objects, self._methods, memory.word(address + places.stack))
        return any(self._methods.find(frame.method_desc) is not None for frame in stack.frames)
