# SPDX-License-Identifier: Apache-2.0
"""The container format of PDBs: streams in blocks, and blocks outside the file."""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path

import pytest

from tests.support.msf_writer import write_msf
from throwstack.pdb.msf import MsfFile, NotAPdb

STREAM = bytes(range(256)) * 4


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "app.pdb"
    path.write_bytes(data)
    return path


def test_a_stream_of_several_blocks(tmp_path):
    with MsfFile(written(tmp_path, write_msf([b"", STREAM], 512))) as msf:
        stream = msf.stream(1)
        assert (stream.size, stream.read()) == (1024, STREAM)
        assert stream.read(500, 20) == STREAM[500:520]
        assert stream.read(1020, 100) == STREAM[1020:]
        assert stream.read(1024, 4) == b""
        assert (msf.stream(2).size, msf.stream(2).read(0, 4)) == (0, b"")


def test_blocks_in_any_order(tmp_path):
    """Incremental linking leaves the blocks of a stream all over the file. Here they are moved by hand."""
    data = bytearray(write_msf([b"", STREAM], 512))
    first = next(at for at in range(3, len(data) // 512) if data[at * 512 : at * 512 + 4] == STREAM[:4])
    marked = b"".join(bytes([index]) * 512 for index in range(2))
    data[first * 512 : (first + 2) * 512] = marked[512:] + marked[:512]
    at = data.rfind(struct.pack("<II", first, first + 1))
    data[at : at + 8] = struct.pack("<II", first + 1, first)
    with MsfFile(written(tmp_path, bytes(data))) as msf:
        assert msf.stream(1).read() == marked
        assert msf.stream(1).read(510, 4) == b"\0\0\1\1"


def test_any_range_of_a_stream(tmp_path):
    chance = random.Random(1)
    content = chance.randbytes(5000)
    with MsfFile(written(tmp_path, write_msf([b"", content], 512))) as msf:
        for _ in range(500):
            offset, size = chance.randrange(5100), chance.randrange(2000)
            assert msf.stream(1).read(offset, size) == content[offset : offset + size]


def test_a_block_outside_the_file_is_damage_and_does_not_shift_the_next_one(tmp_path):
    """If it were skipped, the bytes of the second block would be taken for those of the first."""
    data = write_msf([b"", STREAM], 512)
    first = next(at for at in range(3, len(data) // 512) if data[at * 512 : at * 512 + 4] == STREAM[:4])
    at = data.rfind(struct.pack("<II", first, first + 1))
    path = written(tmp_path, data[:at] + struct.pack("<I", 0x400000) + data[at + 4 :])
    with MsfFile(path) as msf, pytest.raises(NotAPdb, match="a stream is outside the file") as raised:
        msf.stream(1).read()
    assert str(raised.value).startswith(f"{path}: ")


def test_a_file_that_is_truncated_while_it_is_open(tmp_path):
    """A linker writes the PDB anew while it is read: an error, and not the end of the process (SIGBUS)."""
    path = written(tmp_path, write_msf([b"", STREAM * 16], 512))
    with MsfFile(path) as msf:
        with path.open("r+b") as file:
            file.truncate(1024)
        with pytest.raises(NotAPdb, match="truncated while it was read"):
            msf.stream(1).read()


def test_a_file_that_is_written_anew_in_place(tmp_path, monkeypatch):
    """A linker that writes into the old file: its length may be the same, and half of what is read would be old."""
    old, new = (write_msf([b"", STREAM * 16, bytes([fill]) * 4000], 512) for fill in (1, 2))
    assert len(old) == len(new)
    monkeypatch.setattr("throwstack.pdb.msf._CHECKED_EVERY", 0.0)
    path = written(tmp_path, old)
    with MsfFile(path) as msf:
        assert msf.stream(2).read(0, 600) == b"\1" * 600
        status = path.stat()
        with path.open("r+b") as file:
            file.write(new)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000))  # the clock may be a coarse one
        with pytest.raises(NotAPdb, match="changed while it was read"):
            msf.stream(2).read(600, 3000)


def test_a_stream_longer_than_the_file_is_damage(tmp_path):
    """Its list of blocks could name one block over and over, and fill the memory."""
    data = write_msf([b"", STREAM], 512)
    directory_at = data.rfind(struct.pack("<III", 2, 0, len(STREAM)))
    path = written(tmp_path, data[: directory_at + 8] + struct.pack("<I", 1 << 16) + data[directory_at + 12 :])
    with pytest.raises(NotAPdb, match="shorter than its lists of blocks"):
        MsfFile(path)


def test_more_files_than_a_process_can_have_open(tmp_path):
    """A dump of a whole machine has a thousand DLLs. The file that was opened first is closed, and opened once more."""
    files = []
    for number in range(200):
        path = tmp_path / f"{number}.pdb"
        path.write_bytes(write_msf([b"", number.to_bytes(2, "little") * 600], 512))
        files.append(MsfFile(path))
    opened = [file for file in files if file._file is not None]
    assert len(opened) <= 64
    for number, file in enumerate(files):
        assert file.stream(1).read(998) == number.to_bytes(2, "little") * 101
        file.close()
    assert all(file._file is None for file in files)


def test_a_file_that_was_replaced_while_it_rested(tmp_path):
    path = written(tmp_path, write_msf([b"", STREAM * 4], 512))
    with MsfFile(path) as msf:
        msf._rest()
        path.write_bytes(write_msf([b"", STREAM * 3], 512))
        with pytest.raises(NotAPdb, match="changed while it was read"):
            msf.stream(1).read(600, 600)
    path.unlink()


def test_a_closed_file_can_be_removed(tmp_path):
    """Windows does not remove a file that is open or mapped."""
    path = written(tmp_path, write_msf([b"", STREAM], 512))
    with MsfFile(path) as msf:
        stream = msf.stream(1)
    path.unlink()
    with pytest.raises(NotAPdb, match="was closed"):
        stream.read()
