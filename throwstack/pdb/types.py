# SPDX-License-Identifier: Apache-2.0
"""The types of a PDB, each read when it is asked for.

Follows `cvinfo.h` of Microsoft's microsoft-pdb, and for the hash of names LLVM's `TpiHashing.cpp`. A number below
0x1000 is a basic type or a pointer to one; the others are records of the TPI stream.

A PDB can be damaged or made up: a type may contain itself, or be nested a million deep. So nothing here follows more
than a few dozen records for one answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from throwstack.pdb.basic_types import NULLPTR, basic_type
from throwstack.pdb.codeview import BadRecord
from throwstack.pdb.field_list import Outline, enumerators, members, outline
from throwstack.pdb.time_limit import values_time
from throwstack.pdb.type_model import Array, BitField, Enumeration, Field, Modified, Structure, Type, UnknownType
from throwstack.pdb.type_records import read_type
from throwstack.pdb.type_sameness import Sameness
from throwstack.pdb.type_stream import TypeStream, name_hash

_FIRST_RECORD = 0x1000
_LF_FIELDLIST = 0x1203
_MAX_CHAIN = 32
_MAX_KEPT = 4096
_MAX_MEMBERS = 1024


class Types:
    """The types of one PDB by number. Numbers of absent or damaged records give an `UnknownType`."""

    def __init__(self, stream: TypeStream) -> None:
        """`stream` is the TPI stream."""
        self._stream = stream
        self._known: dict[int, Type] = {}
        self._whole: dict[Structure | Enumeration, Type] = {}
        """What is named alike is looked for once, also if many records name it."""
        self.values_time = values_time()
        """Runs while values are made; then what reads types may raise `ValuesGivenUp`."""

    def type(self, index: int) -> Type:
        """Return the type with the number `index`."""
        known = self._known.get(index)
        if known is None:
            if len(self._known) >= _MAX_KEPT:
                self._known.clear()
            with self._stream.time:
                known = self._known[index] = self._read(index)
        return known

    def bare(self, index: int) -> Type:
        """Return the type `index` without `const` and `volatile`. Of a structure, that may be a mere name."""
        found = self.type(index)
        for _ in range(_MAX_CHAIN):
            if not isinstance(found, Modified):
                return found
            found = self.type(found.target)
        return UnknownType()

    def plain(self, index: int) -> Type:
        """Return the type `index` without `const` and `volatile`, and with its members if it is only named there.

        To find the definition of a name, the hashes of all types are looked through: milliseconds in a large PDB.
        """
        found = self.bare(index)
        if isinstance(found, (Structure, Enumeration)) and found.is_forward:
            return self._definition(found)
        return found

    def size(self, index: int) -> int:
        """Return how many bytes a value of the type has; 0 if that is not known."""
        found = self.plain(index)
        for _ in range(_MAX_CHAIN):
            if not isinstance(found, (Enumeration, BitField)):
                break
            found = self.plain(found.target)
        return getattr(found, "size", 0)

    def why_no_size(self, index: int) -> str:
        """Return in words why values of a type have no size, and cannot be read."""
        found = self.plain(index)
        if found == NULLPTR:
            return "always nullptr"
        if isinstance(found, UnknownType) and found.kind:
            return f"its type is of a kind that is not read ({found.kind:#x})"
        if getattr(found, "is_ambiguous", False):
            return "the symbols define its type in several ways"
        is_empty = isinstance(found, Array) or (isinstance(found, Structure) and not found.is_forward)
        return "it has no bytes" if is_empty else "its type is not in the symbols"

    def scalar_bytes(self, index: int, offset: int) -> int:
        """Return how many bytes the integer, pointer or the like at `offset` in a value of the type has from there on.

        Returns 0 if there is none.
        """
        found = self.plain(index)
        for _ in range(_MAX_CHAIN):
            if isinstance(found, Array):
                size = self.size(found.element)
                index, offset = found.element, offset % size if size else -1
            elif isinstance(found, Structure) and not found.is_union:
                inside = [field for field in islice(self.members(found), _MAX_MEMBERS) if field.offset <= offset]
                if not inside:
                    return 0
                field = max(inside, key=lambda one: one.offset)
                index, offset = field.type, offset - field.offset
            else:
                break
            found = self.plain(index)
        return 0 if isinstance(found, (Array, Structure)) else max(self.size(index) - max(offset, 0), 0)

    def members(self, structure: Structure) -> Iterator[Field]:
        """Yield the base classes and data members of a structure in the order of the PDB."""
        return members(self._field_list, structure.fields)

    def outline(self, structure: Structure, most: int) -> Outline:
        """Return what a structure is made of, with its first `most` base classes and data members."""
        return outline(self._field_list, structure.fields, most)

    def enumerators(self, enumeration: Enumeration) -> Iterator[tuple[str, int]]:
        """Yield the names of an enumeration and their values."""
        return enumerators(self._field_list, enumeration.fields)

    def _field_list(self, index: int) -> bytes:
        self.values_time.check_inside()
        record = self._stream.record(index)
        return record[1] if record is not None and record[0] == _LF_FIELDLIST else b""

    def _read(self, index: int) -> Type:
        if index < _FIRST_RECORD:
            return basic_type(index)
        record = self._stream.record(index)
        if record is None:
            return UnknownType()
        kind, data = record
        try:
            return read_type(kind, data, self._stream.record)
        except BadRecord:
            return UnknownType(kind)

    def _definition(self, named: Structure | Enumeration) -> Type:
        """Return the structure or enumeration that a record only names; if it is not found, what names it."""
        whole = self._whole.get(named)
        if whole is None:
            if len(self._whole) >= _MAX_KEPT:
                self._whole.clear()
            with self._stream.time:
                whole = self._whole[named] = self._find_definition(named)
        return whole

    def _find_definition(self, named: Structure | Enumeration) -> Type:
        """Return the definition of what `named` names, if there is one, and if all that there are say the same."""
        for hashed in dict.fromkeys((named.unique_name, named.name)):
            found = self._definitions(hashed, named) if hashed and self._stream.buckets else []
            if found:
                sameness = Sameness(self)
                is_certain = all(sameness.is_same(found[0], other) for other in found[1:])
                return found[0] if is_certain else replace(named, is_ambiguous=True)
        return named

    def _definitions(self, hashed: str, named: Structure | Enumeration) -> list[Type]:
        bucket = name_hash(hashed.encode("utf-8", "replace")) % self._stream.buckets
        types = (self.type(number) for number in self._stream.numbers_in_bucket(bucket))
        return [found for found in types if type(found) is type(named) and _is_definition(found, named)]


def _is_definition(found: Type, named: Structure | Enumeration) -> bool:
    """Say whether `found` is the definition of what `named` names. Both are structures, or both are enumerations."""
    if not isinstance(found, (Structure, Enumeration)) or found.is_forward:
        return False
    if named.unique_name and found.unique_name:
        return found.unique_name == named.unique_name
    return found.name == named.name
