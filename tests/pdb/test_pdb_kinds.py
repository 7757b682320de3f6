# SPDX-License-Identifier: Apache-2.0
"""What a PDB says that it is: full, stripped, linked without debug information or with /DEBUG:FASTLINK."""

from __future__ import annotations

import pytest

from tests.support.pdb_writer import Pdb, Procedure, Public
from throwstack.pdb.pdb_file import PdbFile, PdbKind
from throwstack.pdb.pdb_table import PdbTable

GUID = "0123456789ABCDEF00112233445566AA"
MAIN = Procedure("main", 0x1000, 0x10, [(0, "a.cpp", 1)], ())
PUBLIC = Public("_main", 0x1000)


@pytest.fixture
def opened(tmp_path):
    """Return a function that writes a PDB and opens it."""

    def open_(pdb: Pdb) -> PdbTable:
        (tmp_path / "app.pdb").write_bytes(pdb.to_bytes())
        return PdbTable(PdbFile(tmp_path / "app.pdb"), pytest.fail)

    return open_


def test_a_full_pdb_lacks_nothing(opened):
    table = opened(Pdb(GUID, procedures=[MAIN], publics=[PUBLIC]))
    assert (table.pdb.kind, table.missing) == (PdbKind.PRIVATE, "")


def test_a_stripped_pdb_has_public_symbols_only(opened):
    """Those of Microsoft still have the records of functions, without types and lines."""
    table = opened(Pdb(GUID, procedures=[Procedure("main", 0x1000, 0x10)], publics=[PUBLIC], is_stripped=True))
    assert table.pdb.kind is PdbKind.PUBLIC
    assert table.missing == "the PDB at hand has public symbols only: no source lines, no types, no variables"
    assert table.locate(0x1004)[-1].symbol == "main"


def test_a_pdb_of_objects_without_debug_information_has_public_symbols_only(opened):
    table = opened(Pdb(GUID, publics=[PUBLIC]))
    assert "public symbols only" in table.missing
    assert table.pdb.kind is PdbKind.PUBLIC


def test_a_fastlink_pdb_says_where_its_lines_are(opened):
    table = opened(Pdb(GUID, publics=[PUBLIC], is_fastlink=True))
    assert table.pdb.kind is PdbKind.FASTLINK
    assert "/DEBUG:FASTLINK" in table.missing
    assert "object files of the machine that linked it" in table.missing
    assert table.locate(0x1004)[-1].symbol == "main"
    assert table.rva_of("main") == 0x1000
