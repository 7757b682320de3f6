# SPDX-License-Identifier: Apache-2.0
"""What an x86 walk is given, made of assembled code and a stack: an image with headers and exports, symbols, memory."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping

from tests.unwind.x86.assemble import Assembler
from throwstack.core.memory import PAGE_SIZE, Memory, PageSource, SegmentSource
from throwstack.images.image import Image, ImageMap
from throwstack.images.modules import Module, ModuleMap
from throwstack.names.frame_records import FrameData
from throwstack.names.symbols import Name, SymbolKind, Symbols, SymbolTable
from throwstack.unwind.x86.code import Code

BASE = 0x400000
TEXT = BASE + 0x1000
TEXT_SIZE = 0xF000
DATA = BASE + 0x10000
DATA_SIZE = 0x1000
EXPORTS = BASE + 0x11000
IMAGE_SIZE = 0x12000
STACK_LIMIT, STACK_BASE = 0x00100000, 0x00110000


def header_page() -> bytes:
    """The first page of a PE32 image with .text, .data and .edata."""
    sections = [
        (b".text", 0x1000, TEXT_SIZE, 0x60000020),
        (b".data", DATA - BASE, DATA_SIZE, 0xC0000040),
        (b".edata", EXPORTS - BASE, PAGE_SIZE, 0x40000040),
    ]
    optional = struct.pack("<HBB9I", 0x10B, 14, 0, TEXT_SIZE, 0, 0, 0x1000, 0x1000, DATA - BASE, BASE, 0x1000, 0x200)
    optional += struct.pack("<6HIIIIHH4III", *(6, 0, 6, 0, 6, 0), 0, IMAGE_SIZE, 0x400, 0, 3, 0, *([0x1000] * 4), 0, 16)
    optional += struct.pack("<II", EXPORTS - BASE, PAGE_SIZE) + bytes(8 * 15)
    page = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40)
    page += b"PE\0\0" + struct.pack("<HHIIIHH", 0x14C, len(sections), 0, 0, 0, len(optional), 0x102) + optional
    for name, rva, size, flags in sections:
        page += struct.pack("<8sIIIIIIHHI", name, size, rva, size, rva, 0, 0, 0, 0, flags)
    return page.ljust(PAGE_SIZE, b"\0")


def export_page(exports: Mapping[str, int]) -> bytes:
    """An export directory for names and addresses."""
    rva, names = EXPORTS - BASE, sorted(exports)
    count = len(names)
    strings, at, blob = rva + 40 + 10 * count, [], b"test.dll\0"
    for name in names:
        at.append(strings + len(blob))
        blob += name.encode() + b"\0"
    page = struct.pack(
        "<IIHHIIIIIII", 0, 0, 0, 0, strings, 1, count, count, rva + 40, rva + 40 + 4 * count, rva + 40 + 8 * count
    )
    page += b"".join(struct.pack("<I", exports[name] - BASE) for name in names)
    page += b"".join(struct.pack("<I", item) for item in at) + b"".join(struct.pack("<H", i) for i in range(count))
    page += blob
    assert len(page) <= PAGE_SIZE
    return page.ljust(PAGE_SIZE, b"\0")


class Records:
    """Frame data by address: the record that begins last among those that cover it."""

    def __init__(self, records: Iterable[FrameData]) -> None:
        self._records = sorted(records, key=lambda record: record.rva)

    def frame_data(self, image: Image, rva: int) -> FrameData | None:
        found = [record for record in self._records if record.rva <= rva < record.rva + record.size]
        return found[-1] if found else None


def images_of(source: PageSource, name: str = "test.dll", absent: str = "") -> ImageMap:
    """The images of an address space with the one image of these tests, and one of which no page is there."""
    modules = [Module(name, f"C:\\{name}", BASE, IMAGE_SIZE)]
    if absent:
        modules.append(Module(absent, f"C:\\{absent}", 0x77000000, IMAGE_SIZE))
    return ImageMap(Memory(source), ModuleMap(modules))


def symbols_of(
    images: ImageMap, labels: Mapping[str, int] | None, name_outside: Callable[[int], Name | None] | None = None
) -> Symbols:
    """Full symbols from labels, or what the image exports if there are none."""
    if labels is None:
        return Symbols(images, name_outside=name_outside)
    table = SymbolTable(SymbolKind.PDB, [(address - BASE, name) for name, address in labels.items()])
    return Symbols(images, lambda _: table, name_outside=name_outside)


def code_of(
    asm: Assembler, *, segments: Mapping[int, bytes] | None = None, functions: Iterable[str] | None = None
) -> Code:
    """The code of an image whose .text is `asm`, with `segments` of memory beside it.

    `functions` are the labels that the symbols name; by default there are no symbols.
    """
    text = asm.finish().ljust(TEXT_SIZE, b"\xcc")
    images = images_of(SegmentSource({BASE: header_page(), asm.origin: text, **(segments or {})}))
    return Code(
        images, symbols_of(images, None if functions is None else {name: asm.labels[name] for name in functions})
    )


def words(*values: int) -> bytes:
    """Words of a stack, lowest first."""
    return struct.pack(f"<{len(values)}I", *values)
