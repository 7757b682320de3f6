# SPDX-License-Identifier: Apache-2.0
"""Attacks on what reads files beside the dump: PDBs, converted PDBs, frame data, image files, cabinets."""

from __future__ import annotations

import atexit
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz.engine import Attack, Family
from tests.fuzz.ground import Shot
from tests.fuzz.mutate import mutate
from tests.support.cabinet_writer import MSZIP, STORED, cabinet
from tests.support.pe_writer import CODE, Pe, Section
from throwstack.core.memory import PAGE_SIZE, Memory, memory_of
from throwstack.files.cabinet import NotUnpacked, unpack
from throwstack.files.image_path import ImagePages, ImageStore
from throwstack.files.symbol_path import PathElement, SymbolPath
from throwstack.images.image import Image
from throwstack.images.modules import Module, ModuleMap

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
    Family("cabinets", _cabinets, 2),
    Family("image files", _image_files, 0.5),
]
