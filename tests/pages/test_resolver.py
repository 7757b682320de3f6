# SPDX-License-Identifier: Apache-2.0
"""Pages found through page tables, prototype PTEs and VADs that the tests write byte by byte."""

from __future__ import annotations

import struct

import pytest

from throwstack.core.frames import Frame, Trust
from throwstack.core.memory import PAGE_SIZE, Memory, memory_of
from throwstack.core.registers import Registers
from throwstack.images.image import ImageMap
from throwstack.images.modules import Module, ModuleMap
from throwstack.pages.page_origin import PageOrigin
from throwstack.pages.page_table_entries import Bits, PteFormats
from throwstack.pages.page_tables import AddressSpace, PagingMode
from throwstack.pages.resolver import ResolvedPages
from throwstack.pages.vad_views import PrototypeRun, VadView, VadViews
from throwstack.report.image_substitutes import substitute_note

VALID, PROTOTYPE, TRANSITION, READ_WRITE = 1, 1 << 10, 1 << 11, 4 << 5
FORMATS = PteFormats(4, Bits(12, 20), Bits(12, 20), None, Bits(1, 4), Bits(12, 20), Bits(5, 5))
LOOK_UP = 0xFFFFF << 12 | PROTOTYPE
PROTOTYPES = 0xE1000000
BASE = 0x400000
CODE, OTHER, STORED = b"code" * 1024, b"data" * 1024, b"pack" * 1024
TABLE = struct.pack("<3I", 0x9000 | TRANSITION, 0x88 << 12 | READ_WRITE, 0).ljust(PAGE_SIZE, b"\0")


class PageFile:
    """Page file 0 has a page at 0x88 and a page table at 0x99. Page file 2, the compressed store, at 0x77 and 0x99."""

    def page(self, number: int, index: int) -> bytes | None:
        return {(0, 0x88): OTHER, (2, 0x77): STORED, (0, 0x99): TABLE, (2, 0x99): TABLE}.get((number, index))

    def is_compressed_store(self, number: int) -> bool:
        return number == 2


class OneFile:
    """The file of an image at BASE, of which the first two pages may be used."""

    def page(self, address: int) -> bytes | None:
        return b"file" * 1024 if BASE <= address < BASE + 2 * PAGE_SIZE else None


def space(
    entry: int,
    prototype: int | None = None,
    view: VadView | None = None,
    *,
    directory: int = 0x2000 | VALID,
    page_files: PageFile | None = None,
) -> ResolvedPages:
    """Make a non-PAE x86 space in which the PTE of BASE is `entry`; `prototype` is the first prototype PTE."""
    physical = memory_of(
        {
            0x1000 + 4 * (BASE >> 22): struct.pack("<I", directory),
            0x1FFC: bytes(4),
            0x2000: struct.pack("<I", entry),
            0x9000: CODE,
        }
    )
    kernel = memory_of({} if prototype is None else {PROTOTYPES: struct.pack("<I", prototype)})
    views = VadViews(() if view is None else (view,))
    tables = AddressSpace(physical, PagingMode.X86, 0x1000)
    return ResolvedPages(physical, tables, FORMATS, kernel=kernel, views=lambda: views, page_files=page_files)


def mapped() -> VadView:
    return VadView(BASE, BASE + 0x10000, False, False, True, (PrototypeRun(0, 4, PROTOTYPES),))


def private(*, is_committed: bool) -> VadView:
    return VadView(BASE, BASE + 0x10000, True, is_committed, False)


@pytest.mark.parametrize(
    ("pages", "origin", "contents"),
    [
        pytest.param(space(0x9000 | VALID), PageOrigin.VALID, CODE, id="valid"),
        pytest.param(space(0x9000 | TRANSITION), PageOrigin.TRANSITION, CODE, id="in transition"),
        pytest.param(space(LOOK_UP, 0x9000 | VALID, mapped()), PageOrigin.PROTOTYPE, CODE, id="prototype valid"),
        pytest.param(
            space(LOOK_UP, 0x9000 | TRANSITION, mapped()), PageOrigin.PROTOTYPE, CODE, id="prototype in transition"
        ),
        pytest.param(space(0, 0x9000 | VALID, mapped()), PageOrigin.PROTOTYPE, CODE, id="never touched, but shared"),
        pytest.param(
            space(LOOK_UP, 0x5000 | PROTOTYPE, mapped()), PageOrigin.IN_FILE, None, id="prototype says: in its file"
        ),
        pytest.param(space(LOOK_UP, READ_WRITE, mapped()), PageOrigin.ZERO, bytes(PAGE_SIZE), id="shared zeros"),
        pytest.param(space(LOOK_UP, 0, mapped()), PageOrigin.NOT_COMMITTED, None, id="section without that page"),
        pytest.param(space(LOOK_UP, None, mapped()), PageOrigin.UNKNOWN, None, id="prototype PTE not in the dump"),
        pytest.param(
            space(LOOK_UP, 0x9000 | VALID), PageOrigin.NOT_COMMITTED, None, id="see the VAD, but there is none"
        ),
        pytest.param(
            space(LOOK_UP, 0xBAD000 | VALID, mapped()),
            PageOrigin.NOT_IN_DUMP,
            None,
            id="prototype valid, frame not in the dump",
        ),
        pytest.param(space(READ_WRITE), PageOrigin.ZERO, bytes(PAGE_SIZE), id="demand zero"),
        pytest.param(space(0), PageOrigin.NOT_COMMITTED, None, id="empty, no VAD"),
        pytest.param(space(0, view=private(is_committed=True)), PageOrigin.ZERO, bytes(PAGE_SIZE), id="committed"),
        pytest.param(space(0, view=private(is_committed=False)), PageOrigin.NOT_COMMITTED, None, id="reserved"),
        pytest.param(space(0x88 << 12 | READ_WRITE), PageOrigin.PAGED_OUT, None, id="page file not given"),
        pytest.param(
            space(0x88 << 12 | READ_WRITE, page_files=PageFile()), PageOrigin.PAGE_FILE, OTHER, id="page file given"
        ),
        pytest.param(
            space(0x89 << 12 | READ_WRITE, page_files=PageFile()), PageOrigin.PAGED_OUT, None, id="page file too short"
        ),
        pytest.param(
            space(0x88 << 12 | 2 << 1 | READ_WRITE, page_files=PageFile()), PageOrigin.COMPRESSED, None, id="compressed"
        ),
        pytest.param(
            space(0x77 << 12 | 2 << 1 | READ_WRITE, page_files=PageFile()), PageOrigin.STORE, STORED, id="decompressed"
        ),
        pytest.param(
            space(LOOK_UP, 0x77 << 12 | 2 << 1 | READ_WRITE, mapped(), page_files=PageFile()),
            PageOrigin.STORE,
            STORED,
            id="shared and decompressed",
        ),
        pytest.param(space(0xBAD000 | VALID), PageOrigin.NOT_IN_DUMP, None, id="valid, frame not in the dump"),
        pytest.param(
            space(0x9000 | VALID, directory=0xBAD000 | VALID), PageOrigin.TABLE_NOT_IN_DUMP, None, id="no page table"
        ),
        pytest.param(
            space(0, view=private(is_committed=True), directory=0), PageOrigin.ZERO, bytes(PAGE_SIZE), id="no table yet"
        ),
        pytest.param(
            space(0x9000 | VALID, directory=0x2000 | TRANSITION), PageOrigin.VALID, CODE, id="table in transition"
        ),
        pytest.param(
            space(0, directory=0x77000 | READ_WRITE), PageOrigin.TABLE_NOT_IN_DUMP, None, id="table in the page file"
        ),
    ],
)
def test_a_page_and_its_origin(pages: ResolvedPages, origin: PageOrigin, contents: bytes | None):
    assert pages.page(BASE) == contents
    assert pages.origin(BASE + 0x7FF) is origin
    assert origin.is_present is (contents is not None)


@pytest.mark.parametrize("directory", [0x99 << 12 | READ_WRITE, 0x99 << 12 | 2 << 1 | READ_WRITE])
def test_a_page_table_that_is_paged_out_itself(directory: int):
    pages = space(0xBAD000 | VALID, view=private(is_committed=True), directory=directory, page_files=PageFile())
    assert [pages.page(BASE + page * PAGE_SIZE) for page in range(2)] == [CODE, OTHER]
    assert [pages.origin(BASE + page * PAGE_SIZE) for page in range(3)] == [
        PageOrigin.TRANSITION,
        PageOrigin.PAGE_FILE,
        PageOrigin.ZERO,
    ]
    given = space(0xBAD000 | VALID, directory=directory)
    assert (given.page(BASE), given.origin(BASE)) == (None, PageOrigin.TABLE_NOT_IN_DUMP)


def test_without_formats_nothing_is_guessed():
    physical = memory_of({0x1000 + 4: struct.pack("<I", 0x2001), 0x2000: struct.pack("<I", READ_WRITE)})
    pages = ResolvedPages(physical, AddressSpace(physical, PagingMode.X86, 0x1000))
    assert (pages.page(BASE), pages.origin(BASE)) == (None, PageOrigin.UNKNOWN)


@pytest.mark.parametrize(
    ("pages", "origin"),
    [
        pytest.param(space(LOOK_UP, 0x5000 | PROTOTYPE, mapped()), PageOrigin.FILE, id="in the file"),
        pytest.param(space(0xBAD000 | VALID), PageOrigin.FILE, id="frame not in the dump"),
        pytest.param(space(0, directory=0xBAD000 | VALID), PageOrigin.FILE, id="table not in the dump"),
        pytest.param(
            space(0x88 << 12 | READ_WRITE), PageOrigin.PAGED_OUT, id="the process changed it: in the page file"
        ),
        pytest.param(
            space(0x88 << 12 | 2 << 1, page_files=PageFile()),
            PageOrigin.COMPRESSED,
            id="the process changed it: in the store",
        ),
        pytest.param(space(0), PageOrigin.NOT_COMMITTED, id="not committed"),
        pytest.param(space(0x9000 | VALID), PageOrigin.VALID, id="in the dump"),
    ],
)
def test_an_images_file_is_used_only_if_the_process_cannot_have_changed_the_page(
    pages: ResolvedPages, origin: PageOrigin
):
    pages.use_image_files(OneFile())
    page = pages.page(BASE)
    assert pages.origin(BASE) is origin
    assert (page == b"file" * 1024) is (origin is PageOrigin.FILE)
    assert pages.substitutes == ({BASE} if origin is PageOrigin.FILE else set())
    in_dump = pages.in_dump.page(BASE)
    assert in_dump == (None if origin is PageOrigin.FILE else page)


def test_a_frame_says_which_of_its_pages_are_from_a_file():
    pages = space(LOOK_UP, 0x5000 | PROTOTYPE, mapped())
    pages.use_image_files(OneFile())
    images = ImageMap(Memory(pages), ModuleMap([Module("svc.exe", "", BASE, 0x3000)]))

    def frame(ip: int) -> Frame:
        registers = Registers(ip, (0,) * 8)
        return Frame(registers, 0, None, None, Trust.CFI)

    assert substitute_note(frame(BASE + 0x10), images, pages.substitutes) == ""
    pages.page(BASE)
    assert substitute_note(frame(BASE + 0x10), images, pages.substitutes) == "code of svc.exe from its file"
    assert substitute_note(frame(BASE + 0x1010), images, pages.substitutes) == ""
    assert substitute_note(frame(0x10), images, pages.substitutes) == ""


def test_a_view_finds_the_prototype_pte_of_a_page_in_its_runs():
    runs = (PrototypeRun(0, 2, 0xE1000000), PrototypeRun(4, 2, 0xE2000000))
    view = VadView(BASE, BASE + 0x8000, False, False, False, runs)
    assert view.prototype(BASE + 0x1FFF, 8) == 0xE1000008
    assert view.prototype(BASE + 0x2000, 8) is None
    assert view.prototype(BASE + 0x5000, 8) == 0xE2000008


def test_views_are_found_by_address():
    first, second = private(is_committed=True), VadView(0x900000, 0x901000, True, True, False)
    views = VadViews([second, first])
    assert list(views) == [first, second]
    assert (views.find(BASE + 0xFFFF), views.find(BASE + 0x10000)) == (first, None)
    assert (views.find(0), views.find(0x900000)) == (None, second)


def space_x64(entry: int, prototype: int | None = None, view: VadView | None = None) -> ResolvedPages:
    """Make an x64 space in which the PTE of BASE is `entry`; kernel memory is the prototype PTE alone."""
    formats = PteFormats(8, Bits(12, 36), Bits(12, 36), Bits(16, 48), Bits(12, 4), Bits(32, 32), Bits(5, 5))
    tables = {0x1000: 0x2001, 0x2000: 0x3001, 0x3010: 0x4001, 0x4000: entry}
    physical = memory_of({address: struct.pack("<Q", value) for address, value in tables.items()})
    kernel = memory_of({} if prototype is None else {PROTOTYPES: struct.pack("<Q", prototype)})
    views = VadViews(() if view is None else (view,))
    return ResolvedPages(
        physical, AddressSpace(physical, PagingMode.X64, 0x1000), formats, kernel=kernel, views=lambda: views
    )


@pytest.mark.parametrize("low", [0x270, 0x8A0, 0x4A0, 0xCA0], ids=hex)
def test_a_control_area_in_place_of_a_prototype_pte_means_the_file(low: int):
    """The address has arbitrary values in the bits for prototype and transition, and must not be read as an entry."""
    pages = space_x64(0, 0xFFFFAF8012345000 | low, mapped())
    assert pages.origin(BASE) is PageOrigin.IN_FILE
    pages.use_image_files(OneFile())
    assert pages.page(BASE) == b"file" * 1024


@pytest.mark.parametrize("address", [0x123, 0xFFFFFFFFFFF9, 0x7FFFFFFFFFFF], ids=hex)
def test_hostile_prototype_addresses_are_refused(address: int):
    pages = space_x64(address << 16 & (1 << 64) - 1 | PROTOTYPE)
    assert pages.page(BASE) is None
    assert not pages.origin(BASE).is_present
