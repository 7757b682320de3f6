# SPDX-License-Identifier: Apache-2.0
"""Whether the nearest known symbol can be the function that an address lies in.

Tables of exports and of public symbols say where functions start, for some of them, and not where they end. The
image says more: on x64 its RUNTIME_FUNCTION table delimits all functions but leaves; on x86 the filling between
functions shows where one ended. What is left is distance.
"""

from __future__ import annotations

import re

from throwstack.core.memory import MemoryUnreadable
from throwstack.core.stop import Stop
from throwstack.images.function_table import RuntimeFunction
from throwstack.images.image import Image

MAX_OFFSET = 0x1FF
"""Distance beyond which the nearest export is doubted on its own.

Measured on six Windows kernels, whose symbol tables name every function: with only the names that look exported
known (one function in eight), the nearest is the right one for 57 % of the addresses at 0x40 to 0x7f from it, 19 % at
0x100 to 0x1ff, 7.5 % at 0x200 to 0x3ff and 0.8 % at 0x800 to 0xfff.
"""
_CHAINED = 0x4 << 3
_MAX_CHAIN = 32
_FILLING = re.compile(rb"(?<![\xb8-\xbf\xcc])\xcc{3,}|[\x90\xcc]{5}\x8b\xff")
"""Between functions: int3 (four of them after `mov reg` are a constant), or room for a hot patch and `mov edi, edi`."""


def is_beyond_function(image: Image, start: int, rva: int, *, is_sparse: bool, has_gaps: bool = False) -> bool:
    """Say whether there are signs that `rva` is not in the function whose symbol stands at RVA `start`.

    `is_sparse` says that many functions of the image have no symbol (an export table); `has_gaps` that some have one
    which could not be read: then only the image's own table of functions says that `rva` is in this one.
    """
    if rva < start:
        return True
    headers = image.headers
    is_sparse = is_sparse or has_gaps
    furthest = 0 if has_gaps else MAX_OFFSET
    if headers is None:
        return is_sparse and rva - start > furthest
    if headers.section_at(start) is not headers.section_at(rva):
        return True
    if headers.arch.facts.has_function_table:
        entry = _runtime_function(image, rva)
        if entry is not None:
            begin, function = entry
            is_leaf = start not in {begin, function}  # has no entry, so that nothing says where it ends
            return is_leaf and (begin > start or (has_gaps and rva > start))
    elif rva - start <= MAX_OFFSET and _has_filling(image, start, rva):
        return True
    return is_sparse and rva - start > furthest


def _has_filling(image: Image, start: int, rva: int) -> bool:
    return _FILLING.search(image.memory.read_available(image.base + start, rva - start)) is not None


def _runtime_function(image: Image, rva: int) -> tuple[int, int] | None:
    """Return where the last entry that begins at or before `rva` begins, and where the function it is part of does.

    They differ for the separate parts of a function. None if the table cannot be read or begins later.
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
    """Follow an entry for a separate part of a function to that function's first part, and return where that begins."""
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
