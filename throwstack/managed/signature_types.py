# SPDX-License-Identifier: Apache-2.0
"""Puts the types in a method's signature into the words of the runtime: `String`, `List`1`, `Int32[]`, `T&`.

Follows ECMA-335, II.23.2. The words are those of `System.Type.Name`, which the runtime's stack traces print: no
namespace, no type arguments, `[]` for an array, `&` for a reference, `*` for a pointer. Modifiers are left out.
The word for a function pointer depends on the runtime: `IntPtr` before .NET 8, nothing from .NET 8 on.
"""

from __future__ import annotations

from typing import Protocol

from throwstack.managed.metadata_error import MetadataError

_PRIMITIVES = {
    0x01: "Void",
    0x02: "Boolean",
    0x03: "Char",
    0x04: "SByte",
    0x05: "Byte",
    0x06: "Int16",
    0x07: "UInt16",
    0x08: "Int32",
    0x09: "UInt32",
    0x0A: "Int64",
    0x0B: "UInt64",
    0x0C: "Single",
    0x0D: "Double",
    0x0E: "String",
    0x16: "TypedReference",
    0x18: "IntPtr",
    0x19: "UIntPtr",
    0x1C: "Object",
}
_SUFFIXES = {0x0F: "*", 0x10: "&", 0x1D: "[]"}
_CLASSES = (0x11, 0x12)
_VAR, _ARRAY, _GENERIC_INSTANCE, _FUNCTION, _METHOD_VAR = 0x13, 0x14, 0x15, 0x1B, 0x1E
_MODIFIERS, _MARKS = (0x1F, 0x20), (0x41, 0x45)
"""Modifiers are followed by a type that is not printed; SENTINEL and PINNED by nothing of their own."""
_GENERIC, _MAX_DEPTH, _MAX_RANK = 0x10, 32, 32
_MAX_TEXT = 1 << 14
"""The most characters of all parameters together."""


def compressed(data: bytes, at: int) -> tuple[int, int]:
    """Read a compressed unsigned integer (ECMA-335, II.23.2): 1, 2 or 4 bytes, the high ones first.

    Returns the number and the position after it. Raises MetadataError if `data` end in it.
    """
    first = data[at] if 0 <= at < len(data) else 0
    size = 1 if first < 0x80 else 2 if first < 0xC0 else 4
    if not 0 <= at <= len(data) - size:
        message = "a signature is cut short"
        raise MetadataError(message)
    return int.from_bytes(data[at : at + size], "big") & (0x7F, 0x3FFF, 0, 0x1FFFFFFF)[size - 1], at + size


class TypeNames(Protocol):
    """What a signature needs of the metadata that it is part of. Each raises MetadataError for what is not there."""

    def short_type_name(self, token: int) -> str:
        """Return the name of the TypeDefOrRef coded index `token`, without namespace and outer types."""
        ...

    def type_variable(self, number: int) -> str:
        """Return the name of a type parameter of the type: `T`."""
        ...

    def method_variable(self, number: int) -> str:
        """Return the name of a type parameter of the method."""
        ...


class SignatureReader:
    """Reads one signature from its first byte on. Each method raises MetadataError for what no compiler writes."""

    __slots__ = ("_at", "_data", "_function_pointer", "_names")

    def __init__(self, data: bytes, names: TypeNames, function_pointer: str = "IntPtr") -> None:
        """`data` are the bytes of the signature, `names` of the metadata that it is part of.

        `function_pointer` is the word for a function pointer.
        """
        self._function_pointer = function_pointer
        self._data = data
        self._names = names
        self._at = 0

    def parameter_types(self) -> tuple[int, list[str]]:
        """Read a method's signature. Return the count of its type parameters and the words for its parameters."""
        type_parameters, count = self._head()
        self.type()
        types: list[str] = []
        length = 0
        for _ in range(count):
            types.append(self.type())
            length += len(types[-1])
            if length > _MAX_TEXT:
                message = "the parameters of a method have too many names"
                raise MetadataError(message)
        return type_parameters, types

    def type(self, depth: int = 0) -> str:
        """Read one type, and return it in words."""
        if depth > _MAX_DEPTH:
            message = "a type in a signature is nested too deeply"
            raise MetadataError(message)
        element = self._byte()
        if element in _PRIMITIVES:
            return _PRIMITIVES[element]
        if element in _SUFFIXES:
            return self.type(depth + 1) + _SUFFIXES[element]
        if element in _MODIFIERS or element in _MARKS:
            if element in _MODIFIERS:
                self.number()
            return self.type(depth + 1)
        if element in (*_CLASSES, _VAR, _METHOD_VAR):
            return self._named(element)
        return self._composed(element, depth)

    def _named(self, element: int) -> str:
        number = self.number()
        if element in _CLASSES:
            return self._names.short_type_name(number)
        return self._names.type_variable(number) if element == _VAR else self._names.method_variable(number)

    def _composed(self, element: int, depth: int) -> str:
        if element == _GENERIC_INSTANCE:
            name = self.type(depth + 1)
            for _ in range(self.number()):
                self.type(depth + 1)
            return name
        if element == _ARRAY:
            name, rank = self.type(depth + 1), self.number()
            if not 1 <= rank <= _MAX_RANK:
                message = f"an array in a signature has {rank} dimensions"
                raise MetadataError(message)
            for _ in range(2):  # sizes, lower bounds
                for _ in range(self.number()):
                    self.number()
            return f"{name}[{',' * (rank - 1) or '*'}]"
        if element == _FUNCTION:
            _, count = self._head()
            for _ in range(count + 1):
                self.type(depth + 1)
            return self._function_pointer
        message = f"{element:#x} is no type of a signature"
        raise MetadataError(message)

    def _head(self) -> tuple[int, int]:
        """Read the head of a method's signature: the counts of its type parameters and of its parameters."""
        type_parameters = self.number() if self._byte() & _GENERIC else 0
        return type_parameters, self.number()

    def number(self) -> int:
        """Read a compressed unsigned integer."""
        number, self._at = compressed(self._data, self._at)
        return number

    def _byte(self) -> int:
        if self._at >= len(self._data):
            message = "a signature is cut short"
            raise MetadataError(message)
        self._at += 1
        return self._data[self._at - 1]
