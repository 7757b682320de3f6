# SPDX-License-Identifier: Apache-2.0
"""Converted PDBs in the user's cache. Another user may have put them there, so they are as hostile as a dump."""

from __future__ import annotations

import os
import stat
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.app_pdb import APP, GUID, Place
from tests.support.pdb_writer import Pdb, Public
from throwstack.pdb.convert import Converted, NotConverted, convert, load, pack_functions, save, unpack_functions

STAMP = (1000, 5)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    there = Place(tmp_path)
    there.put(APP)
    return there


def kept(place: Place) -> Path:
    (path,) = place.cache.rglob("*.symbols")
    return path


def forge(place: Place, **parts: bytes) -> None:
    """Replace parts in the kept file of `APP`, with the right checksum."""
    path, pdb = kept(place), place.pdbs / "app.pdb"
    stamp = (pdb.stat().st_size, pdb.stat().st_mtime_ns)
    found = load(path, stamp)
    path.unlink()
    save(path, replace(found, **parts), stamp)


def with_sum(path: Path, body: bytes) -> None:
    path.write_bytes(struct.pack("<16sQI", b"throwstack pdb 5", len(body), zlib.crc32(body)) + body)


def other_pdb(tmp_path: Path, guid: str, age: int) -> bytes:
    path = tmp_path / "other.pdb"
    path.write_bytes(Pdb(guid, age, publics=[Public("_misleading", 0x1300)]).to_bytes())
    return convert(path).symcache


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"functions": b""}, "its list of functions is shorter than its count says"),
        ({"functions": b"\xff" * 8}, "its list of functions is shorter than its count says"),
        ({"functions": struct.pack("<QI", 2, 1)}, "its list of functions is shorter than its count says"),
        ({"symcache": b""}, ""),
        ({"symcache": b"\xff" * 4000}, ""),
    ],
)
def test_a_forged_file_with_a_right_checksum_is_reported_and_replaced(place, parts, reason):
    place.table()
    genuine = kept(place).read_bytes()
    forge(place, **parts)
    assert place.table().rva_of("untyped") == 0x1300
    (said,) = place.said
    assert said.startswith(f"{kept(place)}: not a valid converted PDB ({reason}")
    assert said.endswith("the PDB is converted again")
    assert kept(place).read_bytes() == genuine


@pytest.mark.parametrize(("guid", "age"), [(GUID[::-1], 3), (GUID, 4)])
def test_guid_and_age_are_checked_in_the_kept_file_too(place, tmp_path, guid, age):
    place.table()
    forge(place, symcache=other_pdb(tmp_path, guid, age))
    assert place.table().locate(0x1305)[0].symbol == "untyped"
    assert f"not of {GUID} age 3" in place.said[0]


def test_frame_data_of_a_forged_file_is_bounded(place):
    place.table()
    long = "f" * 100_000
    forge(place, frames=f"STACK WIN 4 1100 40 {long} 0 -8 4 8 0 1 x\nSTACK WIN 4 {long} 40 5 0 8 4 8 0 1 y".encode())
    assert place.table().frame_data(0x1104) is None
    assert place.said == []


def test_parts_that_do_not_fill_the_file_exactly_are_refused(tmp_path):
    path = tmp_path / "x"
    stamp = struct.pack("<Qq", *STAMP)
    for body, reason in (
        (stamp, "a part is longer"),
        (stamp + struct.pack("<Q", 1 << 63), "a part is longer"),
        (stamp + struct.pack("<Q", 3) + b"abc", "a part is longer"),
        (stamp + bytes(40) + b"more", "longer than its parts"),
        (stamp + bytes(40), "list of functions"),
    ):
        with_sum(path, body)
        with pytest.raises(NotConverted, match=reason):
            load(path, STAMP)


def test_a_file_much_larger_than_its_pdb_is_not_read(tmp_path):
    """A sparse file takes no room on the disk, but would take it in memory."""
    path = tmp_path / "x"
    size = 1 << 40
    path.write_bytes(struct.pack("<16sQI", b"throwstack pdb 5", size - 28, 0) + struct.pack("<Qq", *STAMP))
    os.truncate(path, size)
    with pytest.raises(NotConverted, match="1048575 MB, made from 0 MB"):
        load(path, STAMP)


def test_a_list_of_functions_with_too_many_or_too_few_names():
    packed = pack_functions([(1, "a"), (2, "b")])
    assert unpack_functions(packed + b"\n" * 1000) == [(1, "a"), (2, "b")]
    assert unpack_functions(packed[: packed.index(b"a")]) == [(1, "")]


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_a_link_or_a_pipe_is_not_opened(tmp_path):
    """To open a pipe waits until another process opens its other end."""
    genuine, link, pipe = (tmp_path / name for name in ("genuine", "link", "pipe"))
    save(genuine, Converted(b"", pack_functions([]), b""), STAMP)
    assert load(genuine, STAMP) is not None
    link.symlink_to(genuine)
    os.mkfifo(pipe)
    for path in (link, pipe):
        with pytest.raises(NotConverted, match="no regular file"):
            load(path, STAMP)


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps the directory to its user by itself")
def test_the_cache_is_made_for_this_user_alone(place):
    place.table()
    assert stat.S_IMODE(place.cache.stat().st_mode) == 0o700


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps the directory to its user by itself")
@pytest.mark.parametrize("whose", ["everybody's", "another user's"])
def test_a_cache_that_others_may_write_to_is_not_used(place, monkeypatch, whose):
    """Its files stay as they are, and the PDB is read all the same."""
    place.table()
    if whose == "everybody's":
        place.cache.chmod(0o777)
        reason = "everybody may write to it"
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
        if os.getuid() == 0:  # what root made would be trusted
            os.chown(place.cache, 54321, -1)
        reason = "it belongs to another user"
    before = kept(place).read_bytes()
    assert place.table().rva_of("untyped") == 0x1300
    assert place.said == [f"{place.cache} is not used: {reason}; PDBs are converted again in every run"]
    assert kept(place).read_bytes() == before
