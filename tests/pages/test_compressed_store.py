# SPDX-License-Identifier: Apache-2.0
"""A compressed store of build 17763 on x64, written byte by byte, and the effect of wrong bytes in it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.store_memory import (
    CHUNK,
    CHUNKS,
    FILE,
    GLOBALS,
    KERNEL,
    LEFT,
    METADATA,
    NOISE,
    OWNER,
    PACKED,
    PAGES,
    REGION,
    REGIONS,
    RIGHT,
    ROOT,
    STORE,
    TEXT,
    Laid,
    lay,
)
from throwstack.core.memory import PAGE_SIZE, Memory
from throwstack.pages.compressed_store import CompressedStores, NotInStore
from throwstack.pages.store_layout import StoreLayout, store_layout


def stores(kernel: Laid, owner: Laid, layout: StoreLayout | None = None) -> CompressedStores:
    layout = layout or store_layout(17763, is_64bit=True)
    assert layout is not None
    memory = Memory(owner)
    return CompressedStores(Memory(kernel), GLOBALS, layout, lambda process: memory if process == OWNER else None)


def test_pages_are_found_by_both_branches_of_the_tree():
    found = stores(*lay())
    assert found.page(FILE, 0x1234) == TEXT
    assert found.page(FILE, 5) == NOISE
    assert found.page(FILE, 0x1234) == TEXT


Change = Callable[[Laid, Laid], None]


def put(address: int, code: str, *values: int) -> Change:
    return lambda kernel, _: kernel.put(address, code, *values)


RECORD = CHUNK + 0x1000 + 0x30 + 15 * 0x10
DAMAGES = [
    pytest.param(put(GLOBALS + 0x1C0, "Q", 0), "not in the dump", id="no tree"),
    pytest.param(put(GLOBALS + 0x1C0, "Q", 2**64 - 8), "not in the dump", id="tree at the end of the address space"),
    pytest.param(put(ROOT + 0x18, "Q", ROOT), "tree of the store is damaged", id="tree that is its own child"),
    pytest.param(put(ROOT, "H", 256), "tree of the store is damaged", id="more children than fit"),
    pytest.param(put(RIGHT, "H", 511), "tree of the store is damaged", id="more keys than fit"),
    pytest.param(put(RIGHT, "H", 0), "key is not in", id="empty leaf"),
    pytest.param(put(RIGHT, "H", 1), "key is not in", id="key is gone"),
    pytest.param(put(ROOT + 0x10, "I", 0x20001235), "key is not in", id="key on the other side"),
    pytest.param(put(RIGHT + 0x1C, "I", 0x01000021), "marked as not valid", id="store not valid"),
    pytest.param(put(RIGHT + 0x1C, "I", 34), "not in the dump", id="no such store"),
    pytest.param(put(RIGHT + 0x1C, "I", 65), "not in the dump", id="no such row of stores"),
    pytest.param(put(STORE + 0x50 + 0x3E0, "H", 4), "another algorithm", id="Huffman"),
    pytest.param(put(STORE + 0x19A8, "Q", OWNER + 8), "owner is not", id="another process is the owner"),
    pytest.param(put(PAGES + 0x1C, "I", 15), "in no chunk", id="chunk 0"),
    pytest.param(put(STORE + 0x110 + 0x108, "I", 0x20), "in no chunk", id="no bits are left for the chunk"),
    pytest.param(put(PAGES + 0x1C, "I", 0xFFFFFFFF), "not in the dump", id="chunk far away"),
    pytest.param(put(CHUNKS + 0x20, "Q", 0), "not in the dump", id="chunk is gone"),
    pytest.param(put(RECORD, "II", 0xFFFFFFFF, 6 << 4 | 15), "leads to another one", id="record leads to another"),
    pytest.param(put(RECORD, "I", 2 << 12), "region is not valid", id="no such region"),
    pytest.param(put(REGIONS, "Q", REGION + 0x1000), "region is not valid", id="region not aligned"),
    pytest.param(put(REGIONS, "Q", KERNEL), "region is not valid", id="region in the kernel"),
    pytest.param(put(REGIONS, "Q", 0x7FFF0000), "data is not in the dump", id="region paged out"),
    pytest.param(put(STORE + 0x50 + 0x32C, "I", 32), "division into regions", id="regions without end"),
    pytest.param(put(RECORD + 4, "I", 0), "gives no size", id="nothing stored"),
    pytest.param(put(RECORD + 4, "I", 0x2000), "gives no size", id="two pages stored"),
    pytest.param(put(RECORD + 4, "I", len(PACKED) - 1), "data is damaged", id="cut off"),
    pytest.param(put(RECORD, "I", 4), "data is damaged", id="a unit further"),
    pytest.param(lambda _, owner: owner.pages.clear(), "data is not in the dump", id="owner's memory gone"),
]


@pytest.mark.parametrize(("change", "reason"), DAMAGES)
def test_a_damaged_structure_costs_the_page_and_the_reason_is_given(change: Change, reason: str):
    kernel, owner = lay()
    change(kernel, owner)
    found = stores(kernel, owner)
    for _ in range(2):  # the second time the answer is remembered
        with pytest.raises(NotInStore, match=reason):
            found.page(FILE, 0x1234)


@pytest.mark.parametrize(("number", "index"), [(2, 1 << 28), (16, 5), (1, 0x10000005), (2, 6)])
def test_pages_that_are_not_in_the_store_are_refused(number: int, index: int):
    with pytest.raises(NotInStore):
        stores(*lay()).page(number, index)


ADDRESSES = [
    *((start, 0x40) for start in (GLOBALS, ROOT, LEFT, RIGHT, PAGES, METADATA, CHUNKS, REGIONS)),
    *((start, 0x140) for start in (CHUNK, CHUNK + 0x1000, STORE + 0x40, STORE + 0x110, STORE + 0x200, STORE + 0x360)),
    *((start, 0x10) for start in (GLOBALS + 0x1C0, STORE + 0x430, STORE + 0x1848, STORE + 0x19A8)),
]


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(ADDRESSES), st.integers(0, 0x13F), st.integers(0, 255)), max_size=6))
def test_random_damage_costs_the_page_at_most(changes: list[tuple[tuple[int, int], int, int]]):
    kernel, owner = lay()
    for (start, size), at, value in changes:
        kernel.put(start + at % size, "B", value)
    found = stores(kernel, owner)
    for index in (5, 0x1234):
        with contextlib.suppress(NotInStore):
            assert len(found.page(FILE, index)) == PAGE_SIZE


class OnePage:
    """Memory that has the same page at every address."""

    def __init__(self, contents: bytes) -> None:
        self._contents = contents

    def page(self, _address: int) -> bytes:
        return self._contents


@settings(max_examples=200, derandomize=True, deadline=None)
@given(
    st.binary(min_size=0x40, max_size=0x40),
    st.sampled_from([(17763, True), (22000, True), (18362, False)]),
    st.integers(0, 2**28 - 1),
)
def test_structures_that_point_to_themselves_end(pattern: bytes, build: tuple[int, bool], index: int):
    layout = store_layout(build[0], is_64bit=build[1])
    assert layout is not None
    memory = Memory(OnePage(pattern * (PAGE_SIZE // len(pattern))))
    found = CompressedStores(memory, GLOBALS, layout, lambda _: memory)
    with contextlib.suppress(NotInStore):
        assert len(found.page(FILE, index)) == PAGE_SIZE


@pytest.mark.parametrize(
    ("build", "is_64bit"),
    [(10586, True), (14393, False), (17000, True), (22621, True), (22631, True), (26100, True), (0, False)],
)
def test_builds_that_are_not_known_for_certain_have_no_layout(build: int, is_64bit: bool):
    assert store_layout(build, is_64bit=is_64bit) is None


def test_the_offsets_are_those_that_are_published():
    """The output of win10_auto for 1809 on x64, as its README shows it, counted from the SMKM_STORE."""
    layout = store_layout(17763, is_64bit=True)
    assert layout is not None
    assert (layout.key_tree, layout.store_metadata_size, layout.regions, layout.owner) == (0x1C0, 0x28, 0x1848, 0x19A8)
    in_data_manager = (layout.pages_tree, layout.chunks, layout.region_mask, layout.region_shift, layout.algorithm)
    assert [offset - 0x50 for offset in in_data_manager] == [0, 0xC0, 0x328, 0x32C, 0x3E0]
