# SPDX-License-Identifier: Apache-2.0
"""Decides whether an address is in the function whose symbol is the nearest one before the address.

Exports and public symbols say where some functions start, and never where they end. So the nearest symbol before an
address may be that of another function: `DLL!Exported+0x9a0` is often in a function that is not exported. The image
helps: on x64 its RUNTIME_FUNCTION table has start and end of every function but leaf functions; on x86 the filling
bytes between functions show where one ended. If neither decides it, the distance from the symbol does.
"""

from __future__ import annotations

import re

from throwstack.core.memory import MemoryUnreadable
from throwstack.core.stop import Stop
from throwstack.images.function_table import RuntimeFunction
from throwstack.images.image import Image

MAX_OFFSET = 0x1FF
"""If the nearest export is further before an address than this, the address is taken to be in another function.

The distance decides only if the image does not. It was measured on six Windows kernels, whose symbol tables name every
function. Names that look exported were kept (one function in eight), the others were removed. The nearest name was then
the right one for 57 % of the addresses 0x40 to 0x7f after it, for 19 % at 0x100 to 0x1ff, for 7.5 % at 0x200 to 0x3ff
and for 0.8 % at 0x800 to 0xfff.
"""
_CHAINED = 0x4 << 3
_MAX_CHAIN = 32
_FILLING = re.compile(rb"(?<![\xb8-\xbf\xcc])\xcc{3,}|[\x90\xcc]{5}\x8b\xff")
"""The filling between functions: int3, or room for a hot patch before `mov edi, edi`.

Four bytes CC after `mov reg` (B8 to BF) are not filling but a constant: `mov eax, 0CCCCCCCCh` is B8 CC CC CC CC. Code
that fills a debug build's locals has it.
"""


def is_beyond_function(image: Image, start: int, rva: int, *, is_sparse: bool, has_gaps: bool = False) -> bool:
    """Say whether `rva` seems to be outside the function whose symbol is at RVA `start`.

    `is_sparse`: many functions of the image have no symbol, as in an export table. `has_gaps`: some symbols could not
    be read, so that one of these may be nearer to `rva`. With gaps, every address but `start` is taken to be outside,
    unless the image's RUNTIME_FUNCTION table says that it is in the function.
    """
    if rva < start:
        return True
    headers = image.headers
    is_sparse = is_sparse or has_gaps
    furthest = 0 if has_gaps else MAX_OFFSET
    if headers is None:
        return is_sparse and rva - start > furthest
    # An export can be a variable: ntdll exports `NlsAnsiCodePage`. It is in a data section and names no code after it.
    if headers.section_at(start) is not headers.section_at(rva):
        return True
    if headers.arch.facts.has_function_table:
        entry = _runtime_function(image, rva)
        if entry is not None:
            begin, function = entry
            is_leaf = start not in {begin, function}  # a leaf function has no entry: nothing says where it ends
            return is_leaf and (begin > start or (has_gaps and rva > start))
    elif rva - start <= MAX_OFFSET and _has_filling(image, start, rva):
        return True
    return is_sparse and rva - start > furthest


def _has_filling(image: Image, start: int, rva: int) -> bool:
    return _FILLING.search(image.memory.read_available(image.base + start, rva - start)) is not None


def _runtime_function(image: Image, rva: int) -> tuple[int, int] | None:
    """Return two RVAs: where the last RUNTIME_FUNCTION at or before `rva` begins, and where its function begins.

    The two differ if the entry is for a separate part of a function. The result is None if the table cannot be read or
    begins after `rva`.
    """
    table = image.function_table
    entry = None if table is None else table.nearest(rva)
    if entry is None or isinstance(entry, Stop):
        return None
    try:
        return entry.begin, _primary_begin(image, entry)
    except MemoryUnreadable:
        return None


def _primary_begin(image: Image, entry: RuntimeFunction) -> int:
    """Return the RVA where the function of `entry` begins.

    `entry` may be for a separate part of the function, and then leads to the function's first entry.
    """
    memory, base = image.memory, image.base
    for _ in range(_MAX_CHAIN):
        unwind = entry.unwind
        if unwind & 1:  # points to another entry
            entry = RuntimeFunction.read(memory, base + unwind - 1)
            continue
        if not memory.u8(base + unwind) & _CHAINED:
            break
        entry = RuntimeFunction.read(memory, base + unwind + 4 + (memory.u8(base + unwind + 2) + 1 & ~1) * 2)
    return entry.begin
