# SPDX-License-Identifier: Apache-2.0
"""The signature of a method that was made at run time.

It is a method's signature as in metadata (`throwstack.managed.signature_types`). But it belongs to no metadata, so that
a class is not a token: ELEMENT_TYPE_INTERNAL (0x21, corhdr.h) is followed by the address of its MethodTable. Bit 1 of
the address marks a TypeDesc, which an array or a reference has.
"""

from __future__ import annotations

from collections.abc import Callable

from throwstack.managed.metadata_error import MetadataError
from throwstack.managed.runtime_layout import RuntimeLayout
from throwstack.managed.signature_types import SignatureReader

_INTERNAL = 0x21
_IS_TYPE_DESC = 2


class DynamicSignature(SignatureReader):
    """Reads one signature of a dynamic method; `parameter_types` and `type` are those of `SignatureReader`."""

    __slots__ = ("_name_of", "_size")

    def __init__(self, data: bytes, layout: RuntimeLayout, name_of: Callable[[int], str]) -> None:
        """`name_of` returns the short name of the type with this MethodTable."""
        super().__init__(data, _NO_NAMES, layout.function_pointer)
        self._size = layout.pointer_size
        self._name_of = name_of

    def type(self, depth: int = 0) -> str:
        """Read one type, and return it in words. Raises MetadataError, and what `name_of` raises."""
        end = self._at + 1 + self._size
        if self._data[self._at : self._at + 1] != bytes([_INTERNAL]) or end > len(self._data):
            return super().type(depth)
        handle = int.from_bytes(self._data[self._at + 1 : end], "little")
        self._at = end
        if handle & _IS_TYPE_DESC:
            message = "a parameter is described by a TypeDesc"
            raise MetadataError(message)
        return self._name_of(handle)


class _NoNames:
    """The names of tokens and type parameters: there are none."""

    def short_type_name(self, token: int) -> str:
        message = f"the signature names the type {token:#x} of unknown metadata"
        raise MetadataError(message)

    def type_variable(self, number: int) -> str:
        return self.short_type_name(number)

    def method_variable(self, number: int) -> str:
        return self.short_type_name(number)


_NO_NAMES = _NoNames()
