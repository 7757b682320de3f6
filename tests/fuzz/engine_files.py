# SPDX-License-Identifier: Apache-2.0
"""Attacks on what reads files beside the dump: PDBs, converted PDBs, frame data, image files, cabinets."""

from __future__ import annotations

import atexit
import random
import shutil
import struct
import tempfile
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from tests.fuzz.engine import Attack, Family
from tests.fuzz.ground import Shot
from tests.fuzz.mutate import mutate
from tests.support.cabinet_writer import MSZIP, STORED, cabinet
from tests.support.pdb_writer import FpoRecord, FrameRecord, Inline, Pdb, Procedure, Public
from tests.support.pe_writer import CODE, Pe, Section
from throwstack.core.memory import PAGE_SIZE, Memory, memory_of
from throwstack.core.text import escape
from throwstack.files.cabinet import NotUnpacked, unpack
from throwstack.files.image_path import ImagePages, ImageStore
from throwstack.files.symbol_path import PathElement, SymbolPath
from throwstack.images.image import Image, PdbIdentity
from throwstack.images.modules import Module, ModuleMap
from throwstack.names.frame_records import annotation
from throwstack.pdb import convert
from throwstack.pdb.fpo import fpo_lines, frame_data_lines
from throwstack.pdb.msf import MsfFile, NotAPdb
from throwstack.pdb.omap import Omap, as_before, read_streams
from throwstack.pdb.pdb_identity import check_pdb
from throwstack.pdb.stack_win import FrameDataTable

_SCRATCH: list[Path] = []
GUID = "00112233445566778899AABBCCDDEEFF"


def scratch() -> Path:
    """Return a directory for the files of one family, in memory where the system has such a place."""
    shm = Path("/dev/shm")
    made = Path(tempfile.mkdtemp(prefix="throwstack-fuzz-", dir=shm if shm.is_dir() else None))
    _SCRATCH.append(made)
    return made


@atexit.register
def remove_scratch() -> None:
    """Remove what `scratch` made; a worker, which ends without Python's own end, calls it."""
    while _SCRATCH:
        shutil.rmtree(_SCRATCH.pop(), ignore_errors=True)


def pdb_seeds() -> list[bytes]:
    """Return PDBs with everything that this project's writer knows of."""
    program = "$T0 .raSearch = $eip $T0 ^ = $esp $T0 4 + = $ebp $T0 16 - ^ ="
    inline = Inline("inner", "a.cpp", 7, [(0x1004, 4, 7)])
    full = Pdb(
        GUID,
        procedures=[
            Procedure("?f@A@@QAEXH@Z", 0x1000, 0x40, [(0x1000, "a.cpp", 5)], ("int",), [inline]),
            Procedure("main", 0x1040, 0x80, [(0x1040, "b.cpp", 1)]),
        ],
        publics=[Public("_start", 0x1100), Public("?g@@YAXXZ", 0x1140)],
        frame_data=[FrameRecord(0x1000, 0x40, program, locals=8, saved_registers=4, has_seh=True)],
        fpo=[FpoRecord(0x1040, 0x80, locals=2, parameters=1, prologue=3, has_seh=True)],
    )
    moved = Pdb(
        GUID,
        publics=[Public("_start", 0x1100)],
        fpo=[FpoRecord(0x1000, 0x80, locals=2)],
        omap=[(0x1000, 0x5000), (0x1040, 0), (0x1080, 0x2000)],
        former_sections=[(".text", 0x1000, 0x4000)],
    )
    return [full.to_bytes(), moved.to_bytes(), full.to_bytes(512), Pdb(GUID, has_dbi=False).to_bytes(512)]


def _pdb_files() -> Attack:
    seeds = pdb_seeds()
    path = scratch() / "app.pdb"

    def attack(rng: random.Random, shot: Shot) -> Iterator[str]:
        seed = rng.choice(seeds)
        data = _mutated_pdb(rng, seed, seeds)
        shot.note("PDB", seed, data)
        path.write_bytes(data)
        yield check_pdb(path, PdbIdentity("app.pdb", GUID, 1), 1 << 30) or ""
        try:
            msf = MsfFile(BytesIO(data))
            for number in (1, 3, 5, 65535):
                msf.stream(number, 1 << 20)
            omap = Omap(*read_streams(msf, (4, 3)))
            for _ in zip(fpo_lines(path, omap), range(2000), strict=False):
                pass
            as_before(path)
        except NotAPdb as reason:
            yield str(reason)

    return attack


def _mutated_pdb(rng: random.Random, seed: bytes, seeds: list[bytes]) -> bytes:
    """Change a PDB at its head, in its directory, or in one of its blocks."""
    block = int.from_bytes(seed[32:36], "little")
    blocks = len(seed) // block
    number = rng.choice((0, 0, blocks - 1, blocks - 2, rng.randrange(blocks)))
    part = seed[number * block : (number + 1) * block]
    used = part.rstrip(b"\0")
    changed = mutate(rng, used[:64] if not number else used or part, rng.choice(seeds)[:4096], keeps_size=True)
    data = seed[: number * block] + changed + seed[number * block + len(changed) :]
    return data[: rng.randrange(len(data))] if rng.random() < 0.05 else data


def _omap() -> Attack:
    seed = struct.pack("<12I", 0x1000, 0x5000, 0x1040, 0, 0x1080, 0x2000, 0x1100, 0x7000, 0x2000, 0x1000, 0x3000, 0)
    records = b"".join(struct.pack("<IIIHH", at, 0x40, 2, 1, 0x0803) for at in range(0x1000, 0x1100, 0x40))

    def attack(rng: random.Random, shot: Shot) -> Iterator[str]:
        first, second = (mutate(rng, seed) if rng.random() < 0.7 else b"" for _ in range(2))
        shot.changes += [f"OMAP from {first.hex()}", f"OMAP to {second.hex()}"]
        omap = Omap(first, second)
        changed = mutate(rng, records, keeps_size=True)
        lines = []
        for begin, size, *_ in struct.iter_unpack("<IIIHH", changed):
            omap.before(begin)
            omap.after(begin)
            assert len(list(omap.pieces(begin, size))) <= 256
            lines.append(f"STACK WIN 4 {begin:x} {size:x} 3 0 4 4 8 0 1 $T0 .raSearch =")
        FrameDataTable("\n".join(frame_data_lines(lines, omap)))
        yield ""

    return attack


def _converted() -> Attack:
    directory = scratch()
    parts = convert.Converted(
        b"SYMC" * 8, convert.pack_functions([(0x1000, "main"), (0x1100, "f")]), b"STACK", b"", b""
    )
    stamp = (1 << 20, 200)
    convert.save(directory / "seed", parts, stamp)
    seed = (directory / "seed").read_bytes()
    path = directory / "app.converted"

    def attack(rng: random.Random, shot: Shot) -> Iterator[str]:
        head, body = seed[:28], mutate(rng, seed[28:])
        if rng.random() < 0.8:  # by somebody who knows the format
            head = struct.pack("<16sQI", head[:16], len(body), zlib.crc32(body))
        else:
            head = mutate(rng, head)
        shot.note("converted PDB", seed, head + body)
        path.write_bytes(head + body)
        try:
            loaded = convert.load(path, stamp)
            if loaded is not None:
                convert.unpack_functions(loaded.functions)
                FrameDataTable(loaded.frames.decode("utf-8", "replace"))
                Omap(loaded.omap_from_source, loaded.omap_to_source)
        except convert.NotConverted as reason:
            yield str(reason)

    return attack


def _frame_data() -> Attack:
    program = "$T0 .raSearch = $eip $T0 ^ = $esp $T0 4 + = $ebp $T0 16 - ^ ="
    lines = [
        f"STACK WIN 4 1000 40 3 0 4 4 8 0 1 {program}",
        "STACK WIN 0 1040 80 3 0 4 4 8 0 0 1",
        "STACK WIN 3 1100 80 3 0 4 4 8 0 0 0",
        "STACK SEH 1000 40",
    ]
    seed = "\n".join(lines * 3).encode()

    def attack(rng: random.Random, shot: Shot) -> Iterator[str]:
        data = mutate(rng, seed, seed)
        shot.changes.append(f"frame data {data!r}")
        table = FrameDataTable(data.decode("utf-8", "replace"))
        for rva in (0, 0x1000, 0x1044, 0x1100, 0xFFFFFFFF):
            for found in (table.find(rva), table.described(rva)):
                if found is not None:
                    yield escape(annotation(found))

    return attack


def _cabinets() -> Attack:
    directory = scratch()
    packed, target = directory / "app.pd_", directory / "app.pdb"
    data = b"".join(b"line %d\n" % (index * index % 977) for index in range(400))
    seeds = [cabinet(data, method, flags) for method in (MSZIP, STORED) for flags in (0, 4)]

    def attack(rng: random.Random, shot: Shot) -> Iterator[str]:
        seed = rng.choice(seeds)
        part = rng.choice((64, 96, len(seed)))
        changed = mutate(rng, seed[:part], seed) + seed[part:]
        shot.note("cabinet", seed, changed)
        packed.write_bytes(changed)
        try:
            unpack(packed, target)
            assert target.stat().st_size <= 65535 * 0x8000
            target.unlink()
        except NotUnpacked as reason:
            yield str(reason)
        assert [path.name for path in directory.iterdir()] == [packed.name]

    return attack


def _image_files() -> Attack:
    directory = scratch()
    image = Pe(
        sections=[Section(".text", 0x1000, b"\xc3" * 0x300, CODE), Section(".data", 0x2000, b"d" * 64, 0xC0000040)],
        exports=[("f", 0x1000), ("g", 0x1010)],
        pdb=(GUID, 1, "app.pdb"),
        relocations=[0x1004, 0x1008],
    )
    seed, memory = image.file(), memory_of({})
    base = 0x20000000
    module = Module("app.dll", r"c:\app.dll", base, image.size, image.timestamp)
    said: list[str] = []

    def attack(rng: random.Random, shot: Shot) -> Iterator[str]:
        start = rng.choice((0, 0, 0x400, 0x600))
        part = seed[start : start + 0x400]
        data = seed[:start] + mutate(rng, part, keeps_size=True) + seed[start + len(part) :]
        shot.note("image file", seed, data)
        (directory / "app.dll").write_bytes(data)
        said.clear()
        path = SymbolPath((PathElement((directory,)),), say=said.append)
        store = ImageStore(path, say=said.append)
        mapped = store.mapped(Image(module, memory))
        pages = ImagePages(memory, ModuleMap([module]), store)
        for rva in range(0, 0x4000, PAGE_SIZE):
            pages.page(base + rva)
        found = store.image(Image(module, memory))
        if mapped is not None and found is not None:
            Memory(pages).read_available(base, 0x3000)
            assert len(found.exports) < 100_000
            yield str(found.pdb is not None)
        yield from said

    return attack


FAMILIES = [
    Family("PDB files", _pdb_files, 3),
    Family("OMAP", _omap, 2),
    Family("converted PDBs", _converted, 2),
    Family("frame data", _frame_data, 2),
    Family("cabinets", _cabinets, 2),
    Family("image files", _image_files, 0.5),
]
