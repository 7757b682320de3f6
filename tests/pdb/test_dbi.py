# SPDX-License-Identifier: Apache-2.0
"""The modules of a PDB, and which code each contributed."""

from __future__ import annotations

import struct

import pytest

from tests.support.msf_writer import write_msf
from tests.support.open_pdb import GUID, opened
from tests.support.pdb_writer import X64, Pdb, Procedure, Public
from throwstack.pdb.dbi import X86, Dbi, DebugStream
from throwstack.pdb.msf import MsfFile, NotAPdb

PROCEDURES = [
    Procedure("f", 0x1000, 0x20, module="a.obj"),
    Procedure("g", 0x1100, 0x20, module="b.obj"),
    Procedure("h", 0x1120, 0x10, module="b.obj"),
]


@pytest.fixture
def dbi(tmp_path) -> Dbi:
    return opened(tmp_path, Pdb(GUID, 3, procedures=PROCEDURES)).dbi


def test_an_address_leads_to_its_module(dbi):
    indexes = [dbi.contributor(1, at) for at in (0, 0x1F, 0x100, 0x125)]
    assert [dbi.module(index).name for index in indexes] == ["a.obj", "a.obj", "b.obj", "b.obj"]
    assert dbi.contributor(1, 0x20) is None
    assert dbi.contributor(2, 0) is None


def test_between_contributions_the_last_one_is_known(dbi):
    assert dbi.module(dbi.last_contributor(1, 0x50)).name == "a.obj"
    assert dbi.last_contributor(2, 0x50) is None
    assert (dbi.contribution(1, 0x50), dbi.has_contributions) == (None, True)


def test_modules_are_found_by_name_in_any_case(dbi):
    assert dbi.module_named("B.OBJ") == dbi.module_named("b.obj")
    assert dbi.module_named("c.obj") is None
    assert dbi.module(dbi.module_count) is None
    assert dbi.module(-1) is None


def test_flags_and_machine(tmp_path):
    found = opened(tmp_path, Pdb(GUID, 3, machine=X64, publics=[Public("f", 0x1000)], is_stripped=True)).dbi
    assert (found.machine, found.is_stripped, found.age) == (X64, True, 3)
    assert found.machine != X86


def test_debug_streams_by_purpose(dbi):
    assert dbi.debug_stream(DebugStream.SECTIONS).size == 40
    assert dbi.debug_stream(DebugStream.FPO).size == 0


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (b"", "it has no DBI stream, so it is not the PDB of an image"),
        (b"x" * 64, "damaged (its DBI stream has an impossible head)"),
        (struct.pack("<i20xi", -1, -5) + bytes(36), "damaged (its DBI stream has an impossible head)"),
    ],
)
def test_a_damaged_head(tmp_path, stream, reason):
    """The first of these is what compilers write beside object files: `vc140.pdb` has types only."""
    path = tmp_path / "app.pdb"
    path.write_bytes(write_msf([b"", b"", b"", stream], 512))
    with MsfFile(path) as msf, pytest.raises(NotAPdb) as raised:
        Dbi(msf)
    assert str(raised.value) == f"{path}: {reason}"
