# SPDX-License-Identifier: Apache-2.0
"""Exports and PDB identity of an image in memory, and what images share."""

from __future__ import annotations

import struct
import tracemalloc

import pytest

from tests.support.pe_writer import X64, Pe, Section
from tests.unwind.x64.assembler import ImageBuilder
from throwstack.core.memory import memory_of
from throwstack.images.exports import UNKNOWN_EXPORTS, Export
from throwstack.images.image import Image, ImageCache
from throwstack.images.modules import Module
from throwstack.names.symbols import export_table

BASE = 0x180000000
NAMES = {"Alpha": 0x1000, "RtlUserThreadStart": 0x1010, "_zeta@8": 0x1008}


@pytest.mark.parametrize("raw_gap", [0, 0x1000, -0xC00])
def test_exports_are_read_whatever_the_alignment_of_sections_in_the_file(raw_gap: int) -> None:
    """In the file, sections are aligned to 512 bytes (ntdll up to Windows 10), in memory to pages. Both are tried."""
    data = ImageBuilder(b"\xcc" * 0x20, exports=NAMES, raw_gap=raw_gap).build()
    image = Image(Module("made.dll", "", BASE, len(data)), memory_of({BASE: data}))
    assert list(image.exports) == sorted((Export(rva, name) for name, rva in NAMES.items()), key=lambda e: e.rva)


def test_images_with_the_same_bytes_share_their_exports() -> None:
    data = ImageBuilder(b"\xcc" * 0x20, exports=NAMES).build()
    cache = ImageCache()
    first, second = (opened(data, base, cache) for base in (BASE, BASE + 0x10000000))
    assert first.exports is second.exports


def test_an_altered_copy_has_its_own_exports() -> None:
    """One process has renamed an export in its copy of the DLL; the header page is the same in all."""
    data = ImageBuilder(b"\xcc" * 0x20, exports=NAMES).build()
    cache = ImageCache()
    liar = opened(data.replace(b"Alpha\0", b"Omega\0"), BASE, cache)
    honest = opened(data, BASE, cache)
    assert next(export.name for export in liar.exports) == "Omega"
    assert next(export.name for export in honest.exports) == "Alpha"
    assert export_table(honest).rva_of("Alpha") == NAMES["Alpha"]


def test_exports_parsed_without_a_page_are_not_used_for_an_image_that_has_the_page() -> None:
    data = ImageBuilder(b"\xcc" * 0x20, exports=NAMES).build()
    cache = ImageCache()
    rva, _ = opened(data, BASE, cache).headers.export_directory
    absent = opened(data, BASE, cache, absent=rva & -0x1000)
    assert absent.exports is UNKNOWN_EXPORTS
    assert len(opened(data, BASE, cache).exports) == len(NAMES)


@pytest.mark.parametrize(("rva", "size"), [(0x3FFFE000, 0x1000), (0x3FFFE000, 0x700000), (0x1000, 0x7FFFFFFF)])
def test_a_directory_beyond_the_image_costs_no_memory(rva: int, size: int) -> None:
    data = bytearray(ImageBuilder(b"\xcc" * 0x20, exports=NAMES).build())
    struct.pack_into("<II", data, int.from_bytes(data[0x3C:0x40], "little") + 24 + 112, rva, size)
    image = opened(bytes(data), BASE, ImageCache())
    tracemalloc.start()
    try:
        assert list(image.exports) == []
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("cut", "name"), [(0, "ftp.pdb"), (1, None)])
def test_a_pdb_name_that_goes_on_on_an_absent_page_is_not_used(cut: int, name: str | None) -> None:
    """The first part could be the name of another PDB."""
    record = b"RSDS" + bytes(range(16)) + struct.pack("<I", 1) + b"ftp.pdb\0"
    pe = Pe(X64, BASE, sections=[Section(".text", 0x1000, b"\xcc" * 0x1000), Section(".rdata", 0x2000, bytes(0x2000))])
    data = bytearray(pe.mapped())
    debug = int.from_bytes(data[0x3C:0x40], "little") + 24 + 112 + 8 * 6
    at = 0x3000 - len(record) + 4
    struct.pack_into("<II", data, debug, 0x2000, 28)
    struct.pack_into("<12xIIII", data, 0x2000, 2, len(record), at, at)
    data[at : at + len(record)] = record
    pdb = opened(bytes(data), BASE, ImageCache(), absent=0x3000 if cut else None).pdb
    assert (None if pdb is None else pdb.name) == name


def opened(data: bytes, base: int, cache: ImageCache, *, absent: int | None = None) -> Image:
    """Return the image in `data` at `base` without the page at the RVA `absent`."""
    pages = {base + at: data[at : at + 0x1000] for at in range(0, len(data), 0x1000) if at != absent}
    return Image(Module("made.dll", "", base, len(data)), memory_of(pages), cache)
