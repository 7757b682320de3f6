# SPDX-License-Identifier: Apache-2.0
"""Headers that Windows' loader accepts, each asked for all that is read by headers: where code is, and its tables."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from tests.forge.stacks import Label
from tests.support.pe_writer import CODE, READ_ONLY, X64, X86, Pe, Section, rsds
from tests.unwind.x64.assembler import ImageBuilder
from tests.unwind.x64.scene import BASE, BODY, PUSH_RBX_SUB_20, PUSH_RBX_SUB_20_INFO, STACK, Scene, named
from throwstack.core.memory import Memory, SegmentSource, memory_of
from throwstack.images.function_table import RuntimeFunction
from throwstack.images.image import Image, ImageMap
from throwstack.images.modules import Module, ModuleMap
from throwstack.unwind.x64 import Unwinder

OPTIONAL = 0x80 + 24
"""Where the optional header of `ImageBuilder`'s images is."""
SECTIONS = OPTIONAL + 240
VIRTUAL_SIZE, RAW_SIZE, CHARACTERISTICS = SECTIONS + 8, SECTIONS + 16, SECTIONS + 36
SIZE_OF_IMAGE, ENTRY_POINT = OPTIONAL + 56, OPTIONAL + 16
EXCEPTIONS = OPTIONAL + 112 + 8 * 3


def put(*changes: tuple[int, int]) -> Callable[[bytearray], None]:
    def patch(image: bytearray) -> None:
        for at, value in changes:
            struct.pack_into("<I", image, at, value)

    return patch


def large_table(image: bytearray) -> None:
    """Make .pdata 9 MiB long: 786,000 functions, as in the largest DLLs."""
    rva, size = struct.unpack_from("<II", image, EXCEPTIONS)
    entries = bytes(image[rva : rva + size])
    (unwind,) = struct.unpack_from("<I", entries, 8)
    more = ((0x100000 + 16 * index, 0x100008 + 16 * index, unwind) for index in range((9 << 20) // 12))
    entries += b"".join(struct.pack("<III", *entry) for entry in more)
    put((EXCEPTIONS, len(image)), (EXCEPTIONS + 4, len(entries)))(image)
    image += entries.ljust(len(entries) + 0xFFF & ~0xFFF, b"\0")
    put((SIZE_OF_IMAGE, len(image)))(image)


MATRIX = {
    "as linkers write them": (put(), None),
    "VirtualSize 0: the size in the file counts": (put((VIRTUAL_SIZE, 0)), None),
    "no execute flag, as ASPack leaves it": (put((CHARACTERISTICS, 0xC0000040)), None),
    "no execute flag, and the entry point is there": (put((CHARACTERISTICS, 0x40000040), (ENTRY_POINT, 0x1000)), None),
    "code after VirtualSize in the last page": (put((VIRTUAL_SIZE, 8)), None),
    "SizeOfImage of 1.1 GiB": (put((SIZE_OF_IMAGE, 0x48000000)), 0x48000000),
    ".pdata of 9 MiB": (large_table, None),
    "one page by the loader's entry": (put(), 0x1000),
}


@pytest.mark.parametrize(("patch", "size"), MATRIX.values(), ids=MATRIX)
def test_code_tables_and_walks(patch: Callable[[bytearray], None], size: int | None) -> None:
    scene = Scene(PUSH_RBX_SUB_20 + BODY, PUSH_RBX_SUB_20_INFO)
    sp, caller_sp = Label(), Label()
    scene.stack.at(0x13F00).mark(sp).zeros(0x20).d64(0x5A5A, scene.return_address)
    scene.caller_frame(caller_sp)
    image = bytearray(scene.image())
    data = next(rva for name, rva in sections(image) if name == b".xdata")
    patch(image)
    module = Module("app.exe", "", BASE, size or len(image))
    images = ImageMap(Memory(SegmentSource({BASE: bytes(image), STACK.limit: scene.stack.data()})), ModuleMap([module]))
    assert images.is_code(scene.callee)
    assert images.is_code(scene.return_address - 1)
    assert not images.is_code(BASE + data)
    assert not images.is_code(BASE + 0x10)
    found = images.find(scene.callee)
    assert found is not None
    assert found.function_table is not None
    assert isinstance(found.function_table.find(scene.callee - BASE), RuntimeFunction)
    walk = Unwinder(images).walk(named(rip=scene.callee + 6, rsp=sp, rbx=1), STACK)
    assert [(frame.ip, frame.sp) for frame in walk.frames] == [
        (scene.callee + 6, int(sp)),
        (scene.return_address, int(caller_sp)),
    ]
    assert walk.is_complete


def sections(image: bytes) -> list[tuple[bytes, int]]:
    count = struct.unpack_from("<H", image, 0x80 + 6)[0]
    rows = (struct.unpack_from("<8sII", image, SECTIONS + 40 * index) for index in range(count))
    return [(name.rstrip(b"\0"), rva) for name, _, rva in rows]


@pytest.mark.parametrize("machine", [X86, X64])
def test_more_sections_than_fit_into_a_page(machine: int) -> None:
    data = [Section(f".d{index}", 0x1000 * (index + 2), b"\xc3" * 16, READ_ONLY) for index in range(110)]
    pe = Pe(machine=machine, base=0x10000000, sections=[*data, Section(".text", 0x1000 * 114, b"\xc3" * 64, CODE)])
    image = Image(Module("many.exe", "", BASE, pe.size), memory_of({BASE: pe.mapped()}))
    assert image.headers is not None
    assert len(image.headers.sections) == 111
    assert image.is_code(BASE + 0x1000 * 114)
    assert not image.is_code(BASE + 0x2000)


def test_a_module_is_widened_no_further_than_to_the_next_one() -> None:
    image = ImageBuilder(b"\xcc" * 0x4000).build()
    modules = [Module("small.dll", "", BASE, 0x1000), Module("next.dll", "", BASE + 0x2000, 0x1000)]
    images = ImageMap(memory_of({BASE: image}), ModuleMap(modules))
    for address, name in ((BASE + 0x1800, "small.dll"), (BASE + 0x2800, "next.dll"), (BASE + 0x3800, None)):
        found = images.find(address)
        assert (None if found is None else found.module.name) == name
    assert images.find(BASE - 1) is None


def test_a_damaged_table_of_millions_of_entries_is_not_indexed() -> None:
    scene = Scene(PUSH_RBX_SUB_20 + BODY, PUSH_RBX_SUB_20_INFO)
    image = bytearray(scene.image())
    put((EXCEPTIONS + 4, 0x40000000), (SIZE_OF_IMAGE, 0x48000000))(image)
    images = ImageMap(memory_of({BASE: bytes(image)}), ModuleMap([Module("app.exe", "", BASE, 0x48000000)]))
    walk = Unwinder(images).walk(named(rip=scene.callee + 6, rsp=0x13F00), STACK)
    assert "damaged function table of 89,478,485 entries" in walk.detail


IL = rsds("11111111222233334444555555555555", 1, "App.pdb")
NATIVE = rsds("AAAAAAAABBBBCCCCDDDDEEEEEEEEEEEE", 1, "App.ni.pdb")
PORTABLE = 0x504D


@pytest.mark.parametrize(
    ("records", "name"),
    [
        ([(PORTABLE, IL), (0, NATIVE)], "App.ni.pdb"),
        ([(0, NATIVE), (PORTABLE, IL)], "App.ni.pdb"),
        ([(PORTABLE, IL)], "App.pdb"),
        ([(0, IL), (0, NATIVE)], "App.ni.pdb"),
        ([(0, IL), (0, b"NB10")], "App.pdb"),
    ],
)
def test_of_two_codeview_records_the_native_one_counts(records: list[tuple[int, bytes]], name: str) -> None:
    pe = Pe(
        machine=X64, base=BASE, sections=[Section(".text", 0x1000, b"\xc3" * 64), Section(".dbg", 0x2000, bytes(512))]
    )
    data = bytearray(pe.mapped())
    struct.pack_into("<II", data, 0x40 + 24 + 112 + 8 * 6, 0x2000, 28 * len(records))
    at = 0x2000 + 28 * len(records)
    for index, (minor, record) in enumerate(records):
        struct.pack_into("<IIHHIIII", data, 0x2000 + 28 * index, 0, 0, 0, minor, 2, len(record), at, at)
        data[at : at + len(record)] = record
        at += len(record)
    pdb = Image(Module("App.ni.dll", "", BASE, len(data)), memory_of({BASE: bytes(data)})).pdb
    assert pdb is not None
    assert pdb.name == name
