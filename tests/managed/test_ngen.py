# SPDX-License-Identifier: Apache-2.0
"""Methods of native images of NGEN, by the RVA of their code: hot, unprofiled and cold code of x64 and x86."""

from __future__ import annotations

import random
import struct

import pytest

from tests.support.metadata_writer import MetadataWriter, managed_image
from tests.support.pe_writer import READ_ONLY, X64, X86, Section
from throwstack.core.memory import PAGE_SIZE, Memory, memory_of
from throwstack.managed.metadata import Metadata
from throwstack.managed.metadata_error import MetadataError
from throwstack.managed.ngen import NgenImage

BASE, HEADER, MODULE, LAYOUT, TABLES, DESCS, CODE = 0x40000000, 0x8000, 0x9000, 0xA000, 0xB000, 0xC000, 0x20000
HOT, UNPROFILED, COLD = CODE, CODE + 0x1000, CODE + 0x2000


def image(
    *, is_x86: bool, layout_at: int = 0x58, is_relative: bool = False, changed: tuple[int, bytes] | None = None
) -> bytes:
    """Hot: method A with a funclet, method B. Unprofiled: method C. Cold: a part of A (of two functions), one of C."""
    width = "I" if is_x86 else "Q"

    def functions(start: int, count: int, unwinds: tuple[int, ...] = ()) -> bytes:
        places = [(start + 0x40 * n, unwinds[n] if unwinds else 0x30000) for n in range(count)]
        if is_x86:
            return b"".join(struct.pack("<II", *place) for place in places)
        return b"".join(struct.pack("<III", begin, begin + 0x40, unwind) for begin, unwind in places)

    hot_at, unprofiled_at, cold_at = TABLES, TABLES + 0x100, TABLES + 0x200
    a, c = hot_at, unprofiled_at
    cold_unwinds = (1 << 31 | a, 1 << 31 | a, 1 << 31 | c) if is_x86 else ()
    tables = functions(HOT, 3).ljust(0x100, b"\0") + functions(UNPROFILED, 1).ljust(0x100, b"\0")
    tables += functions(COLD, 3, cold_unwinds).ljust(0x100, b"\0")
    tables += struct.pack("<III", DESCS | 1, 0, DESCS + 0x10).ljust(0x100, b"\0")
    tables += struct.pack("<I", DESCS + 0x20).ljust(0x100, b"\0")
    cold_map = (0x20, 0x20, 0x20) if is_x86 else (a, 0x20, 0, 0, c, 0x20)
    tables += struct.pack(f"<{len(cold_map)}I", *cold_map)
    layout = struct.pack(
        f"<9{width}3I{'' if is_x86 else '4x'}2{width}2{width}2I{width}",
        *(BASE + HOT, 3 * 0x40, BASE + UNPROFILED, 0x40, BASE + COLD, 3 * 0x40),
        *(BASE + hot_at, BASE + unprofiled_at, BASE + cold_at),
        *(3, 1, 3),
        *(BASE + TABLES + 0x300, BASE + TABLES + 0x400),
        *(0, 0, 0, 0),
        BASE + TABLES + 0x500,
    )
    module = bytearray(0x200)
    target = LAYOUT - MODULE - layout_at if is_relative else BASE + LAYOUT
    struct.pack_into(f"<{width}", module, layout_at, target & ((1 << 8 * struct.calcsize(width)) - 1))
    head = b"NGE\0".ljust(0x40, b"\0") + struct.pack("<II", MODULE, len(module)) + bytes(0x60)
    parts = {HEADER: head, MODULE: bytes(module), LAYOUT: layout, TABLES: tables, CODE: bytes(0x3000)}
    sections = tuple(Section(f".{rva:x}", rva, data, READ_ONLY) for rva, data in parts.items())
    writer = MetadataWriter()
    pe = managed_image(
        writer.build(), machine=X86 if is_x86 else X64, base=BASE, sections=sections, precompiled=(HEADER, len(head))
    )
    data = bytearray(pe.mapped())
    if changed is not None:
        data[changed[0] : changed[0] + len(changed[1])] = changed[1]
    return bytes(data)


def opened(memory: Memory) -> NgenImage:
    metadata = Metadata.of_image(memory, BASE)
    assert metadata is not None
    return NgenImage(memory, metadata.header)


def in_memory(data: bytes) -> Memory:
    return memory_of({BASE: data})


@pytest.mark.parametrize("is_x86", [False, True])
@pytest.mark.parametrize(("layout_at", "is_relative"), [(0x10, False), (0x58, True)])
def test_each_function_belongs_to_a_method(is_x86: bool, layout_at: int, is_relative: bool) -> None:
    code = opened(in_memory(image(is_x86=is_x86, layout_at=layout_at, is_relative=is_relative)))
    a, b, c = (BASE + DESCS + 0x10 * number for number in range(3))
    expected = [
        *((HOT, a, HOT, True), (HOT + 0x40, a, HOT, False), (HOT + 0x80, b, HOT + 0x80, True)),
        (UNPROFILED, c, UNPROFILED, True),
        *((COLD, a, HOT, False), (COLD + 0x40, a, HOT, False), (COLD + 0x80, c, UNPROFILED, False)),
    ]
    for begin, method_desc, start, is_body in expected:
        for rva in (begin, begin + 0x3F):
            found = code.method_at(rva)
            assert found is not None, hex(rva)
            assert (found.rid, found.method_desc, found.start, found.is_body) == (0, method_desc, start, is_body)
    for rva in (HOT - 1, HOT + 0xC0, UNPROFILED + 0x40, COLD + 0xC0):
        assert code.method_at(rva) is None


@pytest.mark.parametrize("is_x86", [False, True])
@pytest.mark.parametrize(
    "changed",
    [
        pytest.param((HEADER, b"RTR\0"), id="another kind"),
        pytest.param((HEADER + 0x40, b"\xff\xff\xff\x7f"), id="Module outside the image"),
        pytest.param((MODULE + 0x58, bytes(8)), id="no pointer"),
        pytest.param((TABLES, b"\0\0\0\1"), id="functions outside the code"),
    ],
)
def test_what_contradicts_itself_is_refused(is_x86: bool, changed: tuple[int, bytes]) -> None:
    with pytest.raises(MetadataError):
        opened(in_memory(image(is_x86=is_x86, changed=changed)))


def test_an_absent_page_is_a_reason() -> None:
    data = image(is_x86=False)
    lost = memory_of({BASE + at: data[at : at + PAGE_SIZE] for at in range(0, len(data), PAGE_SIZE) if at != HEADER})
    with pytest.raises(MetadataError, match="not readable"):
        opened(lost)


@pytest.mark.parametrize("is_x86", [False, True])
def test_no_bytes_raise_another_error(is_x86: bool) -> None:
    data = image(is_x86=is_x86)
    rng = random.Random(17)
    for _ in range(150):
        changed = bytearray(data)
        for _ in range(rng.randrange(1, 5)):
            at = rng.choice((HEADER + 0x40, MODULE + 0x58, LAYOUT + rng.randrange(0x90), TABLES + rng.randrange(0x600)))
            changed[at : at + 2] = rng.randbytes(2)
        try:
            code = opened(in_memory(bytes(changed)))
            for rva in range(HOT, COLD + 0x100, 0x20):
                code.method_at(rva)
        except MetadataError as reason:
            assert str(reason)  # noqa: PT017
