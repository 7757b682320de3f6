# SPDX-License-Identifier: Apache-2.0
"""Identity, named streams and features of a PDB."""

from __future__ import annotations

import struct

import pytest

from tests.support.msf_writer import write_msf
from tests.support.open_pdb import GUID, opened
from tests.support.pdb_writer import Pdb
from throwstack.pdb.info_stream import InfoStream, read_info
from throwstack.pdb.msf import MsfFile, NotAPdb

HEAD = struct.pack("<III", 20000404, 0, 7) + bytes(16)


def info(tmp_path, stream: bytes) -> InfoStream:
    path = tmp_path / "app.pdb"
    path.write_bytes(write_msf([b"", stream], 512))
    with MsfFile(path) as msf:
        return read_info(msf)


def test_what_todays_linkers_write(tmp_path):
    found = opened(tmp_path, Pdb(GUID, 3, info_age=9)).info
    assert (found.guid, found.age, found.has_ids, found.is_fastlink) == (GUID, 9, True, False)
    assert "/names" in found.named_streams


def test_old_pdbs_have_no_id_stream(tmp_path):
    """Debug PDBs of Visual C++ 2005 and 2008 have another stream where the ids are today."""
    found = opened(tmp_path, Pdb(GUID, 3, stream_4=b"something else")).info
    assert not found.has_ids
    assert "/names" in found.named_streams


def test_fastlink_is_a_feature(tmp_path):
    assert opened(tmp_path, Pdb(GUID, 3, is_fastlink=True)).info.is_fastlink


@pytest.mark.parametrize(
    "rest",
    [
        b"",
        struct.pack("<I", 1 << 31),
        struct.pack("<I", 0) + struct.pack("<IIII", 1 << 30, 1 << 30, 0, 0),
        struct.pack("<I", 0) + struct.pack("<III", 1, 1, 1 << 29),
    ],
)
def test_damaged_names_cost_the_names_alone(tmp_path, rest):
    assert info(tmp_path, HEAD + rest) == InfoStream("0" * 32, 7)


def test_without_an_identity_it_is_no_pdb(tmp_path):
    with pytest.raises(NotAPdb, match=r"app\.pdb: damaged \(it has no identity\)"):
        info(tmp_path, HEAD[:20])


def test_names_that_overlap_take_little_memory(tmp_path):
    """60,000 entries name a stream each, from every offset of one long string."""
    count, names = 60_000, b"n" * 500_000
    table = struct.pack("<IIII", count, count, 0, 0) + b"".join(struct.pack("<II", at, 5) for at in range(count))
    found = info(tmp_path, HEAD + struct.pack("<I", len(names)) + names + table)
    assert sum(map(len, found.named_streams)) <= 4096 * 256
