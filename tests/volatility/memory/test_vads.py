# SPDX-License-Identifier: Apache-2.0
"""VAD trees made by hand in the layout of Server 2003 x86, whole and damaged."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from throwstack.core.budgets import BUDGETS
from throwstack.core.memory import PAGE_SIZE, Memory, memory_of
from throwstack.pages.page_table_entries import Bits
from throwstack.pages.page_tables import PagingMode
from throwstack.pages.vad_views import PrototypeRun
from throwstack.volatility.memory.vads import VadReader

PROCESS, NODE, AREA = 0x89000000, 0x89001000, 0x89003000
COMMITTED, PRIVATE, IMAGE, EXECUTE_READ_WRITE = 1 << 23, 1 << 31, 2 << 20, 6 << 24


OFFSETS = {
    "_EPROCESS.VadRoot.BalancedRoot.RightChild": 0x258,
    "_MMVAD_SHORT.LeftChild": 4,
    "_MMVAD_SHORT.RightChild": 8,
    "_MMVAD_SHORT.StartingVpn": 12,
    "_MMVAD_SHORT.EndingVpn": 16,
    "_MMVAD.ControlArea": 24,
    "_MMVAD.FirstPrototypePte": 28,
    "_MMVAD.LastContiguousPte": 32,
    "_SUBSECTION.SubsectionBase": 16,
    "_SUBSECTION.PtesInSubsection": 24,
    "_SUBSECTION.NextSubsection": 28,
}
FLAGS = {
    "PrivateMemory": Bits(31, 1),
    "Protection": Bits(24, 5),
    "MemCommit": Bits(23, 1),
    "VadType": Bits(20, 3),
}


class Server2003:
    """Offsets of Windows Server 2003 SP2 x86, from its kernel's PDB."""

    def find(self, path: str) -> int | None:
        return OFFSETS.get(path)

    def size(self, _: str) -> int:
        return 0x38

    def bits(self, path: str) -> tuple[int, Bits] | None:
        bits = FLAGS.get(path.rpartition(".")[2])
        return None if bits is None or ".u." not in path else (20, bits)


def node(*words: int) -> bytes:
    """Lay down left, right, first and last page, flags; for a mapping control area, first and last prototype PTE."""
    return struct.pack("<9I", 0, *words, *[0] * (8 - len(words)))


def subsection(prototypes: int, count: int, following: int) -> bytes:
    return struct.pack("<4xIIIIIII", 0, 0, 0, prototypes, 0, count, following)


def reader(segments: dict[int, bytes]) -> VadReader:
    return VadReader(Server2003(), memory_of(segments), PagingMode.PAE, print)


def test_vads_of_private_and_mapped_memory_are_read():
    tree = {
        PROCESS + 0x258: struct.pack("<I", NODE),
        NODE: node(NODE + 0x100, NODE + 0x200, 0x400, 0x40F, IMAGE, AREA, 0xE1000000, 0xE1000078),
        NODE + 0x100: node(0, 0, 0x10, 0x1F, PRIVATE | COMMITTED | EXECUTE_READ_WRITE),
        NODE + 0x200: node(0, 0, 0x800, 0x800, PRIVATE),
        AREA + 0x38: subsection(0xE1000000, 4, AREA + 0x100),
        AREA + 0x100: subsection(0xE1000020, 12, 0),
    }
    private, image, reserved = reader(tree).views(PROCESS)
    assert (private.start, private.end, private.is_private, private.is_committed) == (0x10000, 0x20000, True, True)
    assert (image.start, image.is_image, image.is_private) == (0x400000, True, False)
    assert image.prototypes == (PrototypeRun(0, 4, 0xE1000000), PrototypeRun(4, 12, 0xE1000020))
    assert (reserved.start, reserved.is_committed) == (0x800000, False)
    assert [view.is_executable for view in (private, image, reserved)] == [True, False, False]


def test_a_view_may_begin_in_the_midst_of_a_section():
    tree = {
        PROCESS + 0x258: struct.pack("<I", NODE),
        NODE: node(0, 0, 0x400, 0x405, 0, AREA, 0xE2000010, 0xE2000018),
        AREA + 0x38: subsection(0xE1000000, 8, AREA + 0x100),
        AREA + 0x100: subsection(0xE2000000, 4, AREA + 0x200),
        AREA + 0x200: subsection(0, 2, AREA + 0x300),  # this part of the file was not brought in yet
        AREA + 0x300: subsection(0xE3000000, 8, 0),
    }
    (view,) = reader(tree).views(PROCESS)
    assert view.prototypes == (PrototypeRun(0, 2, 0xE2000010), PrototypeRun(4, 2, 0xE3000000))
    assert view.prototype(0x402000, 8) is None


def test_a_vad_tree_with_a_cycle_ends():
    tree = {
        PROCESS + 0x258: struct.pack("<I", NODE),
        NODE: node(NODE, NODE + 0x100, 0x10, 0x10, PRIVATE),
        NODE + 0x100: node(NODE, NODE, 0x400, 0x4FFFF, 0, AREA, 0x1000, 0),
        AREA + 0x38: subsection(0xE1000000, 0, AREA + 0x38),
    }
    assert [view.start for view in reader(tree).views(PROCESS)] == [0x10000, 0x400000]


class EndlessTree:
    """A tree that goes on to the left for ever: each page is a node, and leads to the next page."""

    def page(self, address: int) -> bytes | None:
        return (
            struct.pack("<I", NODE).rjust(0x25C, b"\0").ljust(PAGE_SIZE, b"\0")
            if address == PROCESS
            else (node(address + PAGE_SIZE, 0, address >> 12, address >> 12, PRIVATE).ljust(PAGE_SIZE, b"\0"))
        )


def test_an_endless_vad_tree_is_read_up_to_the_budget_and_a_warning_says_so(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("throwstack.volatility.memory.vads.BUDGETS", replace(BUDGETS, vads=100))
    said: list[str] = []
    vads = VadReader(Server2003(), Memory(EndlessTree()), PagingMode.PAE, said.append)
    assert len(vads.views(PROCESS)) == 100
    assert "stuck threads may have been missed: process at 0x89000000: the budget of 100 VADs is spent" in said[0]


@settings(max_examples=60)
@given(st.lists(st.sampled_from([0, NODE, NODE + 0x24, NODE + 0x48, AREA, 1, 0xFFFFFFFF]), min_size=30, max_size=60))
def test_reading_a_vad_tree_of_random_words_ends(words: list[int]):
    noise = struct.pack(f"<{len(words)}I", *words)
    for view in reader({PROCESS + 0x258: struct.pack("<I", NODE), NODE: noise, AREA: noise}).views(PROCESS):
        assert view.start < view.end
