# SPDX-License-Identifier: Apache-2.0
"""Names of inlined functions, from the ids of a PDB."""

from __future__ import annotations

import struct

from tests.support.held_stream import HeldStream
from tests.support.pdb_types import cv_record
from throwstack.pdb.inlinee_names import InlineeNames
from throwstack.pdb.type_stream import TypeStream
from throwstack.pdb.types import Types


def stream(*records: bytes) -> TypeStream:
    """A type or id stream, whose records have the numbers from 0x1000 on."""
    data = b"".join(records)
    head = struct.pack("<IIIII", 20040203, 56, 0x1000, 0x1000 + len(records), len(data))
    head += struct.pack("<HHIIiIiIiI", 0xFFFF, 0xFFFF, 4, 0x3FFFF, 0, 0, 0, 0, 0, 0)
    return TypeStream(HeldStream(head + data), lambda _: HeldStream())


def text(name: str) -> bytes:
    return name.encode() + b"\0"


def string(name: str) -> bytes:
    return cv_record(0x1605, struct.pack("<I", 0) + text(name))


def function(name: str, scope: int = 0, type_: int = 0x1234) -> bytes:
    return cv_record(0x1601, struct.pack("<II", scope, type_) + text(name))


def member(name: str, class_: int) -> bytes:
    return cv_record(0x1602, struct.pack("<II", class_, 0x1234) + text(name))


def names(*ids: bytes) -> InlineeNames:
    classes = stream(cv_record(0x1505, struct.pack("<HHIIIH", 0, 0, 0, 0, 0, 8) + text("shop::Cart")))
    return InlineeNames(stream(*ids), Types(classes))


def test_functions_and_members():
    found = names(function("grow"), string("std::chrono"), function("now", 0x1001), member("total", 0x1000))
    assert [found.of(number) for number in (0x1000, 0x1002, 0x1003)] == [
        ("grow", 0x1234),
        ("std::chrono::now", 0x1234),
        ("shop::Cart::total", 0x1234),
    ]


def test_anonymous_namespaces_as_debuggers_write_them():
    """Each object file that has one has a number for it, which says nothing."""
    found = names(
        string("shop::?A0x1cbe27b7"), function("write", 0x1000), string("?A0x1cbe27b7"), function("f", 0x1002)
    )
    assert found.of(0x1001)[0] == "shop::`anonymous namespace'::write"
    assert found.of(0x1003)[0] == "`anonymous namespace'::f"


def test_ids_that_are_none():
    found = names(string("std"), function("f", 0x1001), cv_record(0x1601, b"\0"))
    assert [found.of(number) for number in (0x1000, 0x1002, 0x1003, 0, 0xFFFFFFFF)] == [("", 0)] * 5
    assert found.of(0x1001)[0].startswith("f::f")


def test_a_pdb_without_ids():
    assert InlineeNames(None, Types(stream())).of(0x1000) == ("", 0)
