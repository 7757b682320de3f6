# SPDX-License-Identifier: Apache-2.0
"""Lines and inlined functions of modules, also those that a module has from another one."""

from __future__ import annotations

import struct

import pytest

from tests.support.msf_writer import write_msf
from tests.support.open_pdb import GUID, opened
from tests.support.pdb_types import cv_record
from tests.support.pdb_writer import Pdb, Procedure
from throwstack.pdb.dbi import Dbi
from throwstack.pdb.kept import Kept
from throwstack.pdb.module_reader import ModuleReader
from throwstack.pdb.msf import MsfFile, NotAPdb
from throwstack.pdb.string_table import StringTable
from throwstack.pdb.time_limit import TimeLimit


def subsection(kind: int, data: bytes) -> bytes:
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 4)


NAMES = b"\0a.cpp\0b.OBJ\0"
FILE, OTHER = 1, 7
"""Where the file's path and the module's name are among the strings."""


def function_with_site(number: int) -> bytes:
    """A function of 0x20 bytes into which the function with the id `number` was inlined, at 4 for 8 bytes."""
    site = cv_record(0x114D, struct.pack("<III", 0, 0, number) + bytes([3, 4, 4, 8]))
    data = struct.pack("<IIIIIIHB", 0, 0x20, 0, 0x20, 0, 0, 1, 0) + b"f\0"
    head = cv_record(0x1110, struct.pack("<II", 0, 0) + data)
    end = 4 + len(head) + len(site) + 4
    return (
        struct.pack("<I", 4)
        + head[:8]
        + struct.pack("<I", end)
        + head[12:]
        + site
        + cv_record(0x114E, b"")
        + cv_record(6, b"")
    )


def dbi(*modules: tuple[str, int, bytes, bytes]) -> bytes:
    """A DBI stream with modules: name, stream, symbols, lines."""
    information = b""
    for name, stream, symbols, lines in modules:
        record = struct.pack("<34xHIII16x", stream, len(symbols), 0, len(lines)) + name.encode() + b"\0\0"
        information += record + bytes(-len(record) % 4)
    head = struct.pack("<iII", -1, 19990903, 1) + bytes([0xFF, 0xFF] * 6)
    return head + struct.pack("<iiiiiIiiHHI", len(information), 0, 0, 0, 0, 0, 0, 0, 0, 0x8664, 0) + information


def test_code_generated_at_link_time_inlines_functions_of_other_modules(tmp_path):
    """The site has the number 80000000: the first id of the first import. Module b knows it as 1007."""
    symbols = function_with_site(0x80000000)
    lines = subsection(0xF4, struct.pack("<II", FILE, 0))
    lines += subsection(0xF6, struct.pack("<IIII", 0, 0x80000000, 0, 30))
    lines += subsection(0xF7, struct.pack("<III", OTHER, 1, 0x44))
    exports = subsection(0xF8, struct.pack("<II", 0x44, 0x1007))
    module_b = struct.pack("<I", 4)
    strings = struct.pack("<III", 0xEFFEEFFE, 1, len(NAMES)) + NAMES
    streams = [b"", b"", b"", b"", b"", symbols + lines, module_b + exports, strings]
    streams[3] = dbi(("a.obj", 5, symbols, lines), ("b.obj", 6, module_b, exports))
    path = tmp_path / "app.pdb"
    path.write_bytes(write_msf(streams, 512))
    with MsfFile(path) as msf:
        reader = ModuleReader(msf, Dbi(msf), StringTable(msf.stream(7)), Kept())
        function = reader.symbols(0).covering(1, 0)
        assert reader.inlined(0, function, 4) == [(0x1007, "a.cpp", 30)]
        assert reader.inlined(0, function, 12) == []


def test_modules_without_symbols(tmp_path):
    reader = opened(tmp_path, Pdb(GUID, procedures=[Procedure("f", 0x1000, 0x20)])).modules
    assert reader.symbols(1000) is None
    assert reader.line(1000, 1, 0) == ("", 0)


def test_a_pdb_that_wastes_time_is_given_up(tmp_path):
    pdb = opened(tmp_path, Pdb(GUID, procedures=[Procedure("f", 0x1000, 0x20)]))
    pdb.modules.symbols(0)
    pdb.msf.time = TimeLimit(pdb.msf.error, -1.0)
    assert pdb.modules.symbols(0) is not None
    with pytest.raises(NotAPdb, match="given up"):
        pdb.modules.line(0, 1, 0)
