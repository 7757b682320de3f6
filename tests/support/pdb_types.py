# SPDX-License-Identifier: Apache-2.0
"""Writes the type streams of a PDB (TPI and IPI): types by their names, as `tests.support.pdb_model` spells them."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping

from tests.support.pdb_hashes import TYPE_BUCKETS, hash_name, hash_record
from tests.support.pdb_model import X64, Convention, Enumeration, Member, Structure, Tag

_FIRST = 0x1000
_NO_STREAM = 0xFFFF
_FORWARD, _HAS_UNIQUE_NAME = 0x80, 0x200
_INDEX_EVERY = 8192
SIMPLE = {
    "void": 0x03,
    "HRESULT": 0x08,
    "signed char": 0x10,
    "short": 0x11,
    "long": 0x12,
    "__int64": 0x13,
    "unsigned char": 0x20,
    "unsigned short": 0x21,
    "unsigned long": 0x22,
    "unsigned __int64": 0x23,
    "bool": 0x30,
    "float": 0x40,
    "double": 0x41,
    "char": 0x70,
    "wchar_t": 0x71,
    "int": 0x74,
    "unsigned": 0x75,
    "char32_t": 0x7B,
    "_Complex float": 0x50,
    "...": 0x00,
}
_SIZES = {0x10: 1, 0x11: 2, 0x12: 4, 0x13: 8, 0x20: 1, 0x21: 2, 0x22: 4, 0x23: 8, 0x30: 1, 0x40: 4, 0x41: 8}
_SIZES |= {0x08: 4, 0x50: 8, 0x70: 1, 0x71: 2, 0x74: 4, 0x75: 4, 0x7B: 4}
_WIDE = {Tag.CLASS: 0x1608, Tag.STRUCT: 0x1609}
_POINTERS = {
    "&&": 4 << 5,
    "&": 1 << 5,
    "* const volatile": 0x600,
    "* volatile": 0x200,
    "* const": 0x400,
    "*": 0,
}
"""The bits of a pointer's attributes, for each way to spell one; `&&` is looked for before `&`."""


class TypeStream:
    """The records of a TPI or IPI stream; each distinct record is there once."""

    def __init__(self) -> None:
        self._records: dict[bytes, int] = {}
        self._hashes: list[int] = []

    def add(self, kind: int, data: bytes, hashed: str | None = None) -> int:
        """Add a record and return its index. `hashed` is the name that a structured type is found by."""
        record = cv_record(kind, data)
        if record not in self._records:
            self._records[record] = _FIRST + len(self._records)
            self._hashes.append((hash_record(record) if hashed is None else hash_name(hashed)) % TYPE_BUCKETS)
        return self._records[record]

    def stream(self, hash_stream: int) -> bytes:
        """Return the stream; `hash_stream` is the number of the stream that `hashes` returns."""
        data = b"".join(self._records)
        hashes, offsets = 4 * len(self._hashes), 8 * len(self._index())
        head = struct.pack("<IIIII", 20040203, 56, _FIRST, _FIRST + len(self._records), len(data))
        head += struct.pack("<HHII", hash_stream, _NO_STREAM, 4, TYPE_BUCKETS)
        return head + struct.pack("<iIiIiI", 0, hashes, hashes, offsets, hashes + offsets, 0) + data

    def hashes(self) -> bytes:
        """Return the hash stream: the hash of each record, then index and offset of a record every 8 KB."""
        pairs = b"".join(struct.pack("<II", index, offset) for index, offset in self._index())
        return struct.pack(f"<{len(self._hashes)}I", *self._hashes) + pairs

    def _index(self) -> list[tuple[int, int]]:
        found, offset = [], 0
        for record, index in self._records.items():
            if not found or offset // _INDEX_EVERY != found[-1][1] // _INDEX_EVERY:
                found.append((index, offset))
            offset += len(record)
        return found


class Types:
    """The types and ids of one PDB, made as they are asked for."""

    def __init__(self, machine: int, defined: Mapping[str, Structure | Enumeration]) -> None:
        """`defined` are the structures and enumerations by name; `machine` gives the size of pointers."""
        self.tpi, self.ipi = TypeStream(), TypeStream()
        self._pointer = 8 if machine == X64 else 4
        self._defined = defined

    def define_all(self) -> None:
        """Write the definitions, also of types that nothing refers to."""
        for name in self._defined:
            self._define(name)

    def index(self, name: str) -> int:
        """Return the index of a type; a structure that has a definition is referred to by it."""
        name = name.strip()
        if name in SIMPLE:
            return SIMPLE[name]
        array = re.fullmatch(r"(.+)\[(\d+)\]", name)
        if array:
            size = int(array[2]) * self.size(array[1])
            data = struct.pack("<II", self.index(array[1]), SIMPLE["unsigned"]) + numeric(size) + b"\0"
            return self.tpi.add(0x1503, data)
        function = re.fullmatch(r"(.+?)\s*\((__\w+)\s*\*\)\((.*)\)", name)
        if function:
            return self._pointer_to(self._spelled(function), "*")
        for mark in _POINTERS:
            if name.endswith(mark):
                return self._pointer_to(self._pointed(name[: -len(mark)].strip()), mark)
        qualified = re.fullmatch(r"(const|volatile) (.+)|(.+) (const|volatile)", name)
        if qualified:
            bit = 1 if "const" in (qualified[1], qualified[4]) else 2
            return self.tpi.add(0x1001, struct.pack("<IHH", self.index(qualified[2] or qualified[3]), bit, 0))
        return self._define(name) if name in self._defined else self._declare(name.removeprefix("struct "))

    def size(self, name: str) -> int:
        """Return the size of a type in bytes."""
        name = name.strip()
        if name.endswith(("*", "&", ")")):
            return self._pointer
        array = re.fullmatch(r"(.+)\[(\d+)\]", name)
        if array:
            return int(array[2]) * self.size(array[1])
        defined = self._defined.get(name)
        if isinstance(defined, Structure):
            return defined.size
        return self.size(defined.underlying) if isinstance(defined, Enumeration) else _SIZES[SIMPLE[name]]

    def function(
        self,
        returns: str,
        parameters: tuple[str, ...],
        convention: Convention,
        this: str | None = None,
        this_adjust: int = 0,
    ) -> int:
        """Return the index of a function's type, of a member function of the class `this` if that is given."""
        arguments = [self.index(name) for name in parameters]
        listed = self.tpi.add(0x1201, struct.pack(f"<I{len(arguments)}I", len(arguments), *arguments))
        result = self.index(returns)
        if this is None:
            return self.tpi.add(0x1008, struct.pack("<IBBHI", result, convention, 0, len(arguments), listed))
        pointer = self.index(f"{this}*") if convention is Convention.THISCALL or self._pointer == 8 else 0
        figures = (result, self._declare(this), pointer, convention, 0, len(arguments), listed, this_adjust)
        return self.tpi.add(0x1009, struct.pack("<IIIBBHIi", *figures))

    def function_id(self, name: str, function: int, this: str | None = None) -> int:
        """Return the IPI index of a function of that type."""
        if this is None:
            return self.ipi.add(0x1601, struct.pack("<II", 0, function) + text(name))
        return self.ipi.add(0x1602, struct.pack("<II", self._declare(this), function) + text(name))

    def _spelled(self, function: re.Match[str]) -> int:
        """Return the type of a function of which a pointer's name has the result, the convention, the parameters."""
        parameters = tuple(part for part in function[3].split(",") if part.strip())
        return self.function(function[1], parameters, Convention[function[2][2:].upper()])

    def _pointed(self, name: str) -> int:
        """Return the type that a pointer points to: compilers refer to a structure's declaration there."""
        is_structure = isinstance(self._defined.get(name), Structure)
        return self._declare(name) if is_structure else self.index(name)

    def _pointer_to(self, index: int, mark: str) -> int:
        kind, size = (0xC, 8) if self._pointer == 8 else (0xA, 4)
        return self.tpi.add(0x1002, struct.pack("<II", index, kind | _POINTERS[mark] | size << 13))

    def _declare(self, name: str) -> int:
        """Return the index of a structure that is only declared."""
        defined = self._defined.get(name)
        tag = defined.tag if isinstance(defined, Structure) else Tag.STRUCT
        return self._structure(name, tag, 0, 0, 0, _FORWARD, wide=False)

    def _define(self, name: str) -> int:
        defined = self._defined[name]
        if isinstance(defined, Enumeration):
            fields = b"".join(
                _padded(struct.pack("<HH", 0x1502, 3) + numeric(value) + text(key))
                for key, value in defined.values.items()
            )
            listed = self.tpi.add(0x1203, fields)
            head = struct.pack("<HHII", len(defined.values), _HAS_UNIQUE_NAME, self.index(defined.underlying), listed)
            return self.tpi.add(0x1507, head + text(name) + text(_unique("W4", name)), name)
        for other in defined.others:
            self._define_structure(name, other)
        return self._define_structure(name, defined)

    def _define_structure(self, name: str, defined: Structure) -> int:
        fields = b"".join(
            _padded(struct.pack("<HHI", 0x1400, 3, self.index(base)) + numeric(offset))
            for base, offset in defined.bases
        )
        fields += b"".join(
            _padded(struct.pack("<HHIIHH", 0x1401, 3, self.index(base), self.index("int*"), 0, 1 + at))
            for at, base in enumerate(defined.virtual_bases)
        )
        if defined.has_function_table:
            fields += struct.pack("<HHI", 0x1409, 0, self.index("void*"))
        fields += b"".join(self._member(member) for member in defined.members)
        listed = self.tpi.add(0x1203, fields)
        count = len(defined.bases) + len(defined.virtual_bases) + defined.has_function_table + len(defined.members)
        return self._structure(name, defined.tag, count, listed, defined.size, 0, wide=defined.has_wide_properties)

    def _member(self, member: Member) -> bytes:
        index = self.index(member.type)
        if member.bits is not None:
            index = self.tpi.add(0x1205, struct.pack("<IBB", index, *member.bits))
        return _padded(struct.pack("<HHI", 0x150D, 3, index) + numeric(member.offset) + text(member.name))

    def _structure(  # noqa: PLR0917 the fields of the record
        self, name: str, tag: Tag, count: int, fields: int, size: int, properties: int, *, wide: bool
    ) -> int:
        unique = _unique({Tag.CLASS: "V", Tag.STRUCT: "U", Tag.UNION: "T"}[tag], name)
        links = b"" if tag is Tag.UNION else struct.pack("<II", 0, 0)
        properties |= _HAS_UNIQUE_NAME
        if wide:  # 32 bits of properties, then the count
            head = struct.pack("<II", properties, fields) + links + struct.pack("<H", count)
        else:
            head = struct.pack("<HHI", count, properties, fields) + links
        data = head + numeric(size) + text(name) + text(unique)
        return self.tpi.add(_WIDE[tag] if wide else tag.value, data, None if properties & _FORWARD else name)


def cv_record(kind: int, data: bytes) -> bytes:
    """Return a CodeView record, filled up to a multiple of four bytes."""
    filling = -(len(data) + 4) % 4
    return struct.pack("<HH", len(data) + 2 + filling, kind) + data + b"\0" * filling


def text(name: str) -> bytes:
    """Return a string as records have them: UTF-8 with a zero."""
    return name.encode() + b"\0"


def _unique(kind: str, name: str) -> str:
    return f".?A{kind}{'@'.join(reversed(name.split('::')))}@@"


def numeric(value: int) -> bytes:
    """Return a numeric leaf: the figure itself below 0x8000, else its kind and the figure."""
    if 0 <= value < 0x8000:
        return struct.pack("<H", value)
    for kind, form in ((0x8000, "<b"), (0x8001, "<h"), (0x8003, "<i"), (0x8004, "<I"), (0x8009, "<q"), (0x800A, "<Q")):
        try:
            return struct.pack("<H", kind) + struct.pack(form, value)
        except struct.error:
            continue
    message = f"{value} has more than 64 bits"
    raise ValueError(message)


def _padded(field: bytes) -> bytes:
    """Return a field of a list, filled up with LF_PAD3, LF_PAD2, LF_PAD1."""
    missing = -len(field) % 4
    return field + bytes(0xF0 | count for count in range(missing, 0, -1))
