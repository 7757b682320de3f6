# SPDX-License-Identifier: Apache-2.0
"""Regions of a process by its VADs, and the parts of them that may be readable."""

from __future__ import annotations

from collections.abc import Iterator

from throwstack.core.memory import PAGE_SIZE, Memory, SegmentSource
from throwstack.core.registers import Arch
from throwstack.minidump.dumped import Span
from throwstack.pages.vad_views import PrototypeRun, VadView, VadViews
from throwstack.volatility.minidump_memory import MinidumpPages, regions_of

NOTHING = Memory(SegmentSource({}))


def view(start: int, end: int, *, private: bool = True, image: bool = False, **more: object) -> VadView:
    return VadView(start, end, is_private=private, is_committed=private, is_image=image, **more)


def found(*views: VadView, arch: Arch = Arch.X64, memory: Memory = NOTHING) -> list[tuple[int, ...]]:
    regions = regions_of(VadViews(views), memory, arch)
    return [(*one.span, one.state, one.protection, one.kind) for one in regions]


def test_protections_are_those_of_winnt_h():
    """5 bits: EXECUTE_WRITECOPY is 7, READWRITE is 4, and 8, 16 and 24 add no cache, guard page, write combining."""
    assert [found(view(0x10000, 0x20000, protection=bits))[0][3] for bits in (7, 4, 12, 20, 28)] == [
        0x80,
        0x04,
        0x204,
        0x104,
        0x404,
    ]


def test_kinds_and_states():
    reserved = VadView(0x30000, 0x40000, is_private=True, is_committed=False, is_image=False, protection=4)
    assert found(
        view(0x10000, 0x20000, protection=4),
        reserved,
        view(0x50000, 0x60000, private=False, protection=1),
        view(0x70000, 0x80000, private=False, image=True, protection=7),
    ) == [
        (0x10000, 0x20000, 0x1000, 0x04, 0x20000),
        (0x30000, 0x40000, 0x2000, 0x04, 0x20000),
        (0x50000, 0x60000, 0x1000, 0x02, 0x40000),
        (0x70000, 0x80000, 0x1000, 0x80, 0x1000000),
    ]


def test_overlaps_of_damaged_vads_are_cut_off():
    assert [one[:2] for one in found(view(0x10000, 0x30000), view(0x20000, 0x40000), view(0x21000, 0x22000))] == [
        (0x10000, 0x30000),
        (0x30000, 0x40000),
    ]


def test_32_bit_code_sees_four_gigabytes():
    assert [one[:2] for one in found(view(0xFFFF0000, 0x100010000), view(1 << 40, 2 << 40), arch=Arch.X86)] == [
        (0xFFFF0000, 0x100000000)
    ]


def test_the_page_that_the_kernel_shares_with_all_processes_has_no_vad_on_older_windows():
    memory = Memory(SegmentSource({0x7FFE0000: bytes(PAGE_SIZE)}))
    assert found(view(0x10000, 0x20000), memory=memory)[1][:2] == (0x7FFE0000, 0x7FFE1000)
    assert len(found(view(0x7FFE0000, 0x7FFF0000), memory=memory)) == 1


class Tables:
    """Pages of a process one of whose regions has a page table for 2 MiB from 0x400000 on."""

    def __init__(self, *views: VadView) -> None:
        self.views = VadViews(views)

    def page(self, address: int) -> bytes | None:
        return None

    def mapped(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        start, end = max(first, 0x400000), min(last + 1, 0x600000)
        if start < end:
            yield start, end


def test_private_memory_is_looked_at_where_it_has_page_tables():
    pages = Tables(view(0x100000, 1 << 40))
    source = MinidumpPages(pages, NOTHING, 8)
    assert list(source.candidates(Span(0x100000, 1 << 40))) == [Span(0x400000, 0x600000)]


def test_a_view_of_a_section_also_where_its_prototype_ptes_can_be_read():
    """The second 2 MiB of the view have readable prototype PTEs, the third have a page table, the others nothing."""
    kernel = Memory(SegmentSource({0xFFFFA00000001000: bytes(PAGE_SIZE)}))
    section = view(0, 0x800000, private=False, prototypes=(PrototypeRun(0, 2048, 0xFFFFA00000000000),))
    source = MinidumpPages(Tables(section), kernel, 8)
    assert list(source.candidates(Span(0, 0x800000))) == [Span(0x200000, 0x400000), Span(0x400000, 0x600000)]
