# SPDX-License-Identifier: Apache-2.0
"""Types as they are written, in WinDbg's manner."""

from __future__ import annotations

import struct

import pytest

from tests.support.pdb_functions import written
from tests.support.pdb_model import Enumeration, Procedure, Structure
from tests.support.pdb_types import cv_record
from throwstack.core.registers import Arch
from throwstack.pdb.type_stream import TypeStream
from throwstack.pdb.type_text import TypeText
from throwstack.pdb.types import Types

DEFINED = {"Widget": Structure(8), "Color": Enumeration({"RED": 1})}


@pytest.mark.parametrize(
    ("spelled", "shown"),
    [
        ("int", "int"),
        ("unsigned long", "unsigned long"),
        ("char*", "char *"),
        ("const char*", "const char *"),
        ("char* const", "char * const"),
        ("Widget**", "Widget **"),
        ("Widget&", "Widget &"),
        ("Widget&&", "Widget &&"),
        ("const Widget&", "const Widget &"),
        ("Color", "Color"),
        ("wchar_t[16]", "wchar_t [16]"),
        ("Widget*[4]", "Widget *[4]"),
        ("int(__stdcall*)(char*, Color)", "int (__stdcall *)(char *, Color)"),
        ("int[3][2]", "int [2][3]"),
        ("char*[5][4][2]", "char *[2][4][5]"),
        ("int[3]*", "int (*)[3]"),
        ("int[3][2]*", "int (*)[2][3]"),
        ("int[3]&", "int (&)[3]"),
        ("int[3]* const", "int (* const)[3]"),
        ("char* const*", "char * const *"),
        ("Widget* volatile", "Widget * volatile"),
        ("Widget* const volatile", "Widget * const volatile"),
        ("volatile Widget* volatile", "volatile Widget * volatile"),
        ("int(__stdcall*)(char[2][3]*, Color)", "int (__stdcall *)(char (*)[3][2], Color)"),
    ],
)
def test_a_type_is_written_as_windbg_writes_it(tmp_path, spelled, shown):
    read = written(tmp_path, Procedure("f", 0x1100, 16, parameters=(spelled,)), types=DEFINED)
    function = read.signatures.type_of(read.functions()["f"])
    assert read.text.parameters(function) == shown


class Bytes:
    def __init__(self, data: bytes) -> None:
        self.data, self.size = data, len(data)

    def read(self, offset: int, size: int) -> bytes:
        return self.data[offset : offset + size]


def text_of(*records: bytes) -> TypeText:
    data = b"".join(records)
    head = struct.pack("<IIIII", 20040203, 56, 0x1000, 0x1000 + len(records), len(data))
    stream = TypeStream(Bytes(head + struct.pack("<HHIIiIiIiI", 0xFFFF, 0, *[0] * 8) + data), lambda _: Bytes(b""))
    return TypeText(Types(stream), Arch.X86)


def test_a_pointer_to_itself_is_cut():
    text = text_of(cv_record(0x1002, struct.pack("<II", 0x1000, 0x800A))).of(0x1000)
    assert text.startswith("…")
    assert set(text[1:]) == {" ", "*"}


@pytest.mark.parametrize(
    ("spelled", "shown"),
    [
        ("int", "int p"),
        ("char* const", "char * const p"),
        ("int[3]*", "int (*p)[3]"),
        ("int[3]&", "int (&p)[3]"),
        ("int[3]**", "int (** p)[3]"),
        ("void(__cdecl*)(int)", "void (__cdecl *p)(int)"),
        ("void(__cdecl*)(int)*", "void (__cdecl ** p)(int)"),
        ("void(__cdecl*)(int) const", "void (__cdecl * const p)(int)"),
    ],
)
def test_the_name_of_a_parameter_is_where_c_has_it(tmp_path, spelled, shown):
    read = written(tmp_path, Procedure("f", 0x1100, 16, parameters=(spelled,)), types=DEFINED)
    function = read.signatures.type_of(read.functions()["f"])
    assert read.text.parameters(function, ("p",)) == shown


def test_functions_that_take_each_other_many_times_are_cut():
    arguments = cv_record(0x1201, struct.pack("<I100I", 100, *[0x1001] * 100))
    function = cv_record(0x1008, struct.pack("<IBBHI", 3, 0, 0, 100, 0x1000))
    assert len(text_of(arguments, function).of(0x1001)) < 5000


def test_pointers_to_members_name_their_class():
    pointer = cv_record(0x1002, struct.pack("<IIIH", 0x74, 0x800A | 2 << 5, 0x1001, 0))
    owner = cv_record(0x1505, struct.pack("<HHIIIH", 0, 0, 0, 0, 0, 4) + b"Widget\0")
    assert text_of(pointer, owner).of(0x1000) == "int Widget::*"


def test_a_type_that_is_not_there_is_a_question_mark():
    assert text_of().of(0x1500) == "?"
    assert text_of(cv_record(0x1002, struct.pack("<II", 0x1500, 0x800A))).of(0x1000) == "? *"
