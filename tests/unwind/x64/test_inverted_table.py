# SPDX-License-Identifier: Apache-2.0
"""The loader's list of function tables, laid out as the kernel's symbols describe it."""

from __future__ import annotations

import struct

from throwstack.core.memory import memory_of
from throwstack.images.modules import Module
from throwstack.unwind.x64.inverted_table import InvertedTable

AT = 0x7FF800000000
PROGRAM = Module("program.exe", "", 0x140000000, 0x10000)
LIBRARY = Module("library.dll", "", 0x180000000, 0x20000)


def listing(*entries: tuple[int, int, int, int], count: int | None = None) -> InvertedTable:
    """Entries of (function table, image base, image size, table size)."""
    head = struct.pack("<4I", len(entries) if count is None else count, 0x200, 0, 0)
    data = head + b"".join(struct.pack("<QQII", *entry) for entry in entries)
    return InvertedTable(memory_of({AT: data}), lambda: AT)


def test_the_entry_of_a_module_is_found_by_its_base() -> None:
    table = listing((0x140008000, PROGRAM.base, 0x10000, 24), (0x180009000, LIBRARY.base, 0x20000, 1200))
    assert table.function_table(LIBRARY) == (0x180009000, 1200)
    assert table.function_table(PROGRAM) == (0x140008000, 24)


def test_a_module_that_is_not_listed_has_no_table() -> None:
    assert listing((0x140008000, PROGRAM.base, 0x10000, 24)).function_table(LIBRARY) is None


def test_a_table_that_cannot_be_the_modules_is_not_believed() -> None:
    for address, size in ((0x17FFFFFFF, 24), (0x18001FFF0, 24), (0x180009000, 25), (0x180009000, 0)):
        assert listing((address, LIBRARY.base, 0x20000, size)).function_table(LIBRARY) is None


def test_entries_after_the_count_do_not_belong_to_the_list() -> None:
    entries = (0x140008000, PROGRAM.base, 0x10000, 24), (0x180009000, LIBRARY.base, 0x20000, 1200)
    assert listing(*entries, count=1).function_table(LIBRARY) is None


def test_a_list_that_cannot_be_read_has_no_tables() -> None:
    assert InvertedTable(memory_of({}), lambda: AT).function_table(LIBRARY) is None
    assert InvertedTable(memory_of({}), lambda: None).function_table(LIBRARY) is None
