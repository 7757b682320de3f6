# SPDX-License-Identifier: Apache-2.0
"""Writes a native image of NGEN with a few methods (dotnet/coreclr, src/inc/corcompile.h and src/vm/ceeload.h)."""

from __future__ import annotations

import struct

from tests.support.metadata_writer import MetadataWriter, managed_image
from tests.support.pe_writer import READ_ONLY, X64, X86, Section

BASE, HEADER, MODULE, LAYOUT, TABLES, DESCS, CODE = 0x40000000, 0x8000, 0x9000, 0xA000, 0xB000, 0xC000, 0x20000
HOT, UNPROFILED, COLD = CODE, CODE + 0x1000, CODE + 0x2000
INFO = 0x30000
GC_INFO = bytes([0x40, 0x81, 0x96, 0xBB, 0xBC, 0xBE, 0xBF, 0x26])
"""Of all methods on x86: 40h bytes, a prologue of 5, edi, esi and ebp saved, ebp frame pointer, 4 bytes of epilogue."""


def image(
    *, is_x86: bool, layout_at: int = 0x58, is_relative: bool = False, changed: tuple[int, bytes] | None = None
) -> bytes:
    """Hot: method A with a funclet, method B. Unprofiled: method C. Cold: a part of A (of two functions), one of C."""
    width = "I" if is_x86 else "Q"

    def functions(start: int, count: int, unwinds: tuple[int, ...] = ()) -> bytes:
        places = [(start + 0x40 * n, unwinds[n] if unwinds else INFO) for n in range(count)]
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
    parts = {HEADER: head, MODULE: bytes(module), LAYOUT: layout, TABLES: tables, CODE: bytes(0x3000), INFO: GC_INFO}
    sections = tuple(Section(f".{rva:x}", rva, data, READ_ONLY) for rva, data in parts.items())
    writer = MetadataWriter()
    pe = managed_image(
        writer.build(), machine=X86 if is_x86 else X64, base=BASE, sections=sections, precompiled=(HEADER, len(head))
    )
    data = bytearray(pe.mapped())
    if changed is not None:
        data[changed[0] : changed[0] + len(changed[1])] = changed[1]
    return bytes(data)
