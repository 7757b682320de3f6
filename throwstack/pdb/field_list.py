# SPDX-License-Identifier: Apache-2.0
"""Reads LF_FIELDLIST records: the members of a structure, the names of an enumeration.

A list that does not fit into one record ends with LF_INDEX, the number of the record that continues it. A list is read
up to the first entry of a kind that is not described in `cvinfo.h`, because its length is then not known.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from throwstack.pdb.codeview import BadRecord, number, string, unpack
from throwstack.pdb.type_model import Field

_MAX_RECORDS = 64
_MAX_ENTRIES = 1 << 14
_PADDING = 0xF0
_ATTRIBUTED = struct.Struct("<HHI")
_KIND = struct.Struct("<H")
_BASE, _INTERFACE = 0x1400, 0x151A
_VIRTUAL_BASE = 0x1401
_FUNCTION_TABLE = 0x1409
_INDEX = 0x1404
_ENUMERATOR = 0x1502
_MEMBER = 0x150D
_METHOD = 0x1511
_INTRODUCING_VIRTUAL = (4, 6)


class _Form(NamedTuple):
    """An entry of a list: the bytes at its beginning, how many numbers of variable length follow, then maybe a name."""

    size: int
    numbers: int
    has_name: bool


_FORMS = {
    _BASE: _Form(8, 1, has_name=False),
    _INTERFACE: _Form(8, 1, has_name=False),
    _VIRTUAL_BASE: _Form(12, 2, has_name=False),
    0x1402: _Form(12, 2, has_name=False),  # a virtual base class of a base class
    _FUNCTION_TABLE: _Form(8, 0, has_name=False),  # the pointer to the table of virtual functions
    0x140A: _Form(8, 0, has_name=False),  # a friend class
    0x140C: _Form(12, 0, has_name=False),  # such a pointer that is not at offset 0
    _ENUMERATOR: _Form(4, 1, has_name=True),
    _MEMBER: _Form(8, 1, has_name=True),
    0x140B: _Form(8, 0, has_name=True),  # a friend function
    0x150C: _Form(8, 0, has_name=True),
    0x150E: _Form(8, 0, has_name=True),  # a static member
    0x150F: _Form(8, 0, has_name=True),  # overloaded methods
    0x1510: _Form(8, 0, has_name=True),  # a nested type
    0x1512: _Form(8, 0, has_name=True),
    0x1513: _Form(8, 0, has_name=True),
}

ReadList = Callable[[int], bytes]
"""Returns the body of the LF_FIELDLIST record with a number, b"" if there is none."""


@dataclass(frozen=True, slots=True)
class Outline:
    """What a structure is made of: base classes and data members, and what has no place that is known beforehand.

    A virtual base class is where a table in the image says, other in each class that is derived further. A structure
    whose virtual functions begin with it has a pointer to their table, which is no member.
    """

    fields: tuple[Field, ...]
    has_virtual_bases: bool
    has_function_table: bool


def members(read: ReadList, first: int) -> Iterator[Field]:
    """Yield the base classes and data members of the list with the number `first`.

    A member before the beginning of its structure is damage, and left out.
    """
    for kind, data, at in _entries(read, first):
        found = _field(kind, data, at)
        if found is not None:
            yield found


def outline(read: ReadList, first: int, most: int) -> Outline:
    """Return what a structure is made of, with its first `most` fields.

    Compilers write what is not a member before the members. So nothing after the first `most` is looked at.
    """
    fields: list[Field] = []
    kinds: set[int] = set()
    for kind, data, at in _entries(read, first):
        found = _field(kind, data, at)
        kinds.add(kind)
        if found is not None:
            fields.append(found)
        if len(fields) >= most:
            break
    return Outline(tuple(fields), _VIRTUAL_BASE in kinds, _FUNCTION_TABLE in kinds)


def _field(kind: int, data: bytes, at: int) -> Field | None:
    """Return the base class or data member that is the entry at `at` of `data`, or None if it is something else."""
    if kind not in (_BASE, _INTERFACE, _MEMBER):
        return None
    offset, following = number(data, at + 8)
    if offset < 0:
        return None
    name = (string(data, following)[0] or "<unnamed>") if kind == _MEMBER else ""
    return Field(name, unpack(_ATTRIBUTED, data, at)[2], offset)


def enumerators(read: ReadList, first: int) -> Iterator[tuple[str, int]]:
    """Yield name and value of each entry of an enumeration, whose list has the number `first`."""
    for kind, data, at in _entries(read, first):
        if kind == _ENUMERATOR:
            value, following = number(data, at + 4)
            yield string(data, following)[0], value


def _entries(read: ReadList, first: int) -> Iterator[tuple[int, bytes, int]]:
    """Yield kind, record and offset in it of each entry of the list with the number `first`, and of those that follow.

    A damaged entry ends the list.
    """
    left, seen, following = _MAX_ENTRIES, set[int](), first
    while following and following not in seen and len(seen) < _MAX_RECORDS:
        seen.add(following)
        data, at, following = read(following), 0, 0
        while at + 4 <= len(data) and left:
            left -= 1
            try:
                (kind,) = unpack(_KIND, data, at)
                if kind == _INDEX:
                    following = unpack(_ATTRIBUTED, data, at)[2]
                    break
                end = _end(kind, data, at)
            except BadRecord:
                return
            yield kind, data, at
            while end < len(data) and data[end] >= _PADDING:
                end += max(data[end] & 0xF, 1)
            at = end


def _end(kind: int, data: bytes, at: int) -> int:
    """Return the offset after the entry at `at` of `data`, without padding. Raises `BadRecord`."""
    if kind == _METHOD:
        attributes = unpack(_ATTRIBUTED, data, at)[1]
        form = _Form(12 if attributes >> 2 & 7 in _INTRODUCING_VIRTUAL else 8, 0, has_name=True)
    else:
        found = _FORMS.get(kind)
        if found is None:
            message = f"a member of kind {kind:#x}"
            raise BadRecord(message)
        form = found
    end = at + form.size
    for _ in range(form.numbers):
        end = number(data, end)[1]
    return string(data, end)[1] if form.has_name else end
