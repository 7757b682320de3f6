# SPDX-License-Identifier: Apache-2.0
"""Reads the records of a PDB's type stream.

Follows `cvinfo.h` of Microsoft's microsoft-pdb. The records 0x1608 to 0x160B, which Visual C++ writes since 2019, are
not in it: structures whose properties have 32 bits, and whose number of members is stored like their size.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace

from throwstack.pdb.codeview import BadRecord, number, size_number, string, unpack
from throwstack.pdb.type_model import (
    Array,
    BitField,
    Enumeration,
    FunctionType,
    Modified,
    Pointer,
    PointerForm,
    Structure,
    Type,
    UnknownType,
)
from throwstack.pdb.type_stream import TypeRecord

_LF_ARGLIST = 0x1201
_MAX_PARAMETERS = 256
_FORWARD, _UNIQUE = 0x80, 0x200
_POINTER_SIZES = {0xA: 4, 0xC: 8}
"""Of a pointer by its kind: 32-bit and 64-bit. Only for pointers to members is there more to know.

Of the reference by which a structure is passed, clang 19 writes the size of the structure in the field for the size.
"""
_FORMS = tuple(PointerForm)
_U32 = struct.Struct("<I")
U32_U32 = struct.Struct("<II")
_MODIFIER = struct.Struct("<IH")
_BIT_FIELD = struct.Struct("<IBB")
_PROCEDURE = struct.Struct("<IBBHI")
_MEMBER_FUNCTION = struct.Struct("<IIIBBHIi")
_ENUMERATION = struct.Struct("<HHII")
_STRUCTURE = struct.Struct("<HHI")
_KEYWORDS = {0x1504: "class", 0x1505: "struct", 0x1506: "union", 0x1519: "__interface"}
_KEYWORDS_2 = {0x1608: "class", 0x1609: "struct", 0x160A: "union", 0x160B: "__interface"}

GetRecord = Callable[[int], "TypeRecord | None"]
"""Returns the record with a number, or None if there is none."""


def read_type(kind: int, data: bytes, get: GetRecord) -> Type:
    """Return the type in the record of this `kind` with the body `data`; an `UnknownType` if it describes no type.

    `get` returns other records: the parameters of a function are in one of their own. Raises `BadRecord`.
    """
    if kind in _KEYWORDS:
        return _structure(kind, data)
    if kind in _KEYWORDS_2:
        return _structure_2(kind, data)
    if kind == 0x1008:
        returns, convention, attributes, _, listed = unpack(_PROCEDURE, data, 0)
        return FunctionType(returns, convention, _parameters(get(listed)), is_constructor=bool(attributes & 6))
    if kind == 0x1009:
        returns, owner, this, convention, attributes, _, listed, adjust = unpack(_MEMBER_FUNCTION, data, 0)
        is_constructor = bool(attributes & 6)
        return FunctionType(returns, convention, _parameters(get(listed)), owner, this != 0, is_constructor, adjust)
    reader = _READERS.get(kind)
    return UnknownType(kind) if reader is None else reader(data)


def _modifier(data: bytes) -> Type:
    target, flags = unpack(_MODIFIER, data, 0)
    return Modified(target, bool(flags & 1), bool(flags & 2))


def _pointer(data: bytes) -> Type:
    target, traits = unpack(U32_U32, data, 0)
    form = traits >> 5 & 7
    if form >= len(_FORMS):
        message = f"a pointer of kind {form}"
        raise BadRecord(message)
    pointer = Pointer(target, 0, _FORMS[form], bool(traits & 0x400), bool(traits & 0x200))
    size = _POINTER_SIZES.get(traits & 0x1F, 0)
    if pointer.is_to_member or not size:
        size = traits >> 13 & 0x3F or size or 4
    pointer = replace(pointer, size=size)
    return replace(pointer, owner=unpack(_U32, data, 8)[0]) if pointer.is_to_member else pointer


def _array(data: bytes) -> Type:
    return Array(unpack(_U32, data, 0)[0], size_number(data, 8)[0])


def _bit_field(data: bytes) -> Type:
    return BitField(*unpack(_BIT_FIELD, data, 0))


def _enumeration(data: bytes) -> Type:
    _, properties, target, fields = unpack(_ENUMERATION, data, 0)
    name, unique = _names(data, _ENUMERATION.size, properties)
    return Enumeration(name, target, fields, bool(properties & _FORWARD), unique)


def _structure(kind: int, data: bytes) -> Type:
    _, properties, fields = unpack(_STRUCTURE, data, 0)
    keyword = _KEYWORDS[kind]
    size, at = size_number(data, 8 if keyword == "union" else 16)
    return _made(keyword, properties, fields, size, _names(data, at, properties))


def _structure_2(kind: int, data: bytes) -> Type:
    properties, fields = unpack(U32_U32, data, 0)
    keyword = _KEYWORDS_2[kind]
    _, at = number(data, 8 if keyword == "union" else 16)
    size, at = size_number(data, at)
    return _made(keyword, properties, fields, size, _names(data, at, properties))


def _made(keyword: str, properties: int, fields: int, size: int, names: tuple[str, str]) -> Structure:
    return Structure(keyword, names[0], size, fields, bool(properties & _FORWARD), names[1])


def _names(data: bytes, at: int, properties: int) -> tuple[str, str]:
    """Return the name at `at` and the decorated name after it, which is "" if there is none."""
    name, at = string(data, at)
    return name, string(data, at)[0] if properties & _UNIQUE else ""


def _parameters(listed: TypeRecord | None) -> tuple[int, ...]:
    """Return the types of parameters in the record `listed`. Raises `BadRecord`."""
    if listed is None or listed[0] != _LF_ARGLIST:
        message = "a function without a list of parameters"
        raise BadRecord(message)
    (count,) = unpack(_U32, listed[1], 0)
    if count > _MAX_PARAMETERS:
        message = f"a function with {count} parameters"
        raise BadRecord(message)
    return unpack(struct.Struct(f"<{count}I"), listed[1], 4)


_READERS: dict[int, Callable[[bytes], Type]] = {
    0x1001: _modifier,
    0x1002: _pointer,
    0x1205: _bit_field,
    0x1503: _array,
    0x1507: _enumeration,
}
