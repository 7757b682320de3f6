# SPDX-License-Identifier: Apache-2.0
"""The type arguments of an instantiated generic type, for its name as `Type.ToString` writes it: `Failure`1[Int32]`.

MethodTable   flags (bits 4 and 5: 0 not generic, 1 or 2 instantiated), …, dictionaries*
dictionaries  dictionary*[n], one for the type and each generic base, the type's own the last
before them   u16 number of dictionaries, u16 number of type arguments
dictionary    the type arguments, each a MethodTable*
"""

from __future__ import annotations

from throwstack.core.memory import MemoryUnreadable
from throwstack.managed.metadata_error import MetadataError
from throwstack.managed.method_tables import MethodTables
from throwstack.managed.runtime_layout import RuntimeLayout
from throwstack.managed.runtime_memory import BudgetSpent, RuntimeMemory, StructureError
from throwstack.managed.type_metadata import TypeMetadata

_INSTANTIATED = 0x10, 0x20
_GENERIC_MASK = 0x30
_MAX_ARGUMENTS, _MAX_DICTIONARIES, _MAX_DEPTH, _MAX_NAME = 16, 64, 4, 1024


class GenericNames:
    """Names of types with their type arguments."""

    __slots__ = ("_layout", "_memory", "_tables", "_types")

    def __init__(self, memory: RuntimeMemory, layout: RuntimeLayout, tables: MethodTables, types: TypeMetadata) -> None:
        """All four are of the same process."""
        self._memory = memory
        self._layout = layout
        self._tables = tables
        self._types = types

    def name(self, method_table: int, depth: int = 0) -> str:
        """Return the type's name, with its type arguments if it has some and all of them can be named.

        Raises StructureError, MetadataError if the type itself cannot be named.
        """
        name = self._types.name(method_table)
        if "`" not in name or depth >= _MAX_DEPTH:
            return name
        try:
            arguments = [self.name(argument, depth + 1) for argument in self._arguments(method_table)]
        except BudgetSpent:
            raise
        except (MemoryUnreadable, StructureError, MetadataError):
            return name
        whole = f"{name}[{','.join(arguments)}]"
        return whole if arguments and len(whole) <= _MAX_NAME else name

    def _arguments(self, method_table: int) -> list[int]:
        """Return the MethodTables of the type arguments, none if the type has none. Raises MemoryUnreadable."""
        memory = self._memory
        if memory.memory.u32(method_table) & _GENERIC_MASK not in _INSTANTIATED:
            return []
        for dictionaries in memory.targets(method_table + self._layout.dictionaries):
            count = memory.memory.u16(dictionaries - 4)
            arguments = memory.memory.u16(dictionaries - 2)
            if not 0 < count <= _MAX_DICTIONARIES or not 0 < arguments <= _MAX_ARGUMENTS:
                continue
            for own in memory.targets(dictionaries + (count - 1) * memory.size):
                places = range(own, own + arguments * memory.size, memory.size)
                found = [self._type_at(place) for place in places]
                if all(found):
                    return found
        return []

    def _type_at(self, place: int) -> int:
        """Return the genuine MethodTable to which the word at `place` points, 0 if it points to none."""
        return next((target for target in self._memory.targets(place) if self._tables.is_genuine(target)), 0)
