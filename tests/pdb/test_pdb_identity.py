# SPDX-License-Identifier: Apache-2.0
"""GUID and age of a PDB, and whether it is that of an image."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.pdb_writer import Pdb, Procedure
from throwstack.images.image import PdbIdentity
from throwstack.pdb.msf import NotAPdb
from throwstack.pdb.pdb_identity import PdbFileIdentity, check_pdb, read_pdb_identity

GUID = "0123456789ABCDEF00112233445566AA"
SOUND = Pdb(GUID, age=3, procedures=[Procedure("f", 0x1000, 16)]).to_bytes(512)


def write(tmp_path, data: bytes):
    path = tmp_path / "file.pdb"
    path.write_bytes(data)
    return path


def test_age_is_that_of_the_dbi_stream(tmp_path):
    """A PDB that was stripped or source-indexed after linking: the info stream's age went up, the image's did not."""
    path = write(tmp_path, Pdb(GUID, age=3, info_age=9).to_bytes())
    assert read_pdb_identity(path) == PdbFileIdentity(GUID, 3)


def test_a_pdb_without_a_dbi_stream_has_the_age_of_its_info_stream(tmp_path):
    path = write(tmp_path, Pdb(GUID, age=3, info_age=9, has_dbi=False).to_bytes())
    assert read_pdb_identity(path) == PdbFileIdentity(GUID, 9)


def test_the_right_pdb_passes_the_check(tmp_path):
    assert check_pdb(write(tmp_path, SOUND), PdbIdentity("file.pdb", GUID, 3), 1 << 30) is None


def test_wrong_age_and_wrong_guid_are_told_apart(tmp_path):
    path = write(tmp_path, SOUND)
    assert check_pdb(path, PdbIdentity("file.pdb", GUID, 4), 1 << 30) == f"age 3, the image wants 4 (GUID {GUID})"
    other = GUID[::-1]
    assert check_pdb(path, PdbIdentity("file.pdb", other, 3), 1 << 30) == f"GUID {GUID}, the image wants {other}"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a PDB"),
        (b"MZ" * 100, "not a PDB"),
        (b"BSJB\1\0\1\0".ljust(100, b"\0"), "a portable PDB, which is for .NET code only"),
        (b"Microsoft C/C++ program database 2.00\r\n\x1aJG\0\0".ljust(100, b"\0"), "a PDB of the old format 2.00"),
        (SOUND[:-1], "truncated"),
        (SOUND[:32] + b"\x07" + SOUND[33:], "damaged"),
        (SOUND[:44] + b"\xff\xff\xff\x7f" + SOUND[48:], "damaged"),
        (SOUND[:44] + b"\0\0\0\2" + SOUND[48:], "damaged (its directory is longer than the file)"),
        (SOUND[:52] + b"\xff\xff\xff\x7f" + SOUND[56:], "damaged (a stream is outside the file)"),
    ],
)
def test_a_file_that_is_not_a_pdb_is_refused_with_a_reason(tmp_path, data, reason):
    assert (check_pdb(write(tmp_path, data), PdbIdentity("file.pdb", GUID, 3), 1 << 30) or "").startswith(reason)


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    reason = check_pdb(write(tmp_path, SOUND), PdbIdentity("file.pdb", GUID, 3), len(SOUND) - 1)
    assert reason is not None
    assert "limit" in reason


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, len(SOUND) - 1), st.integers(0, 255)), min_size=1, max_size=8))
def test_random_damage_gives_a_reason_or_no_effect(tmp_path_factory, changes):
    data = bytearray(SOUND)
    for offset, value in changes:
        data[offset] = value
    path = write(tmp_path_factory.mktemp("damaged"), bytes(data))
    with suppress(NotAPdb):
        assert len(read_pdb_identity(path).guid) == 32
