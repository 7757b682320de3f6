# SPDX-License-Identifier: Apache-2.0
"""Precompiled methods of a process's images, whoever compiled them."""

from __future__ import annotations

import struct

import pytest

from tests.support import ngen_image as ngen
from tests.support import ready_to_run_image as r2r
from tests.support.metadata_writer import MetadataWriter, managed_image
from tests.support.pe_writer import X64, Pe, Section
from throwstack.core.memory import PAGE_SIZE, Memory, memory_of
from throwstack.images.image import Image
from throwstack.images.modules import Module
from throwstack.managed.method_indexes import MethodIndexes
from throwstack.managed.precompiled import PrecompiledCode

IL_ONLY, NATIVE = 0x60000000, 0x61000000


def process() -> dict[int, bytes]:
    native = Pe(X64, NATIVE, sections=[Section(".text", 0x1000, b"\xcc")]).mapped()
    il_only = managed_image(MetadataWriter().build(), base=IL_ONLY).mapped()
    return {r2r.BASE: r2r.image(), ngen.BASE: ngen.image(is_x86=False), NATIVE: native, IL_ONLY: il_only}


def test_each_image_is_asked_in_its_own_way() -> None:
    code = PrecompiledCode(memory_of(process()))
    found = code.method_at(r2r.BASE, r2r.function(2))
    assert found is not None
    method, metadata = found
    assert metadata.full_method_name(method.rid) == "Program.Run"
    found = code.method_at(ngen.BASE, ngen.UNPROFILED)
    assert found is not None
    assert found[0].method_desc == ngen.BASE + ngen.DESCS + 0x20
    for base in (NATIVE, IL_ONLY):
        assert code.method_at(base, 0x1000) is None
        assert code.reason(base) == ""


@pytest.mark.parametrize(
    ("rva", "has_frame"),
    [
        (ngen.HOT + 4, False),  # in the prologue
        (ngen.HOT + 5, True),
        (ngen.HOT + 0x3D, False),  # in the epilogue
        (ngen.COLD + 4, True),  # 24h bytes from the start: the cold part counts as if it followed the hot one
        (ngen.COLD + 0x1D, False),
        (ngen.CODE - 0x100, False),
    ],
)
def test_frames_of_x86_methods_are_known_by_their_gc_info(rva: int, has_frame: bool) -> None:
    data = ngen.image(is_x86=True)
    memory = memory_of({ngen.BASE: data})
    image = Image(Module("made.ni.dll", "", ngen.BASE, len(data)), memory)
    found = PrecompiledCode(memory).frame_data(image, rva)
    assert (found is not None) == has_frame
    if found is not None:
        assert (found.program.split(" = ")[0], found.removed) == ("$T0 $ebp", 0)
        assert found.program.endswith("$edi $T0 -4 + ^ = $esi $T0 -8 + ^ =")


def test_x64_code_has_unwind_data_of_its_own() -> None:
    data = ngen.image(is_x86=False)
    memory = memory_of({ngen.BASE: data})
    image = Image(Module("made.ni.dll", "", ngen.BASE, len(data)), memory)
    assert PrecompiledCode(memory).frame_data(image, ngen.HOT + 0x10) is None


def test_absent_parts_are_a_reason() -> None:
    data = r2r.image()
    pages = {r2r.BASE + at: data[at : at + PAGE_SIZE] for at in range(0, len(data), PAGE_SIZE)}
    del pages[r2r.BASE + r2r.HEADER]
    code = PrecompiledCode(memory_of(pages))
    assert code.method_at(r2r.BASE, r2r.function(2)) is None
    assert "not readable" in code.reason(r2r.BASE)
    headers_absent = PrecompiledCode(memory_of({}))
    assert "not readable" in headers_absent.reason(r2r.BASE)
    assert headers_absent.reason_of_managed(r2r.BASE) == ""


def test_an_absent_page_of_the_table_of_functions_hides_no_methods_that_are_found_without_it() -> None:
    """The table is moved to the end of a page: entries 0 to 4 are on it, 5 to 7 on the next page, which is absent."""
    data = bytearray(r2r.image())
    entry = data.index(struct.pack("<I", 102), r2r.HEADER + 16)
    _, table, size = struct.unpack_from("<III", data, entry)
    moved = r2r.CODE - 5 * 12
    data[moved : moved + size] = data[table : table + size]
    struct.pack_into("<I", data, entry + 4, moved)
    pages = {r2r.BASE + at: bytes(data[at : at + PAGE_SIZE]) for at in range(0, len(data), PAGE_SIZE)}
    del pages[r2r.BASE + r2r.CODE]
    code = PrecompiledCode(memory_of(pages))
    for number, row in ((2, 3), (6, None), (2, 3)):
        found = code.method_at(r2r.BASE, r2r.function(number))
        assert (None if found is None else found[0].rid) == row
    assert "not readable" in code.reason(r2r.BASE)


def test_where_the_cold_parts_are_lost_no_method_is_named_however_often_it_is_asked() -> None:
    """Function 7 is the cold part of Run. Without section 120 it would look like a part of the method before it."""
    data = bytearray(r2r.image(cold=[(7, 2)]))
    code = PrecompiledCode(memory_of({r2r.BASE: bytes(data)}))
    found = code.method_at(r2r.BASE, r2r.function(7))
    assert found is not None
    assert found[0].rid == 3
    entry = data.index(struct.pack("<I", 120), r2r.HEADER + 16)
    struct.pack_into("<I", data, entry + 4, 0x7FFFFFF0)
    code = PrecompiledCode(memory_of({r2r.BASE: bytes(data)}))
    assert [code.method_at(r2r.BASE, r2r.function(number)) for number in (7, 7, 0)] == [None] * 3
    assert "outside the image" in code.reason(r2r.BASE)


def test_processes_with_the_same_image_share_what_is_inverted() -> None:
    """A process that has changed its copy has an index of its own: what it says is not said of others."""
    indexes = MethodIndexes()
    data = r2r.image()
    changed = bytearray(data)
    place = data.index(b"\x10\x12", r2r.BODY)  # Run's function 2 with fixups; see `r2r.image`
    changed[place : place + 2] = b"\x10\x32"

    def run(image: bytes) -> int:
        memory: Memory = memory_of({r2r.BASE: image})
        found = PrecompiledCode(memory, indexes).method_at(r2r.BASE, r2r.function(2))
        assert found is not None
        return found[0].rid

    assert [run(data), run(bytes(changed)), run(data)] == [3, 1, 3]


def test_a_section_of_instances_says_nothing_of_methods_with_the_same_bytes_in_another_process() -> None:
    """An attacker's image has as section 109, alone, what the other process's image has as section 103, alone."""
    indexes = MethodIndexes()

    def sections(*, kept: int, other: int) -> bytes:
        data = bytearray(r2r.image())
        for at in range(r2r.HEADER + 16, r2r.HEADER + 16 + 3 * 12, 12):
            kind, *place = struct.unpack_from("<III", data, at)
            if kind == 103:
                struct.pack_into("<III", data, at, kept, *place)
            elif kind == 109:
                struct.pack_into("<III", data, at, other, *place)
        return bytes(data)

    def row(image: bytes) -> int | None:
        found = PrecompiledCode(memory_of({r2r.BASE: image}), indexes).method_at(r2r.BASE, r2r.function(2))
        return None if found is None else found[0].rid

    row(sections(kept=109, other=200))
    assert row(sections(kept=103, other=200)) == 3
