# SPDX-License-Identifier: Apache-2.0
"""Handle tables of two Windows versions, laid out by hand."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from throwstack.core.memory import Memory, SegmentSource
from throwstack.minidump.dumped import DumpedHandle
from throwstack.pages.page_table_entries import Bits
from throwstack.volatility.memory.layout import Member
from throwstack.volatility.minidump_handles import HandleReader

EVENT = "Event".encode("utf-16-le")


class Layout:
    """Offsets, members and bit fields by path; sizes by the type's name."""

    def __init__(self, members: Mapping[str, int | Member]) -> None:
        self._members = members

    def find(self, path: str) -> int | None:
        found = self._members.get(path)
        return found.offset if isinstance(found, Member) else found

    def member(self, path: str) -> Member | None:
        found = self._members.get(path)
        return found if isinstance(found, Member) else None

    def bits(self, path: str) -> tuple[int, Bits] | None:
        found = self.member(path)
        return None if found is None or not found.width else (found.offset, Bits(found.shift, found.width))

    def size(self, type_name: str) -> int | None:
        return self.find(type_name)


class Machine:
    """A kernel's memory of a few ranges."""

    def __init__(self, segments: Mapping[int, bytes], layout: Layout, pointer_size: int) -> None:
        self.memory = Memory(SegmentSource(segments))
        self.layout = layout
        self.pointer_size = pointer_size

    def pointer(self, memory: Memory, address: int) -> int:
        return memory.pointer(address, self.pointer_size)

    def symbol(self, name: str) -> int | None:
        return {"ObTypeIndexTable": 0xFFFFF80000050000}.get(name) if self.pointer_size == 8 else None

    def canonical(self, address: int) -> int:
        return address | 0xFFFF000000000000 if address >> 47 & 1 else address


X64 = Layout(
    {
        "_EPROCESS.ObjectTable": 0x570,
        "_HANDLE_TABLE.TableCode": 8,
        "_HANDLE_TABLE_ENTRY": 16,
        "_HANDLE_TABLE_ENTRY.ObjectPointerBits": Member(0, 8, 20, 44),
        "_HANDLE_TABLE_ENTRY.GrantedAccessBits": Member(8, 4, 0, 25),
        "_OBJECT_HEADER.Body": 0x30,
        "_OBJECT_HEADER.TypeIndex": 0x18,
        "_OBJECT_HEADER.InfoMask": 0x1A,
        "_OBJECT_HEADER.PointerCount": Member(0, 8),
        "_OBJECT_HEADER.HandleCount": Member(8, 8),
        "_OBJECT_TYPE.Name": 0x10,
        "_UNICODE_STRING.Length": 0,
        "_UNICODE_STRING.Buffer": 8,
    }
)


def x64_entry(header: int, access: int) -> bytes:
    return struct.pack("<QQ", (header >> 4 & (1 << 44) - 1) << 20 | 1, access)


def x64_segments() -> dict[int, bytes]:
    header = struct.pack("<QQ8xBBB", 32769, 1, 3, 0, 0)
    return {
        0xFFFFA00000010000: struct.pack("<Q", 0xFFFFA00000020000).rjust(0x578, b"\0"),
        0xFFFFA00000020000: struct.pack("<QQ", 0, 0xFFFFA00000030001),  # one level of pages
        0xFFFFA00000030000: struct.pack("<QQQ", 0xFFFFA00000031000, 0xFFFFA00000032000, 0),
        0xFFFFA00000031000: bytes(16) + x64_entry(0xFFFFA00000040000, 0x1F0003) + bytes(16),
        0xFFFFA00000032000: bytes(32) + x64_entry(0xFFFFA00000040000, 0x100000),
        0xFFFFA00000040000: header,
        0xFFFFF80000050000: struct.pack("<4Q", 0, 0, 0, 0xFFFFA00000060000),
        0xFFFFA00000060000: bytes(16) + struct.pack("<HHIQ", len(EVENT), len(EVENT), 0, 0xFFFFA00000061000),
        0xFFFFA00000061000: EVENT,
    }


def test_a_table_with_two_pages_of_entries_on_x64():
    machine = Machine(x64_segments(), X64, 8)
    assert HandleReader(machine).handles(0xFFFFA00000010000) == (
        DumpedHandle(4, "Event", "", 0, 0x1F0003, 1, 32769),
        DumpedHandle(4 * (256 + 2), "Event", "", 0, 0x100000, 1, 32769),
    )


def test_a_page_that_is_absent_costs_the_handles_in_it():
    segments = x64_segments()
    del segments[0xFFFFA00000031000]
    machine = Machine(segments, X64, 8)
    assert [handle.value for handle in HandleReader(machine).handles(0xFFFFA00000010000)] == [4 * 258]


def test_a_table_of_x86_up_to_windows_7():
    layout = Layout(
        {
            "_EPROCESS.ObjectTable": 0xC4,
            "_HANDLE_TABLE.TableCode": 0,
            "_HANDLE_TABLE_ENTRY": 8,
            "_HANDLE_TABLE_ENTRY.Object": 0,
            "_HANDLE_TABLE_ENTRY.GrantedAccess": Member(4, 4),
            "_OBJECT_HEADER.Body": 0x18,
            "_OBJECT_HEADER.Type": 8,
            "_OBJECT_HEADER.NameInfoOffset": 12,
            "_OBJECT_HEADER_NAME_INFO.Name": 4,
            "_OBJECT_TYPE.Name": 0x40,
            "_UNICODE_STRING.Length": 0,
            "_UNICODE_STRING.Buffer": 4,
        }
    )
    name = "go".encode("utf-16-le")
    segments = {
        0x81000000: struct.pack("<I", 0x81001000).rjust(0xC8, b"\0"),
        0x81001000: struct.pack("<I", 0xE1000000),
        0xE1000000: bytes(8) + struct.pack("<II", 0x82000010 | 1, 0x001F0003),
        0x82000000: struct.pack("<IHHII", 0, len(name), len(name), 0xE2000000, 0)[:16]
        + struct.pack("<IIIB", 2, 1, 0x83000000, 16),
        0x83000040: struct.pack("<HHI", len(EVENT), len(EVENT), 0xE2001000),
        0xE2000000: name,
        0xE2001000: EVENT,
    }
    machine = Machine(segments, layout, 4)
    assert HandleReader(machine).handles(0x81000000) == (DumpedHandle(4, "Event", "go", 0, 0x1F0003),)


def test_a_table_that_leads_to_itself_ends():
    segments = x64_segments()
    segments[0xFFFFA00000020000] = struct.pack("<QQ", 0, 0xFFFFA00000030002)
    segments[0xFFFFA00000030000] = struct.pack("<512Q", *[0xFFFFA00000030000] * 512)
    machine = Machine(segments, X64, 8)
    assert len(HandleReader(machine).handles(0xFFFFA00000010000)) <= 1 << 16


def test_without_the_structures_there_are_no_handles():
    assert HandleReader(Machine({}, Layout({}), 8)).handles(0x1000) == ()
