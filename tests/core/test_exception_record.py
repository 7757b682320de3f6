# SPDX-License-Identifier: Apache-2.0
"""EXCEPTION_RECORD in both layouts, and chains of them."""

from __future__ import annotations

import struct

import pytest

from throwstack.core.exception_record import MAX_CHAIN, nested_records, read_record
from throwstack.core.memory import MemoryUnreadable, memory_of
from throwstack.core.registers import Arch


def test_an_x86_record_is_read_member_by_member():
    data = struct.pack("<5I3I", 0xE06D7363, 1, 0, 0x77E4BEE7, 3, 0x19930520, 0x045BAC00, 0x0342DC6C)
    record = read_record(memory_of({0x45BAB68: data}), 0x45BAB68, Arch.X86)
    assert (record.code, record.flags, record.address, record.nested) == (0xE06D7363, 1, 0x77E4BEE7, 0)
    assert record.parameters == (0x19930520, 0x045BAC00, 0x0342DC6C)
    assert record.location == 0x45BAB68
    assert record.is_well_formed


def test_an_x64_record_is_read_member_by_member():
    data = struct.pack("<IIQQI4x2Q", 0xC0000005, 0, 0xABC0, 0x7FF712345678, 2, 1, 0x10)
    record = read_record(memory_of({0x1000: data}), 0x1000, Arch.X64)
    assert (record.code, record.nested, record.address) == (0xC0000005, 0xABC0, 0x7FF712345678)
    assert record.parameters == (1, 0x10)


def test_record_with_too_many_parameters_is_not_well_formed():
    data = struct.pack("<5I", 1, 0, 0, 0, 0x7FFFFFFF) + b"\0" * 60
    record = read_record(memory_of({0x1000: data}), 0x1000, Arch.X86)
    assert len(record.parameters) == 15
    assert not record.is_well_formed


def test_record_across_an_absent_page_is_unreadable():
    data = struct.pack("<5I", 1, 0, 0, 0, 15)
    with pytest.raises(MemoryUnreadable):
        read_record(memory_of({0x1FE0: data}), 0x1FE0, Arch.X86)


def _records(*links: tuple[int, int]) -> dict[int, bytes]:
    return {at: struct.pack("<5I", at, 0, following, 0, 0) for at, following in links}


def test_chain_is_followed_to_its_end():
    memory = memory_of(_records((0x1000, 0x2000), (0x2000, 0x3000), (0x3000, 0)))
    chain = nested_records(memory, read_record(memory, 0x1000, Arch.X86), Arch.X86)
    assert [record.location for record in chain] == [0x2000, 0x3000]


def test_chain_that_leads_back_to_itself_ends():
    memory = memory_of(_records((0x1000, 0x2000), (0x2000, 0x1000)))
    chain = nested_records(memory, read_record(memory, 0x1000, Arch.X86), Arch.X86)
    assert [record.location for record in chain] == [0x2000]


def test_chain_is_bounded_and_ends_at_absent_memory():
    memory = memory_of(_records(*((at, at + 0x20) for at in range(0x1000, 0x1800, 0x20))))
    assert len(nested_records(memory, read_record(memory, 0x1000, Arch.X86), Arch.X86)) == MAX_CHAIN
    torn = memory_of(_records((0x1000, 0x5000)))
    assert nested_records(torn, read_record(torn, 0x1000, Arch.X86), Arch.X86) == ()


def test_chain_ends_at_bytes_that_cannot_be_a_record():
    many = struct.pack("<5I", 0xC0000005, 0, 0, 0, 16) + b"\0" * 60
    for following in (b"\0" * 80, many):
        memory = memory_of({**_records((0x1000, 0x2000)), 0x2000: following})
        assert nested_records(memory, read_record(memory, 0x1000, Arch.X86), Arch.X86) == ()
