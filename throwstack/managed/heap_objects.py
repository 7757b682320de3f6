# SPDX-License-Identifier: Apache-2.0
"""Objects of the GC heap: their type, strings, arrays, fields by name.

An object is {MethodTable*, fields}; the lowest bits of the pointer are the collector's marks. A string is
{MethodTable*, u32 length, UTF-16 characters}, an array {MethodTable*, u32 length, padding on x64, elements}. The low
word of an array type's flags is the size of an element in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from throwstack.core.text import decode_wide
from throwstack.managed.generic_arguments import GenericNames
from throwstack.managed.metadata_error import MetadataError
from throwstack.managed.method_tables import MethodTables
from throwstack.managed.runtime_layout import RuntimeLayout
from throwstack.managed.runtime_memory import BudgetSpent, RuntimeMemory, StructureError
from throwstack.managed.type_metadata import FieldPlace, TypeMetadata

MAX_STRING = 1 << 13
"""The most characters that are read of a string."""
_LONGEST = 1 << 30
_HAS_COMPONENTS = 0x80000000
_NUMBERS = {
    "System.Boolean": (1, False),
    "System.SByte": (1, True),
    "System.Byte": (1, False),
    "System.Int16": (2, True),
    "System.UInt16": (2, False),
    "System.Int32": (4, True),
    "System.UInt32": (4, False),
    "System.Int64": (8, True),
    "System.UInt64": (8, False),
}
"""The types of whole numbers: their size in bytes, and whether they have a sign."""


@dataclass(frozen=True, slots=True)
class HeapArray:
    """An array: its length, the address of its first element, and the size of an element in bytes."""

    length: int
    data: int
    element_size: int


class HeapObjects:
    """The objects of one process."""

    __slots__ = ("_layout", "_names", "generics", "memory", "tables", "types")

    def __init__(self, memory: RuntimeMemory, layout: RuntimeLayout, tables: MethodTables, types: TypeMetadata) -> None:
        """All four are of the same process."""
        self.memory = memory
        self._layout = layout
        self.tables = tables
        self.types = types
        self._names: dict[int, list[tuple[int, str]]] = {}
        self.generics = GenericNames(memory, layout, tables, types)

    def method_table(self, address: int) -> int:
        """Return the address of the MethodTable that the object at `address` names; raises MemoryUnreadable."""
        return self.memory.word(address) & -self.memory.size

    def reference(self, address: int, place: FieldPlace) -> int:
        """Return the address of the object in a field of the object at `address`, 0 for null."""
        return self.memory.word(address + place.offset)

    def string(self, address: int) -> str | None:
        """Return the string at `address`, None for null. Of a long one the first characters and `…`; not escaped.

        Raises MemoryUnreadable, and StructureError if no string can be there.
        """
        if address == 0:
            return None
        if not self.memory.is_pointer(address):
            message = f"there is no string at {address:#x}"
            raise StructureError(message)
        length = self.memory.memory.u32(address + self._layout.array_length)
        if length > _LONGEST:
            message = f"the string at {address:#x} claims {length:,} characters"
            raise StructureError(message)
        data = self.memory.memory.read(address + self._layout.string_data, 2 * min(length, MAX_STRING))
        return decode_wide(data) + ("…" if length > MAX_STRING else "")

    def array(self, address: int) -> HeapArray:
        """Return the array at `address`; raises MemoryUnreadable, and StructureError if no array can be there."""
        table = self.method_table(address)
        flags = self.memory.memory.u32(table)
        length = self.memory.memory.u32(address + self._layout.array_length)
        if not flags & _HAS_COMPONENTS or length > _LONGEST or not self.memory.is_pointer(address):
            message = f"there is no array at {address:#x}"
            raise StructureError(message)
        return HeapArray(length, address + self._layout.array_data, flags & 0xFFFF)

    def references(self, array: HeapArray, limit: int) -> tuple[int, ...]:
        """Return the first `limit` elements of an array of references, as far as they can be read."""
        count = min(array.length, limit) if array.element_size == self.memory.size else 0
        return self.memory.words(array.data, count)

    def names(self, method_table: int) -> list[tuple[int, str]]:
        """Return (MethodTable, name) of the type and its bases; a name that cannot be read is ""."""
        known = self._names.get(method_table)
        if known is not None:
            return known
        found = []
        for table in self.tables.chain(method_table):
            try:
                found.append((table, self.types.name(table)))
            except BudgetSpent:
                raise
            except (StructureError, MetadataError):
                found.append((table, ""))
        self._names[method_table] = found
        return found

    def field(self, address: int, class_name: str, *names: str) -> FieldPlace | None:
        """Return the place of a field of the object, which its class or base `class_name` calls by one of `names`.

        Versions of the runtime's library name a field differently: `m_paramName`, `_paramName`. None if the class has
        no such field, or the object is of another class. Raises StructureError, MetadataError, MemoryUnreadable.
        """
        tables = self.names(self.method_table(address))
        table = next((table for table, name in tables if name == class_name), None)
        fields = {} if table is None else self.types.fields(table)
        return next((fields[name] for name in names if name in fields), None)

    def text_of(self, address: int) -> str | None:
        """Return what ToString returns of a string or a boxed whole number, None for other objects; not escaped.

        Raises StructureError, MetadataError, MemoryUnreadable.
        """
        name = self.types.name(self.method_table(address))
        if name == "System.String":
            return self.string(address)
        if name not in _NUMBERS:
            return None
        size, is_signed = _NUMBERS[name]
        value = int.from_bytes(self.memory.memory.read(address + self.memory.size, size), "little", signed=is_signed)
        return str(bool(value)) if name == "System.Boolean" else str(value)
