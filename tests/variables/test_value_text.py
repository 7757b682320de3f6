# SPDX-License-Identifier: Apache-2.0
"""Values in words, by their types."""

from __future__ import annotations

import struct

import pytest

from tests.support.described_frames import BASE, FUNCTION, described
from tests.support.pdb_model import X64, X86, Enumeration, Member, Register, Structure
from tests.support.pdb_model import Variable as Unoptimised
from throwstack.variables.value_text import Shown, ValueText

STACK = 0x20000
TYPES = {
    "Color": Enumeration({"RED": 1, "GREEN": 2, "NONE": -1}),
    "Flags": Enumeration({"NOTHING": 0, "READ": 1, "WRITE": 2, "RUN": 4, "FORCE_32_BITS": 0x7FFFFFFF}),
    "State": Enumeration({"IDLE": 0, "RUNNING": 1, "STOPPED": 2}),
    "Day": Enumeration({"MON": 1, "TUE": 2, "WED": 3, "THU": 4, "FRI": 5}),
    "Shape": Structure(8, (Member("sides", "int", 4),), has_function_table=True),
    "Square": Structure(8, (), bases=(("Shape", 0),)),
    "Base": Structure(4, (Member("q", "int", 0),)),
    "Derived": Structure(12, (Member("r", "int", 4),), virtual_bases=("Base",)),
    "Further": Structure(16, (Member("s", "int", 8),), bases=(("Derived", 0),)),
    "IConnection": Structure(4),
    "ConnectionPtr": Structure(4, (Member("m_pInterface", "IConnection*", 0),)),
    "DerivedPtr": Structure(4, (), bases=(("ConnectionPtr", 0),)),
    "Point": Structure(8, (Member("x", "int", 0), Member("y", "int", 4))),
    "Line": Structure(16, (Member("from", "Point", 0), Member("to", "Point", 8))),
    "Bits": Structure(4, (Member("low", "unsigned", 0, bits=(3, 0)), Member("high", "unsigned", 0, bits=(5, 3)))),
    "Signed": Structure(4, (Member("a", "int", 0, bits=(3, 0)), Member("b", "int", 0, bits=(29, 3)))),
    "Mixed": Structure(
        4,
        (
            Member("flag", "bool", 0, bits=(1, 0)),
            Member("color", "Shade", 0, bits=(2, 1)),
            Member("none", "Color", 0, bits=(3, 3)),
            Member("letter", "char", 0, bits=(1, 6)),
        ),
    ),
    "Shade": Enumeration({"RED": 1, "GREEN": 2}, underlying="unsigned char"),
    "Many": Structure(32, tuple(Member(f"m{n}", "int", 4 * n) for n in range(8))),
}


def shown(tmp_path, type_, data, more=None):
    """The variable `v` of this type, whose bytes are `data`, in a process with `more` memory."""
    memory = {STACK: bytes(8) + data, **(more or {})}
    it = described(tmp_path, Unoptimised("v", type_, 8), memory=memory, types=TYPES, has_fp=True)
    return it.variables(it.frame(ebp=STACK, slot=STACK + 4))["v"]


def u32(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


@pytest.mark.parametrize(
    ("type_", "data", "text"),
    [
        ("int", u32(5), "5"),
        ("int", u32(0xFFFFFFFF), "-1"),
        ("int", u32(0xFFFFFF00), "-256 (0xffffff00)"),
        ("unsigned long", u32(4096), "4096 (0x1000)"),
        ("long", u32(0xC0000005), "-1073741819 (0xc0000005 STATUS_ACCESS_VIOLATION)"),
        ("unsigned char", b"\x41", "65 (0x41)"),
        ("__int64", b"\0\0\0\0\1\0\0\0", "4294967296 (0x100000000)"),
        ("HRESULT", u32(0x80004003), "0x80004003 E_POINTER"),
        ("HRESULT", u32(0), "0x00000000 S_OK"),
        ("HRESULT", u32(0x80070005), "0x80070005 E_ACCESSDENIED"),
        ("bool", b"\0", "false"),
        ("bool", b"\1", "true"),
        ("bool", b"\7", "true (0x7)"),
        ("char", b"A", "'A' (65)"),
        ("char", b"\x1b", "27 (0x1b)"),
        ("wchar_t", "é".encode("utf-16-le"), "'é' (233)"),
        ("char", b"\xff", "'ÿ' (-1)"),
        ("char", b"\x81", "-127 (0x81)"),
        ("char", b"'", r"'\'' (39)"),
        ("char", b"\\", r"'\\' (92)"),
        ("float", struct.pack("<f", 0.1), "0.1"),
        ("float", struct.pack("<f", 16777216), "16777216"),
        ("float", struct.pack("<f", 3.4028234664e38), "3.4028235e+38"),
        ("float", u32(1), "1.4013e-45"),
        ("float", u32(0x7FC00000), "nan"),
        ("double", struct.pack("<d", -1234.5), "-1234.5"),
        ("double", struct.pack("<d", 0.1 + 0.2), "0.30000000000000004"),
        ("double", struct.pack("<d", 1e16 + 2), "10000000000000002"),
        ("double", struct.pack("<d", -0.0), "-0"),
        ("Color", u32(2), "GREEN (2)"),
        ("Color", u32(0xFFFFFFFF), "NONE (-1)"),
        ("Color", u32(77), "77 (0x4d)"),
        ("Flags", u32(5), "READ | RUN (0x5)"),
        ("Flags", u32(9), "9"),
        ("State", u32(3), "3"),
        ("State", u32(2), "STOPPED (2)"),
        ("Day", u32(6), "6"),
        ("Day", u32(5), "FRI (5)"),
        ("Shape", u32(0x401000, 4), "{sides=4}"),
        ("Square", u32(0x401000, 4), "{sides=4}"),
        ("Derived", u32(0x401000, 9, 8), "{…, r=9}"),
        ("Further", u32(0x401000, 9, 8, 7), "{{…, r=9}, s=8}"),
        ("void*", u32(0), "0"),
        ("void*", u32(0x1234), "0x00001234"),
        ("Point", u32(1, 2), "{x=1, y=2}"),
        ("Line", u32(1, 2, 3, 4), "{from={x=1, y=2}, to={x=3, y=4}}"),
        ("Bits", u32(0b01010_011), "{low=3, high=10 (0xa)}"),
        ("Signed", u32(0xFFFFFFF9), "{a=1, b=-1}"),
        ("Signed", u32(0x80000007), "{a=-1, b=-268435456 (0x10000000)}"),
        ("Mixed", u32(0b1_111_10_1), "{flag=true, color=GREEN (2), none=NONE (-1), letter=-1}"),
        ("Mixed", u32(0b0_101_01_0), "{flag=false, color=RED (1), none=-3, letter=0}"),
        ("Many", u32(*range(8)), "{m0=0, m1=1, m2=2, m3=3, m4=4, m5=5, …}"),
        ("ConnectionPtr", u32(0), "0"),
        ("DerivedPtr", u32(0), "0"),
        ("char[8]", b"hello\0\x1b\x1b", '"hello"'),
        ("char[4]", b"a\x1b]b", '"a\\x1b]b"'),
        ("wchar_t[4]", "ab\0\0".encode("utf-16-le"), '"ab"'),
        ("char[16]", b'C:\\new \\x1b "q"\n\0\0', r'"C:\\new \\x1b \"q\"\n"'),
        ("wchar_t[4]", 'a"\\b'.encode("utf-16-le"), r'"a\"\\b"'),
        ("char32_t", u32(0x10FFFF + 1), "1114112 (0x110000)"),
        ("char32_t", u32(0x1F600), "'\U0001f600' (128512)"),
        ("_Complex float", bytes(8), "00 00 00 00 00 00 00 00"),
        ("int[3]", u32(1, 2, 3), "{1, 2, 3}"),
        ("int[3][2]", u32(1, 2, 3, 4, 5, 6), "{{1, 2, 3}, {4, 5, 6}}"),
        ("int[6]", u32(1, 2, 3, 4, 5, 6), "{1, 2, 3, 4, …}"),
        ("char[2000]", b"x" * 2000, '"' + "x" * 64 + '…"'),
    ],
)
def test_a_value_is_written_by_its_type(tmp_path, type_, data, text):
    assert shown(tmp_path, type_, data).text == text


@pytest.mark.parametrize(("type_", "data", "value"), [("int", u32(0xFFFFFFFF), 0xFFFFFFFF), ("Color", u32(2), 2)])
def test_integers_have_a_value_as_well(tmp_path, type_, data, value):
    assert shown(tmp_path, type_, data).value == value


def test_a_structure_has_none_unless_it_is_a_single_pointer(tmp_path):
    assert shown(tmp_path, "Point", u32(1, 2)).value is None
    assert shown(tmp_path, "ConnectionPtr", u32(0x1234)).value == 0x1234


def test_a_pointer_to_text_shows_the_text(tmp_path):
    text = {0x30000: b"open\x1b\0"}
    assert shown(tmp_path, "char*", u32(0x30000), text).text == r'0x00030000 "open\x1b"'
    wide = {0x30000: "offen\0".encode("utf-16-le")}
    assert shown(tmp_path, "const wchar_t*", u32(0x30000), wide).text == '0x00030000 "offen"'
    assert shown(tmp_path, "char*", u32(0x50000)).text == "0x00050000 (not in the dump)"
    path = {0x30000: b'C:\\"a"\0'}
    assert shown(tmp_path, "char*", u32(0x30000), path).text == r'0x00030000 "C:\\\"a\""'


def test_a_pointer_to_code_shows_its_name(tmp_path):
    assert shown(tmp_path, "void*", u32(BASE + FUNCTION)).text == f"{BASE + FUNCTION:#010x} app!f"


def test_a_pointer_to_other_places_of_an_image_shows_the_place(tmp_path):
    assert shown(tmp_path, "void*", u32(BASE + 0x5000)).text == f"{BASE + 0x5000:#010x} app+0x5000"


def test_a_structure_that_is_nowhere_defined_is_not_shown(tmp_path):
    found = shown(tmp_path, "Opaque", u32(0))
    assert (found.text, found.reason) == ("", "its type is not in the symbols")


def test_structures_are_shown_to_a_limited_depth(tmp_path):
    nested = {f"S{n}": Structure(8, (Member("a", f"S{n + 1}", 0), Member("b", "int", 4))) for n in range(6)}
    it = described(
        tmp_path,
        Unoptimised("v", "S0", 8),
        memory={STACK: bytes(64)},
        has_fp=True,
        types={**nested, "S6": Structure(4, (Member("x", "int", 0),))},
    )
    text = it.variables(it.frame(ebp=STACK, slot=STACK + 4))["v"].text
    assert text == "{a={a={a={…}, b=0}, b=0}, b=0}"


@pytest.mark.parametrize("machine", [X86, X64])
def test_a_value_is_made_as_far_as_it_is_shown(tmp_path, monkeypatch, machine):
    """A structure of 864 bytes has 216 numbers in it. The text has room for about a dozen of them."""
    made: list[str] = []
    monkeypatch.setattr(ValueText, "_scalar", lambda *_: made.append("number") or Shown("16843009 (0x1010101)"))
    sizes = {"A": 24, "B": 144, "C": 864}
    inner = {"A": "int", "B": "A", "C": "B"}
    types = {
        name: Structure(size, tuple(Member(f"m{n}", inner[name], n * size // 6) for n in range(6)))
        for name, size in sizes.items()
    }
    item = Unoptimised("v", "C", 8, Register.RBP if machine == X64 else Register.EBP)
    memory = {STACK: b"\1" * 1024}
    it = described(tmp_path, item, memory=memory, has_fp=True, types=types, machine=machine)
    frame = it.frame(rbp=STACK) if machine == X64 else it.frame(ebp=STACK, slot=STACK + 4)
    text = it.variables(frame)["v"].text
    assert text.startswith("{m0={m0={m0=16843009 (0x1010101), m1=16843009 (0x1010101), ")
    assert (len(text), text[-1]) == (257, "…")
    assert 8 <= len(made) <= 13


def test_a_structure_of_nothing_but_structures_ends_as_well(tmp_path):
    """Nothing in it has a text of its own, so the braces count."""
    types = {"Empty": Structure(1), "A": Structure(4, tuple(Member("x" * 100, "Empty", n) for n in range(6)))}
    it = described(tmp_path, Unoptimised("v", "A", 8), memory={STACK: bytes(64)}, has_fp=True, types=types)
    text = it.variables(it.frame(ebp=STACK, slot=STACK + 4))["v"].text
    assert text == "{" + f"{'x' * 100}={{}}, " * 2 + "x" * 45 + "…"
