# SPDX-License-Identifier: Apache-2.0
"""Strings of a PDB, by their offset."""

from __future__ import annotations

import struct

from tests.support.held_stream import HeldStream
from throwstack.pdb.string_table import StringTable

LONG = "d:\\" + "x" * 2000 + ".cpp"
STRINGS = b"\0d:\\a.cpp\0" + LONG.encode() + b"\0" + b"\xff\xfe\0" + b"cut"


def test_strings_by_offset():
    table = StringTable(HeldStream(struct.pack("<III", 0xEFFEEFFE, 1, len(STRINGS)) + STRINGS))
    assert table.at(0) == ""
    assert table.at(1) == "d:\\a.cpp"
    assert table.at(4) == "a.cpp"
    assert table.at(10) == LONG
    assert table.at(11 + len(LONG)) == "\ufffd\ufffd"
    assert table.at(14 + len(LONG)) == "cut"
    assert table.at(1 << 31) == ""


def test_a_string_without_an_end_is_cut():
    assert len(StringTable(HeldStream(b"x" * 100_000)).at(0)) < 20_000
