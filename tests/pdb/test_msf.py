# SPDX-License-Identifier: Apache-2.0
"""The container of a PDB: streams in blocks, and blocks that are not there."""

from __future__ import annotations

import struct
from io import BytesIO

import pytest

from tests.support.msf_writer import write_msf
from throwstack.pdb.msf import MsfFile, NotAPdb

STREAM = bytes(range(256)) * 4


def test_a_stream_of_several_blocks():
    msf = MsfFile(BytesIO(write_msf([b"", STREAM], 512)))
    assert msf.stream(1, 1 << 20) == STREAM
    assert msf.stream(1, 700) == STREAM[:700]
    assert msf.stream(2, 1 << 20) == b""


def test_a_block_outside_the_file_does_not_move_the_next_one_up():
    """Else the second block's bytes were taken for the first's, and those of the end were not there."""
    data = write_msf([b"", STREAM], 512)
    first = next(at for at in range(3, len(data) // 512) if data[at * 512 : at * 512 + 4] == STREAM[:4])
    at = data.rfind(struct.pack("<II", first, first + 1))
    msf = MsfFile(BytesIO(data[:at] + struct.pack("<I", 0x400000) + data[at + 4 :]))
    with pytest.raises(NotAPdb, match="a stream is outside the file"):
        msf.stream(1, 1 << 20)
