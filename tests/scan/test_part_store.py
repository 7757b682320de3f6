# SPDX-License-Identifier: Apache-2.0
"""Parts: one whole file a dump, whatever happens while it is written."""

from __future__ import annotations

import errno
import os

import pytest

from tests.scan.misbehave import report
from throwstack.scan.dump_record import DumpOutcome, DumpRecord, NoDumpRecord, read_record
from throwstack.scan.part_store import PartStore, StorageFailed

RECORD = DumpRecord(
    path="/dumps/caf\udce9.dmp",
    key="k",
    outcome=DumpOutcome.EXAMINED,
    size=7,
    modified=12,
    kind="crash-dump",
    seconds=1.5,
    report=report("größe", crashes=2),
)


@pytest.fixture
def store(tmp_path) -> PartStore:
    made = PartStore(tmp_path / "out" / "parts")
    made.prepare()
    return made


def test_a_record_comes_back_as_it_was(store):
    store.write(RECORD)
    assert store.read(RECORD.path) == RECORD
    assert RECORD.crashes == 2


def test_a_later_record_of_a_dump_replaces_the_earlier_one(store):
    store.write(DumpRecord(RECORD.path, "k", DumpOutcome.FAILED))
    store.write(RECORD)
    assert [part.name for part in store.directory.iterdir()] == [store._path(RECORD.path).name]
    assert store.read(RECORD.path) == RECORD


def test_records_come_in_the_order_of_the_paths_asked_for(store):
    for path in ("/b", "/a"):
        store.write(DumpRecord(path, "k", DumpOutcome.FAILED))
    assert [record.path for record in store.records(iter(["/a", "/none", "/b"]))] == ["/a", "/b"]


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"format": 0}', b'{"format": 1, "path": "/a"}', b"null"])
def test_what_is_no_record_is_absent(store, data):
    store._path("/a").write_bytes(data)
    assert store.read("/a") is None
    with pytest.raises(NoDumpRecord):
        read_record(data)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_fills_up_leaves_the_old_record_and_nothing_else(store, monkeypatch, call):
    store.write(RECORD)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(f"os.{call}" if call == "fsync" else "pathlib.Path.replace", full)
    with pytest.raises(StorageFailed, match="No space left on device"):
        store.write(DumpRecord(RECORD.path, "other", DumpOutcome.FAILED))
    assert store.read(RECORD.path) == RECORD
    assert len(list(store.directory.iterdir())) == 1


def test_what_a_killed_run_left_unfinished_is_removed(store):
    (store.directory / "abc-17.unfinished").write_bytes(b"half")
    store.prepare()
    assert list(store.directory.iterdir()) == []


def test_a_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageFailed, match="file/parts: Not a directory"):
        PartStore(tmp_path / "file" / "parts").prepare()


def test_a_part_that_was_changed_on_the_disk_is_absent(store):
    """One flipped bit makes another digit of a number: JSON as good as before."""
    store.write(RECORD)
    part = store._path(RECORD.path)
    part.write_bytes(part.read_bytes().replace(b'"size": 7', b'"size": 3'))
    assert store.read(RECORD.path) is None
