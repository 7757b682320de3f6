# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from throwstack.core.memory import PAGE_SIZE, Memory, MemoryUnreadable, memory_of


class CountingSource:
    """Has pages below 1 MiB, each filled with its own address, and counts the calls."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def page(self, address: int) -> bytes | None:
        self.asked.append(address)
        return address.to_bytes(8, "little") * (PAGE_SIZE // 8) if address < 1 << 20 else None


def test_values_are_little_endian():
    memory = memory_of({0x1000: bytes(range(1, 17))})
    assert memory.u8(0x1001) == 0x02
    assert memory.u16(0x1001) == 0x0302
    assert memory.u32(0x1001) == 0x05040302
    assert memory.u64(0x1001) == 0x0908070605040302


def test_a_read_may_cross_pages():
    memory = memory_of({0x1FFC: b"\x11\x22\x33\x44", 0x2000: b"\x55\x66\x77\x88"})
    assert memory.u64(0x1FFC) == 0x8877665544332211
    assert memory.u32(0x1FFE) == 0x66554433


def test_a_read_that_reaches_a_missing_page_names_its_first_missing_byte():
    memory = memory_of({0x1000: b"x" * PAGE_SIZE})
    with pytest.raises(MemoryUnreadable) as caught:
        memory.read(0x1FF0, 0x20)
    assert caught.value.address == 0x2000
    assert memory.read_available(0x1FF0, 0x20) == b"x" * 0x10


def test_a_page_is_asked_for_once_whether_it_is_there_or_not():
    source = CountingSource()
    memory = Memory(source)
    for _ in range(3):
        memory.u64(0x1008)
        assert not memory.is_readable(1 << 20)
    assert source.asked == [0x1000, 1 << 20]


def test_the_cache_is_bounded():
    source = CountingSource()
    memory = Memory(source, capacity=4)
    for page in range(8):
        assert memory.u64(page * PAGE_SIZE) == page * PAGE_SIZE
    memory.u64(0)
    assert len(source.asked) == 9


@given(st.binary(min_size=1, max_size=3 * PAGE_SIZE), st.integers(0, 3 * PAGE_SIZE), st.integers(1, 2 * PAGE_SIZE))
def test_a_read_equals_the_slice_of_the_segment(data: bytes, start: int, size: int):
    memory = memory_of({0x10000: data})
    padded = data + bytes(-len(data) % PAGE_SIZE)
    expected = padded[start : start + size]
    assert memory.read_available(0x10000 + start, size) == expected
    if len(expected) == size:
        assert memory.read(0x10000 + start, size) == expected
