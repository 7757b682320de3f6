# SPDX-License-Identifier: Apache-2.0
"""Cabinets, written as makecab does."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.cabinet_writer import LZX, MSZIP, STORED, cabinet
from throwstack.files.cabinet import NotUnpacked, unpack

DATA = b"".join(b"line %d of a file\n" % (index * index % 977) for index in range(9000))


@pytest.fixture
def unpacked(tmp_path):
    """Unpack a cabinet, and return what came out."""

    def run(data: bytes) -> bytes:
        packed, target = tmp_path / "app.pd_", tmp_path / "out" / "app.pdb"
        target.parent.mkdir()
        packed.write_bytes(data)
        os.utime(packed, ns=(10**18, 10**18))
        unpack(packed, target)
        assert target.stat().st_mtime_ns == 10**18
        assert list(target.parent.iterdir()) == [target]
        return target.read_bytes()

    return run


@pytest.mark.parametrize("method", [STORED, MSZIP])
@pytest.mark.parametrize("flags", [0, 4])
@pytest.mark.parametrize("before", [b"", b"another file", DATA[:40_000]])
@pytest.mark.parametrize("size", [0, 1, 0x8000, 0x8001, len(DATA)])
def test_a_file_is_unpacked_whole(unpacked, method, flags, before, size):
    assert unpacked(cabinet(DATA[:size], method, flags, before)) == DATA[:size]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "damaged"),
        (b"MSCF", "damaged"),
        (b"<html>" + b" " * 100, "not a cabinet"),
        (cabinet(DATA)[:-100], "damaged"),
        (cabinet(DATA, LZX), "LZX, which is not read"),
        (cabinet(DATA, 2), "Quantum, which is not read"),
        (cabinet(DATA, 7), "an unknown method"),
        (cabinet(DATA, flags=1), "one of several"),
    ],
)
def test_a_cabinet_that_cannot_be_unpacked_leaves_no_file(unpacked, tmp_path, data, reason):
    with pytest.raises(NotUnpacked, match=reason):
        unpacked(data)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "app.pd_"]


def test_a_target_that_cannot_be_written(tmp_path):
    (tmp_path / "app.pd_").write_bytes(cabinet(DATA))
    with pytest.raises(OSError, match="app"):
        unpack(tmp_path / "app.pd_", tmp_path / "app.pd_" / "app.pdb")


WHOLE = cabinet(DATA[:3000])


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_random_damage_raises_only_the_documented_errors(tmp_path_factory, changes):
    data = bytearray(WHOLE)
    for at, byte in changes:
        data[at] = byte
    packed = tmp_path_factory.getbasetemp() / "app.pd_"
    packed.write_bytes(data)
    target = packed.with_name("app.pdb")
    target.unlink(missing_ok=True)
    try:
        unpack(packed, target)
    except NotUnpacked:
        assert not target.exists()
