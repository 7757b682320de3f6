# SPDX-License-Identifier: Apache-2.0
"""Addresses of a PDB: section and offset."""

from __future__ import annotations

import struct

from throwstack.pdb.sections import SectionTable


def header(name: bytes, size: int, rva: int) -> bytes:
    return struct.pack("<8sII24x", name, size, rva)


TABLE = SectionTable(header(b".text", 0x1234, 0x1000) + header(b".data", 0x100, 0x3000) + b"\0" * 39)


def test_rvas_and_places():
    assert TABLE.place(0x1000) == (1, 0)
    assert TABLE.place(0x2233) == (1, 0x1233)
    assert TABLE.place(0x2234) is None
    assert TABLE.place(0x3010) == (2, 0x10)
    assert TABLE.place(0xFFF) is None
    assert [TABLE.rva(1, 0x10), TABLE.rva(2, 0x10), TABLE.rva(0, 0), TABLE.rva(3, 0)] == [0x1010, 0x3010, None, None]


def test_sections_have_names():
    assert [section and section.name for section in map(TABLE.section, range(4))] == [None, ".text", ".data", None]
