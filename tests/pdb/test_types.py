# SPDX-License-Identifier: Apache-2.0
"""Types by number: records that are found one by one, structures that are only named, and damage."""

from __future__ import annotations

import struct

import pytest

from tests.support.pdb_functions import written
from tests.support.pdb_model import X64, Enumeration, Member, Procedure, Structure, Tag
from tests.support.pdb_types import TypeStream as WrittenStream
from tests.support.pdb_types import cv_record
from throwstack.pdb.type_model import Array, Basic, Field, Pointer, UnknownType
from throwstack.pdb.type_model import Enumeration as EnumerationType
from throwstack.pdb.type_model import Structure as StructureType
from throwstack.pdb.type_stream import TypeStream
from throwstack.pdb.types import Types

POINT = Structure(8, (Member("x", "int", 0), Member("y", "int", 4)))


class Bytes:
    """A stream of given bytes, which counts how many of them were read."""

    def __init__(self, data: bytes) -> None:
        self.data, self.size, self.read_bytes = data, len(data), 0

    def read(self, offset: int, size: int) -> bytes:
        found = self.data[offset : offset + size]
        self.read_bytes += len(found)
        return found


def parameter(tmp_path, name, **types):
    """The type of the parameter of a function that takes a `name`, and all types."""
    read = written(tmp_path, Procedure("f", 0x1100, 16, parameters=(name,)), types=types)
    function = read.signatures.type_of(read.functions()["f"])
    return read.types, function.parameters[0]


def test_a_structure_has_its_members_and_size(tmp_path):
    types, index = parameter(tmp_path, "Point", Point=POINT)
    found = types.plain(index)
    assert isinstance(found, StructureType)
    assert (found.name, found.size, found.keyword) == ("Point", 8, "struct")
    assert list(types.members(found)) == [Field("x", 0x74, 0), Field("y", 0x74, 4)]


def test_a_structure_that_a_pointer_only_names_is_found_by_its_name(tmp_path):
    types, index = parameter(tmp_path, "Point*", Point=POINT)
    pointer = types.plain(index)
    assert isinstance(pointer, Pointer)
    assert types.type(pointer.target).is_forward
    assert types.plain(pointer.target).size == 8


def test_a_structure_that_is_nowhere_defined_stays_a_name(tmp_path):
    types, index = parameter(tmp_path, "Opaque*")
    named = types.plain(types.plain(index).target)
    assert (named.name, named.is_forward, types.size(types.plain(index).target)) == ("Opaque", True, 0)


@pytest.mark.parametrize(
    ("other", "is_ambiguous"),
    [
        (Structure(8, (Member("x", "int", 0), Member("y", "unsigned", 4))), True),
        (Structure(8, (Member("y", "int", 0), Member("x", "int", 4))), True),
        (Structure(8, (Member("x", "int", 0),)), True),
        (Structure(16, POINT.members), True),
        (Structure(8, POINT.members, has_wide_properties=True), False),
    ],
)
def test_a_name_with_different_definitions_is_no_type(tmp_path, other, is_ambiguous):
    """Two source files of C have a `struct Point` of their own, and a third refers to one of them by name."""
    defined = Structure(8, POINT.members, others=(other,))
    types, index = parameter(tmp_path, "struct Point", Point=defined)
    found = types.plain(index)
    assert (found.is_ambiguous, found.is_forward, types.size(index)) == (
        is_ambiguous,
        is_ambiguous,
        8 * (not is_ambiguous),
    )


def test_definitions_are_compared_through_arrays_pointers_and_members(tmp_path):
    same, different = (
        Structure(12, (Member("line", "Point[1]", 0), Member("next", type_, 8)))
        for type_ in ("Row*", "const struct Row*")
    )
    point = Structure(8, POINT.members, others=(Structure(8, POINT.members, has_wide_properties=True),))
    for other in (same, different):
        row = Structure(12, same.members, others=(Structure(12, other.members, has_wide_properties=True),))
        types, index = parameter(tmp_path, "struct Row", Point=point, Row=row)
        assert types.plain(index).is_ambiguous is (other is different)


def test_a_structure_of_current_visual_c_has_wide_properties(tmp_path):
    wide = Structure(8, POINT.members, tag=Tag.CLASS, has_wide_properties=True)
    types, index = parameter(tmp_path, "Point", Point=wide)
    found = types.plain(index)
    assert (found.keyword, found.size, len(list(types.members(found)))) == ("class", 8, 2)


def test_an_enumeration_has_its_names(tmp_path):
    types, index = parameter(tmp_path, "Color", Color=Enumeration({"RED": 1, "GREEN": 70000, "NONE": -1}))
    found = types.plain(index)
    assert isinstance(found, EnumerationType)
    assert dict(types.enumerators(found)) == {"RED": 1, "GREEN": 70000, "NONE": -1}
    assert types.size(index) == 4


def test_constness_does_not_hide_a_type(tmp_path):
    types, index = parameter(tmp_path, "const Point", Point=POINT)
    assert types.plain(index).name == "Point"
    assert types.size(index) == 8


def test_the_size_of_a_pointer_is_that_of_the_machine(tmp_path):
    read = written(tmp_path, Procedure("f", 0x1100, 16, parameters=("Point*",)), machine=X64, types={"Point": POINT})
    function = read.signatures.type_of(read.functions()["f"])
    assert read.types.size(function.parameters[0]) == 8


def test_the_scalar_at_an_offset_is_found_through_arrays_and_structures(tmp_path):
    line = Structure(24, (Member("points", "Point[2]", 0), Member("width", "short", 16)))
    types, index = parameter(tmp_path, "Line", Point=POINT, Line=line)
    assert [types.scalar_bytes(index, offset) for offset in (0, 4, 12, 16, 2, 20)] == [4, 4, 4, 2, 2, 0]


@pytest.mark.parametrize("count", [3, 5000])
def test_one_type_costs_one_part_of_the_stream(count):
    stream = WrittenStream()
    for number in range(count):
        stream.add(0x1503, struct.pack("<IIHB", 0x74, 0x75, number % 0x8000, 0))
    data, hashes = Bytes(stream.stream(9)), Bytes(stream.hashes())
    types = Types(TypeStream(data, lambda number: {9: hashes}[number]))
    assert types.type(0x1000 + count - 1) == Array(0x74, count - 1)
    assert data.read_bytes < 56 + 8192 + 64
    assert types.type(0x1000 + count) == UnknownType()


def test_without_the_list_of_parts_the_records_are_counted():
    stream = WrittenStream()
    for number in range(5000):
        stream.add(0x1503, struct.pack("<IIHB", 0x74, 0x75, number, 0))
    data = bytearray(stream.stream(9))
    struct.pack_into("<H", data, 20, 0xFFFF)  # no hash stream
    types = Types(TypeStream(Bytes(bytes(data)), lambda _: Bytes(b"")))
    assert [types.type(0x1000 + number) for number in (0, 3000, 4999)] == [Array(0x74, n) for n in (0, 3000, 4999)]


def test_a_type_that_is_made_of_itself_has_no_size():
    records = cv_record(0x1001, struct.pack("<IH", 0x1001, 1)) + cv_record(0x1001, struct.pack("<IH", 0x1000, 1))
    records += cv_record(0x1203, struct.pack("<HHIHB", 0x150D, 3, 0x1003, 0, 0))
    records += cv_record(0x1505, struct.pack("<HHIIIHB", 1, 0, 0x1002, 0, 0, 8, 0))
    head = struct.pack("<IIIII", 20040203, 56, 0x1000, 0x1004, len(records)) + struct.pack(
        "<HHIIiIiIiI", 0xFFFF, 0, *[0] * 8
    )
    types = Types(TypeStream(Bytes(head + records), lambda _: Bytes(b"")))
    assert types.size(0x1000) == 0
    assert types.plain(0x1000) == UnknownType()
    assert types.scalar_bytes(0x1003, 0) == 0


@pytest.mark.parametrize(
    ("traits", "size"),
    [
        (0xA | 1 << 5 | 40 << 13, 4),  # of x86: clang 19, the reference by which a structure of 40 bytes is returned
        (0xC | 1 << 5 | 1 << 13, 8),
        (0xC | 1 << 5 | 24 << 13, 8),
        (0xC, 8),
        (0xC | 3 << 5 | 24 << 13, 24),  # to a member function: here the field says what is true
    ],
)
def test_the_size_of_a_pointer_is_by_its_kind_and_not_what_the_record_says(traits, size):
    stream = WrittenStream()
    stream.add(0x1002, struct.pack("<IIIH", 0x74, traits, 0, 0))
    types = Types(TypeStream(Bytes(stream.stream(9)), lambda _: Bytes(stream.hashes())))
    assert types.size(0x1000) == size


def test_a_pointer_to_a_basic_type_has_no_record():
    types = Types(TypeStream(Bytes(b""), lambda _: Bytes(b"")))
    assert types.type(0x474) == Pointer(0x74, 4)
    assert types.type(0x670) == Pointer(0x70, 8)
    assert types.type(0x08) == Basic("HRESULT", types.type(0x08).kind, 4)
    assert types.type(0x1234) == UnknownType()


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        (0x103, "always nullptr"),
        (0x1000, "it has no bytes"),
        (0x1001, "it has no bytes"),
        (0x1002, "its type is of a kind that is not read (0x151d)"),
        (0x1003, "its type is not in the symbols"),
        (0x1500, "its type is not in the symbols"),
    ],
)
def test_why_a_type_has_no_size(index, reason):
    stream = WrittenStream()
    stream.add(0x1503, struct.pack("<IIHB", 0x74, 0x75, 0, 0))
    stream.add(0x1505, struct.pack("<HHIIIH2s", 0, 0, 0, 0, 0, 0, b"E\0"))
    stream.add(0x151D, bytes(8))
    stream.add(0x1505, struct.pack("<HHIIIH2s", 0, 0x80, 0, 0, 0, 0, b"F\0"))
    types = Types(TypeStream(Bytes(stream.stream(9)), lambda _: Bytes(stream.hashes())))
    assert (types.size(index), types.why_no_size(index)) == (0, reason)


@pytest.mark.parametrize("size", [b"\x00\x80\xfb", b"\x09\x80" + b"\xff" * 8, b"\x17\x80" + b"\xff" * 16])
def test_a_negative_size_is_damage(size):
    stream = WrittenStream()
    stream.add(0x1505, struct.pack("<HHIII", 0, 0, 0, 0, 0) + size + b"S\0")
    stream.add(0x1503, struct.pack("<II", 0x74, 0x75) + size + b"\0")
    stream.add(0x1608, struct.pack("<IIII", 0, 0, 0, 0) + b"\0\0" + size + b"C\0")
    types = Types(TypeStream(Bytes(stream.stream(9)), lambda _: Bytes(stream.hashes())))
    assert [types.size(0x1000 + number) for number in range(3)] == [0, 0, 0]


def test_a_member_before_its_structure_is_left_out(tmp_path):
    types, index = parameter(tmp_path, "S", S=Structure(8, (Member("a", "int", -4), Member("b", "int", 4))))
    assert list(types.members(types.plain(index))) == [Field("b", 0x74, 4)]


def test_many_records_that_name_one_structure_are_one_search():
    """Their names are in one bucket, as in a file that was made to have the hashes read over and over."""
    stream = WrittenStream()
    for field_list in range(300):
        stream.add(0x1505, struct.pack("<HHIIIH2s", 0, 0x80, field_list % 2, field_list, 0, 0, b"S\0"), "S")
    hashes = Bytes(stream.hashes())
    types = Types(TypeStream(Bytes(stream.stream(9)), lambda number: {9: hashes}[number]))
    assert types.plain(0x1000).is_forward
    before = hashes.read_bytes
    assert all(types.plain(0x1000 + number).is_forward for number in range(300))
    assert hashes.read_bytes - before <= len(hashes.data)
