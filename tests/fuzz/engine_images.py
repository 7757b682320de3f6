# SPDX-License-Identifier: Apache-2.0
"""Attacks on what reads images in memory: headers, exports, RSDS records, names, function tables and unwind data."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

from tests.fuzz import managed_image_attacks
from tests.fuzz.engine import Attack, Family
from tests.fuzz.engine_files import GUID
from tests.fuzz.ground import Ground, Shot
from tests.support import version_resource
from tests.support.pe_writer import CODE, Pe, Section
from tests.unwind.x64 import assembler as asm
from throwstack.core.memory import MemoryUnreadable
from throwstack.core.text import escape
from throwstack.files.needed_files import manifest, needed_files
from throwstack.files.symbol_path import ImageIdentity, Server, safe_name, store_key
from throwstack.images.file_version import file_version
from throwstack.images.function_table import FunctionTable
from throwstack.images.image import Image, ImageMap
from throwstack.images.modules import Module, ModuleMap
from throwstack.names.symbols import Symbols
from throwstack.unwind.code_outside import CodeOutside
from throwstack.unwind.x64.dynamic_tables import DynamicTables
from throwstack.unwind.x64.functions import Functions
from throwstack.unwind.x64.table_by_contents import table_by_contents
from throwstack.unwind.x64.unwind_info import decode

BASE = 0x7FF600000000
_X64 = 0x8664


def _headers_and_exports() -> Attack:  # noqa: C901 - seeds and attack
    grounds = []
    for machine, base in ((0x14C, 0x10000000), (_X64, BASE)):
        image = Pe(
            machine=machine,
            base=base,
            sections=[Section(".text", 0x1000, b"\xc3" * 0x300, CODE)],
            exports=[("UnhandledExceptionFilter", 0x1000), ("a", 0x1010), ("b", "ntdll.RtlB"), (None, 0x1020)],
            pdb=(GUID, 1, r"c:\build\app.pdb"),
            functions=[(0x1000, 0x1010, 0x1080)] if machine == _X64 else [],
        )
        data = image.mapped()
        ground = Ground([(base, data)])
        for offset, size in ((0x3C, 4), (0x40, 0x180), (0x80, 0x100)):
            ground.aim(base + offset, size)
        for at in range(base, base + len(data), 0x1000):
            page = ground.pages.get(at, b"")
            if at != base and page.strip(b"\0"):
                ground.aim(at, max(len(page.rstrip(b"\0")), 64))
        ground.values = [0x1000, 0x2000, len(data), len(data) - 1, 0x40, 0x10000000]
        grounds.append((base, len(data), ground))

    def attack(rng: random.Random, shot: Shot) -> Iterator[str]:
        base, size, ground = rng.choice(grounds)
        memory = ground.mutate(rng, shot)
        module = Module("app\x1b.dll", "app.dll", base, rng.choice((size, size, 0x1000, 1 << 31)), 5)
        images = ImageMap(memory, ModuleMap([module]))
        image = next(iter(images))
        symbols = Symbols(images)
        headers = image.headers
        if headers is not None:
            yield escape(str(headers.section_at(0x1000)))
            image.is_code(base + 0x1000)
        assert len(image.exports) <= 1 << 20
        if image.pdb is not None:
            yield from _identity(image)
        for rva in (0, 0x1000, 0x1018, 0x1FFF, size):
            yield escape(str(symbols.name(base + rva, is_return_address=rva == 0x1018)))
            symbols.function_start(base + rva)
        for _, address in symbols.find("UnhandledExceptionFilter"):
            memory.read_available(address, 16)
        for file in needed_files(images, symbols):
            assert "\n" not in file.manifest_line
            assert "/" not in file.manifest_line
            yield file.manifest_line
        yield manifest(needed_files(images, symbols)).replace("\n", "")

    return attack


def _identity(image: Image) -> Iterator[str]:
    assert image.pdb is not None
    name = safe_name(image.pdb.name)
    if name is not None:
        yield name
        yield store_key(image.pdb)
        assert not {"/", "\\"} & set(name + store_key(image.pdb))
    yield Server("https://server/symbols").file_url(image.pdb) or ""
    if image.headers is not None:
        yield store_key(ImageIdentity("a.dll", image.headers.timestamp, image.headers.image_size))


def _made_image() -> tuple[bytes, list[tuple[int, int]], int]:
    """Return an image whose functions have unwind data of every form, their ranges, and the RVA of the first data."""
    code = asm.Assembler()
    ranges = []
    for _ in range(6):
        begin = code.here
        code.push(asm.RBX)
        code.sub_rsp(0x20)
        code.nop()
        code.add_rsp(0x20)
        code.pop(asm.RBX)
        code.ret()
        ranges.append((begin, code.here))
        code.align()
    builder = asm.ImageBuilder(code.assemble())
    codes = [asm.alloc(5, 0x20), asm.push_nonvol(1, asm.RBX)]
    first = builder.add_info(asm.unwind_info(codes, 5))
    infos: list[bytes | int] = [
        first,
        asm.unwind_info([asm.set_fpreg(8), *codes], 8, frame_register=asm.RBP, frame_offset=2),
        asm.unwind_info([], chained=(*ranges[0], first)),
        asm.unwind_info([asm.epilog(5, [1], is_at_end=True), *codes], 5, version=2),
        asm.unwind_info([asm.save_nonvol(9, asm.RSI, 0x40), asm.alloc(5, 0x100000)], 9),
        first,
    ]
    for (begin, end), info in zip(ranges, infos, strict=True):
        builder.add(begin, end, info)
    return builder.build(), ranges, first


def _function_tables() -> Attack:
    image, ranges, first = _made_image()
    ground = Ground([(BASE, image)])
    module = Module("made.dll", "", BASE, len(image))
    table, size = exception_directory(image)
    ground.aim(BASE + table, size)
    for _ in range(3):
        ground.aim(BASE + first, 0x100)
    ground.aim(BASE + 0x80, 0x120)
    ground.values = [*(begin for begin, _ in ranges), table, len(image)]

    def attack(rng: random.Random, shot: Shot) -> Iterator[str]:
        memory = ground.mutate(rng, shot)
        functions = Functions(ImageMap(memory, ModuleMap([module])))
        length = 8 << 20 if rng.random() < 0.01 else rng.choice((size, size, 12, 13))
        found = FunctionTable(memory, BASE + table, length)
        for begin, end in ranges:
            for rva in (begin, end - 1, end):
                yield str(found.find(rva))
                yield str(functions.find(BASE + rva))
        for at in (first, first + 2, table):
            try:
                yield str(decode(memory, BASE + at))
            except MemoryUnreadable:
                yield "unreadable"

    return attack


def _dynamic_tables() -> Attack:
    """Three dynamic function tables (sorted, unsorted, with a callback) for an image that no module list has."""
    image, ranges, _ = _made_image()
    system, tables = BASE + (1 << 24), BASE + (2 << 24)
    head = system + asm.TEXT + 0x40
    links = [head, tables, tables + 0x100, tables + 0x200, head]
    entries = BASE + exception_directory(image)[0]
    ring = b""
    for kind in range(3):
        members = (links[kind + 2], links[kind], entries, 0, BASE, BASE + len(image), BASE, 0, 0, 0)
        ring += (struct.pack("<10Q", *members) + struct.pack("<II", kind, len(ranges))).ljust(0x100, b"\0")
    code = b"\x48\x8d\x05" + struct.pack("<i", 0x40 - 7) + b"\xc3"
    exports = {"RtlGetFunctionTableListHead": asm.TEXT}
    ntdll = bytearray(asm.ImageBuilder(code.ljust(0x80, b"\xcc"), exports=exports, dll_name="ntdll.dll").build())
    struct.pack_into("<QQ", ntdll, head - system, tables, tables + 0x200)
    ground = Ground([(BASE, image), (tables, ring), (system, bytes(ntdll))])
    for _ in range(3):
        ground.aim(tables, len(ring))
    ground.values = [*links, BASE, len(image)]
    modules = ModuleMap([Module("ntdll.dll", "", system, len(ntdll))])

    def attack(rng: random.Random, shot: Shot) -> Iterator[str]:
        memory = ground.mutate(rng, shot)
        images = ImageMap(memory, modules)
        dynamic = DynamicTables(Symbols(images, lambda _: None))
        functions = Functions(images, None, CodeOutside(images, None, [dynamic]))
        for begin, end in ranges:
            for rva in (begin, end):
                yield str(dynamic.function_at(BASE + rva))
                yield str(functions.find(BASE + rva))
        yield str(table_by_contents(memory, Module("made.dll", "", BASE, len(image))))

    return attack


def exception_directory(image: bytes) -> tuple[int, int]:
    """Return RVA and size of a PE32+ image's function table."""
    header = int.from_bytes(image[0x3C:0x40], "little")
    found: tuple[int, int] = struct.unpack_from("<II", image, header + 0x18 + 112 + 3 * 8)
    return found


def _file_versions() -> Attack:
    """Resources with a version, in an image of 32 and of 64 bits."""
    grounds = []
    for wide in (False, True):
        ground = Ground([(version_resource.BASE, version_resource.image_with(version_resource.resources(), wide=wide))])
        ground.aim(version_resource.BASE + 0x3C, 4)
        ground.aim(version_resource.BASE + 0x40, 0x100)
        for _ in range(3):
            ground.aim(version_resource.BASE + version_resource.RESOURCES, 0x140)
        ground.values = [version_resource.DIRECTORY, version_resource.DIRECTORY | 0x40, 0x40, 0x1000, 0xFFFF]
        grounds.append(ground)

    def attack(rng: random.Random, shot: Shot) -> Iterator[str]:
        memory = rng.choice(grounds).mutate(rng, shot)
        yield file_version(Image(Module("app.dll", "", version_resource.BASE, 0x8000), memory))

    return attack


FAMILIES = [
    Family("file versions", _file_versions, 1),
    Family("images", _headers_and_exports, 2),
    Family("function tables", _function_tables, 2),
    Family("dynamic function tables", _dynamic_tables, 2),
    *managed_image_attacks.FAMILIES,
]
