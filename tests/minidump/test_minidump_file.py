# SPDX-License-Identifier: Apache-2.0
"""The file of a minidump: header, directory, places of parts, and the limit of RVAs."""

from __future__ import annotations

import io
import struct

import pytest

from throwstack.minidump.minidump_file import MAX_RVA, MinidumpFile, Placement, StreamType, TooLarge


def test_header_and_directory_are_at_the_begin_of_the_file():
    out = io.BytesIO()
    file = MinidumpFile(out, 3, time=0x5F5E100, flags=0x1041)
    file.add_stream(StreamType.COMMENT_W, file.append(b"AB\0\0"))
    assert file.finish() == len(out.getvalue())
    header = struct.unpack_from("<4sIIIIIQ", out.getvalue())
    assert header == (b"MDMP", 0xA793, 1, 32, 0, 0x5F5E100, 0x1041)
    kind, size, rva = struct.unpack_from("<III", out.getvalue(), 32)
    assert (kind, size) == (11, 4)
    assert out.getvalue()[rva : rva + size] == b"AB\0\0"


def test_parts_are_aligned_and_follow_each_other():
    file = MinidumpFile(io.BytesIO(), 1, time=0, flags=0)
    assert file.end == 32 + 12
    assert file.append(b"x" * 5) == Placement(5, 48)
    assert file.append(b"y", alignment=16) == Placement(1, 64)
    assert file.append_list([b"ab", b"cd"]) == Placement(4, 72)


def test_a_string_has_its_length_in_bytes_and_a_zero_and_is_written_once():
    out = io.BytesIO()
    file = MinidumpFile(out, 1, time=0, flags=0)
    rva = file.string("ntdll")
    assert out.getvalue()[rva:] == b"\x0a\0\0\0n\0t\0d\0l\0l\0\0\0"
    assert file.string("ntdll") == rva
    assert file.string("") != rva


def test_room_that_was_left_is_filled_later():
    out = io.BytesIO()
    file = MinidumpFile(out, 1, time=0, flags=0)
    rva = file.reserve(8)
    after = file.append(b"after")
    assert file.fill(rva, [b"ab", b"cd"]) == Placement(4, rva)
    file.finish()
    assert out.getvalue()[rva : rva + 8] == b"abcd\0\0\0\0"
    assert out.getvalue()[after.rva :] == b"after"


def test_a_hole_at_the_end_is_part_of_the_file(tmp_path):
    with (tmp_path / "sparse").open("w+b") as out:
        file = MinidumpFile(out, 1, time=0, flags=0)
        file.reserve(100)
        assert file.finish() == 48 + 100
    assert (tmp_path / "sparse").stat().st_size == 148


def test_no_part_begins_or_ends_after_four_gigabytes(tmp_path):
    with (tmp_path / "sparse").open("w+b") as out:
        file = MinidumpFile(out, 1, time=0, flags=0)
        file.reserve(MAX_RVA - 70)
        file.append(b"12345678")
        with pytest.raises(TooLarge):
            file.append(b"12345678")


def test_a_kind_of_stream_is_there_once():
    file = MinidumpFile(io.BytesIO(), 2, time=0, flags=0)
    file.add_stream(StreamType.COMMENT_W, Placement(0, 0))
    with pytest.raises(ValueError, match="COMMENT_W"):
        file.add_stream(StreamType.COMMENT_W, Placement(0, 0))
