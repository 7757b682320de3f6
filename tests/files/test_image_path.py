# SPDX-License-Identifier: Apache-2.0
"""Image files whose pages are used for pages that a dump does not hold."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.pe_writer import CODE, DATA, READ_ONLY, X64, X86, Pe, Section
from throwstack.core.memory import PAGE_SIZE, Memory, SegmentSource
from throwstack.files import image_path
from throwstack.files.image_path import ImagePages, ImageStore
from throwstack.files.symbol_path import SymbolPath, parse_symbol_path
from throwstack.images.image import Image
from throwstack.images.modules import Module, ModuleMap
from throwstack.names.symbols import export_table

PREFERRED, BASE = 0x10000000, 0x6AB50000
GUID = "0123456789ABCDEF00112233445566AA"
STAMP = 0x45C7B2D1


def app(machine: int = X86, **options) -> Pe:
    """Pointers at 1010 and 1ffc (the latter crosses a page), code, data, constants, an import address table at 5000."""
    code = bytearray(b"\x90" * 0x2000)
    pointer = "<Q" if machine == X64 else "<I"
    struct.pack_into(pointer, code, 0x10, PREFERRED + 0x1234)
    struct.pack_into(pointer, code, 0xFFC, PREFERRED + 0x4567)
    sections = [
        Section(".text", 0x1000, bytes(code), CODE),
        Section(".data", 0x3000, b"initial".ljust(0x1000, b"\0"), DATA),
        Section(".rdata", 0x4000, b"constant".ljust(0x2000, b"\0"), READ_ONLY),
    ]
    return Pe(
        machine,
        PREFERRED,
        STAMP,
        sections=sections,
        relocations=[0x1010, 0x1FFC],
        import_addresses=(0x5000, 0x40),
        **options,
    )


class Place:
    """A directory of images, and a process with some pages of one."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.said: list[str] = []

    def put(self, pe: Pe, layout: str = "{name}/{key}/{name}", name: str = "app.dll") -> Path:
        path = self.directory / layout.format(name=name, key=f"{pe.timestamp:08X}{pe.size:x}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pe.file())
        return path

    def store(self, **options) -> ImageStore:
        path = SymbolPath(parse_symbol_path(str(self.directory), self.directory), say=self.said.append)
        return ImageStore(path, say=self.said.append, **options)

    def pages(self, pe: Pe, present: dict[int, bytes], *, timestamp: int = 0) -> ImagePages:
        """Make a process that has `pe` loaded at BASE and only the pages `present`, by RVA."""
        source = SegmentSource({BASE + rva: data.ljust(PAGE_SIZE, b"\0") for rva, data in present.items()})
        modules = ModuleMap([Module("APP.DLL", r"C:\APP.DLL", BASE, pe.size, timestamp)])
        return ImagePages(source, modules, self.store())


def header(pe: Pe) -> bytes:
    return pe.mapped()[:PAGE_SIZE]


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.mark.parametrize("machine", [X86, X64])
@pytest.mark.parametrize("layout", ["{name}/{key}/{name}", "{name}", "dll/{name}"])
def test_code_page_comes_from_the_file_relocated(place, machine, layout):
    pe = app(machine)
    place.put(pe, layout)
    memory = Memory(place.pages(pe, {0: header(pe)}))
    read = memory.u64 if machine == X64 else memory.u32
    assert read(BASE + 0x1010) == BASE + 0x1234
    assert read(BASE + 0x1FFC) == BASE + 0x4567
    assert memory.read(BASE + 0x4000, 8) == b"constant"
    assert place.said == []


def test_a_page_of_the_dump_is_preferred_to_that_of_the_file(place):
    pe = app()
    place.put(pe)
    pages = place.pages(pe, {0: header(pe), 0x1000: b"patched"})
    assert Memory(pages).read(BASE + 0x1000, 7) == b"patched"


@pytest.mark.parametrize("rva", [0x3000, 0x5000, 0x20000])
def test_a_page_that_a_process_writes_to_is_never_taken_from_a_file(place, rva):
    """Writable data, the import address table, and a page outside all sections."""
    pe = app()
    place.put(pe)
    pages = place.pages(pe, {0: header(pe)})
    assert pages.page(BASE + rva) is None


def test_the_header_page_is_found_by_the_loaders_time_stamp(place):
    pe = app()
    place.put(pe)
    pages = place.pages(pe, {}, timestamp=STAMP)
    assert pages.page(BASE)[:2] == b"MZ"
    assert place.pages(pe, {}).page(BASE) is None


def test_another_build_is_refused_by_name(place):
    """The directory has a newer app.dll."""
    pe = app()
    newer = app()
    newer.timestamp = 0x50000000
    path = place.put(newer, "{name}")
    assert place.pages(pe, {0: header(pe)}).page(BASE + 0x1000) is None
    assert place.said == [
        f"{path}: refused: time stamp 50000000 and size {pe.size:x}, the module has {STAMP:08X} and {pe.size:x}"
    ]


def test_a_file_with_another_checksum_or_pdb_is_refused(place):
    pe = app(checksum=0x1234, pdb=(GUID, 1, "app.pdb"))
    path = place.put(app(checksum=0x4321, pdb=(GUID, 1, "app.pdb")))
    rsds = pe.mapped()
    everything = {rva: rsds[rva : rva + PAGE_SIZE] for rva in range(0, pe.size, PAGE_SIZE) if rva != 0x1000}
    assert place.pages(pe, everything).page(BASE + 0x1000) is None
    assert place.said.pop() == f"{path}: refused: checksum 00004321, the module has 00001234"
    place.put(app(checksum=0x1234, pdb=(GUID, 2, "app.pdb")))
    assert place.pages(pe, everything).page(BASE + 0x1000) is None
    assert place.said.pop() == f"{path}: refused: its PDB is {GUID} age 2, the module's {GUID} age 1"
    place.put(pe)
    assert place.pages(pe, everything).page(BASE + 0x1000) is not None


def test_a_file_larger_than_the_limit_is_refused(place):
    pe = app()
    place.put(pe, "{name}")
    modules = ModuleMap([Module("app.dll", "", BASE, pe.size, STAMP)])
    pages = ImagePages(SegmentSource({}), modules, place.store(max_size=1000))
    assert pages.page(BASE + 0x1000) is None
    assert "limit" in place.said[0]


def test_each_file_is_mapped_once_for_a_base(place):
    pe = app()
    place.put(pe)
    store = place.store()
    image = Image(Module("app.dll", "", BASE, pe.size, STAMP), Memory(SegmentSource({})))
    again = Image(Module("app.dll", "", BASE, pe.size, STAMP), Memory(SegmentSource({})))
    assert store.mapped(image) is store.mapped(again)


def test_mapped_images_that_are_kept_are_bounded_in_bytes(place, monkeypatch):
    """The header of a file of a few KB may say 256 MB, and a machine has many modules."""
    pe = app()
    place.put(pe)
    monkeypatch.setattr(image_path, "_MAX_KEPT", 3 * pe.size)
    store = place.store()
    for index in range(10):
        base = BASE + 0x100000 * index
        memory = Memory(SegmentSource({base: header(pe)}))
        mapped = store.mapped(Image(Module("app.dll", "", base, pe.size), memory))
        assert mapped.data[0x1010:0x1014] == struct.pack("<I", base + 0x1234)
        assert sum(len(kept.data) for kept in store._mapped.values()) <= 3 * pe.size


def test_exports_that_memory_lacks_are_read_from_the_file(place):
    pe = app(exports=[("Exported", 0x1100)])
    place.put(pe)
    image = Image(Module("app.dll", "", BASE, pe.size, STAMP), Memory(SegmentSource({})))
    assert export_table(image).rva_of("Exported") is None
    assert export_table(place.store().image(image)).rva_of("Exported") == 0x1100


SOUND = app().file()


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 0x3FF), st.sampled_from([0, 1, 0x7F, 0x80, 0xFF])), min_size=1, max_size=10))
def test_false_headers_give_pages_or_nothing(tmp_path_factory, changes):
    data = bytearray(SOUND)
    for offset, value in changes:
        data[offset] = value
    place = Place(tmp_path_factory.mktemp("lying"))
    (place.directory / "app.dll").write_bytes(data)
    pages = place.pages(app(), {0: header(app())}, timestamp=STAMP)
    for rva in range(0, 0x8000, PAGE_SIZE):
        page = pages.page(BASE + rva)
        assert page is None or len(page) == PAGE_SIZE


@pytest.mark.parametrize("block_size", [0, 4, 7, 9, 0xFFFFFFFF])
def test_relocation_blocks_with_impossible_sizes(place, block_size):
    pe = app()
    data = bytearray(pe.file())
    at = data.index(struct.pack("<II", 0x1000, 12))
    struct.pack_into("<II", data, at, 0xFFFFF000, block_size)
    place.put(pe).write_bytes(data)
    assert place.pages(pe, {0: header(pe)}).page(BASE + 0x1000) is not None


def test_a_file_that_is_exchanged_after_it_was_found_is_refused(place):
    """Others may write to the store: time stamp and size are checked in the bytes that are used."""
    pe = app()
    path = place.put(pe)
    store = place.store()
    image = Image(Module("app.dll", "", BASE, pe.size), Memory(SegmentSource({BASE: header(pe)})))
    assert store.find(image) == path
    pe.timestamp += 1
    path.write_bytes(pe.file())
    assert store.mapped(image) is None
    assert place.said[0].startswith(f"{path}: changed since it was found: time stamp {STAMP + 1:08X}")


def test_a_file_that_grows_after_it_was_found_is_not_read_whole(place):
    pe = app()
    store = place.store(max_size=pe.size + 0x10000)
    path = place.put(pe)
    image = Image(Module("app.dll", "", BASE, pe.size), Memory(SegmentSource({BASE: header(pe)})))
    assert store.find(image) == path
    path.write_bytes(pe.file() + bytes(0x20000))
    assert store.mapped(image) is None
