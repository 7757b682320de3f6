# SPDX-License-Identifier: Apache-2.0
"""The container format of PDBs: streams in blocks, and blocks outside the file."""

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


def test_a_block_outside_the_file_is_damage_and_does_not_shift_the_next_one():
    """If it were skipped, the bytes of the second block would be taken for those of the first."""
    data = write_msf([b"", STREAM], 512)
    first = next(at for at in range(3, len(data) // 512) if data[at * 512 : at * 512 + 4] == STREAM[:4])
    at = data.rfind(struct.pack("<II", first, first + 1))
    msf = MsfFile(BytesIO(data[:at] + struct.pack("<I", 0x400000) + data[at + 4 :]))
    with pytest.raises(NotAPdb, match="a stream is outside the file"):
        msf.stream(1, 1 << 20)
