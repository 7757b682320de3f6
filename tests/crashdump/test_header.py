# SPDX-License-Identifier: Apache-2.0
"""Headers of crash dumps, laid out here at the offsets of DUMP_HEADER32 and DUMP_HEADER64 of the Windows SDK."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.dump_headers import Buffer, header32, header64
from throwstack.crashdump.file_bytes import FileBytes
from throwstack.crashdump.header import DumpKind, read_header
from throwstack.pages.page_tables import PagingMode


def test_a_64bit_header_is_read_member_by_member():
    header = read_header(Buffer(header64(6)))
    assert header is not None
    assert (header.kind, header.size, header.paging) == (DumpKind.BITMAP_KERNEL, 0x2000, PagingMode.X64)
    assert (header.directory_base, header.version, header.processors) == (0x1AD000, (15, 19041), 8)
    assert (header.bug_check, header.parameters) == (0xE2, (1, 2, 3, 4))
    assert (header.module_list, header.debugger_data) == (0xFFFFF80300001000, 0xFFFFF80300003000)
    assert (header.system_time, header.up_time) == (132700000000000000, 36_000_000_000)
    assert not header.is_arm64


@pytest.mark.parametrize(("has_pae", "paging"), [(True, PagingMode.PAE), (False, PagingMode.X86)])
def test_a_32bit_header_is_read_member_by_member(has_pae: bool, paging: PagingMode):
    header = read_header(Buffer(header32(has_pae=has_pae)))
    assert header is not None
    assert (header.kind, header.size, header.paging) == (DumpKind.FULL, 0x1000, paging)
    assert (header.bug_check, header.parameters, header.processors) == (0xD1, (1, 2, 3, 4), 2)
    assert (header.system_time, header.up_time) == (128500000000000000, 36_000_000_000)
    assert not header.is_arm64


def test_a_member_that_windows_left_as_filler_is_absent():
    page = header64()
    page[0xFA8:0xFB0] = b"PAGEPAGE"
    header = read_header(Buffer(page))
    assert header is not None
    assert header.system_time is None


def test_an_unknown_type_has_no_kind():
    header = read_header(Buffer(header64(0x45474150)))
    assert header is not None
    assert (header.kind, header.dump_type) == (None, 0x45474150)


@pytest.mark.parametrize("data", [b"", b"PAGEDU64", bytes(0x2000), bytes(header64()[:0x1FFF]), b"MDMP" + bytes(0x2000)])
def test_bytes_without_a_header_give_none(data: bytes):
    assert read_header(Buffer(data)) is None


@given(st.binary(max_size=64), st.integers(0, 0x1FC0))
def test_random_bytes_in_a_header_raise_nothing(noise: bytes, where: int):
    page = header64()
    page[max(8, where) : max(8, where) + len(noise)] = noise
    header = read_header(Buffer(bytes(page[:0x2000])))
    assert header is None or header.is_64bit


def test_a_read_at_the_end_of_a_file_is_short(tmp_path: Path):
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    data = FileBytes(path)
    assert (data.size, data.read(8, 5), data.read(10, 1), data.read(-1, 4)) == (10, b"89", b"", b"")
    data.close()
