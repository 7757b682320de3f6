# SPDX-License-Identifier: Apache-2.0
"""Finds the function table of an image without readable headers by what it looks like in the image's other pages.

The section .pdata begins with the table, so the table begins at a page. Its entries are sorted, do not overlap, and
lead to unwind information that can be decoded. Sorted tables of other RVAs (Control Flow Guard's, for example) look
alike but for the last. A page may be absent. An entry has 12 bytes, so that the first whole entry of the second page of
a table is at offset 8, and that of the third page at offset 4.
"""

from __future__ import annotations

import struct

from throwstack.core.memory import PAGE_SIZE, Memory, MemoryUnreadable
from throwstack.core.stop import Stop
from throwstack.images.function_table import RuntimeFunction
from throwstack.images.modules import Module
from throwstack.unwind.x64.unwind_info import decode

_ENTRY = struct.Struct("<III")
_MAX_PAGES = 1 << 14
_FEWEST = 8
"""Fewer entries may be a coincidence."""
_SAMPLE = 16
_FIRST_WHOLE = (0, 8, 4)
"""Offset of the first whole entry in the first, second and third page of a table; from then on it repeats."""


def table_by_contents(memory: Memory, module: Module) -> tuple[int, int] | None:
    """Return address and size in bytes of the function table of `module`, or None if none is found.

    The first 64 MiB of the module are searched, and the longest table is taken. Pages at its begin may be absent.
    """
    pages = range(module.base, module.base + min(module.size, _MAX_PAGES * PAGE_SIZE), PAGE_SIZE)
    longest, at = (0, 0), module.base
    while at in pages:
        found = _table_from(memory, module, at)
        if found is None:
            at += PAGE_SIZE
            continue
        longest = max(longest, found, key=lambda table: table[1])
        at = max(found[0] + found[1] + PAGE_SIZE - 1 & -PAGE_SIZE, at + PAGE_SIZE)
    return longest if longest[1] else None


def _table_from(memory: Memory, module: Module, page: int) -> tuple[int, int] | None:
    """Return address and size of the table of which the first page that is not absent is at `page`, or None."""
    data = memory.page(page)
    if data is None:
        return None
    for skipped, offset in enumerate(_FIRST_WHOLE):
        start = page - skipped * PAGE_SIZE
        if start < module.base or any(memory.page(page - PAGE_SIZE * one) for one in range(1, skipped + 1)):
            break
        entries = _run(data[offset:], module)
        if len(entries) >= _FEWEST and _leads_to_unwind_information(memory, module, entries):
            return start, _size(memory, module, start, page, entries[-1].begin)
    return None


def _run(data: bytes, module: Module) -> list[RuntimeFunction]:
    """Return the entries at the begin of `data` that can follow one another in the table of `module`."""
    run: list[RuntimeFunction] = []
    last = 0
    for fields in _ENTRY.iter_unpack(data[: len(data) // _ENTRY.size * _ENTRY.size]):
        entry = RuntimeFunction(*fields)
        if not (last <= entry.begin < entry.end <= module.size and 0 < entry.unwind < module.size):
            break
        run.append(entry)
        last = entry.end
    return run


def _leads_to_unwind_information(memory: Memory, module: Module, entries: list[RuntimeFunction]) -> bool:
    decoded = 0
    for entry in entries[:_SAMPLE]:
        if entry.unwind & 1:
            continue
        try:
            if entry.unwind % 4 or isinstance(decode(memory, module.base + entry.unwind), Stop):
                return False
        except MemoryUnreadable:
            continue
        decoded += 1
    return decoded > 0


def _size(memory: Memory, module: Module, start: int, page: int, last: int) -> int:
    """Return the size of the table at `start`, of which `page` is a page; it goes on as long as entries are in order.

    `last` is the begin of an entry on `page`. Absent pages may be in between.
    """
    end, at = page + PAGE_SIZE, page
    while at < module.base + module.size:
        offset = _FIRST_WHOLE[(at - start) // PAGE_SIZE % len(_FIRST_WHOLE)]
        data = memory.page(at)
        if data is not None:
            entries = _run(data[offset:], module)
            if not entries or entries[-1].begin < last:
                break
            last = entries[-1].begin
            end = at + offset + len(entries) * _ENTRY.size
            if PAGE_SIZE - (end - at) >= _ENTRY.size:
                break
            if memory.is_readable(end, _ENTRY.size) and _run(memory.read(end, _ENTRY.size), module):
                end += _ENTRY.size  # the entry that goes over to the next page
        at += PAGE_SIZE
    return (end - start) // _ENTRY.size * _ENTRY.size
