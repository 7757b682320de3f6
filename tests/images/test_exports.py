# SPDX-License-Identifier: Apache-2.0
"""Export directories of which pages are not there, and such as a liar would write.

Three pages: the directory's head and its tables on the first one, the names on all three.
"""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Sequence

import pytest

from throwstack.images.exports import UNKNOWN_EXPORTS, Export, Exports, parse_exports

PAGE = 0x1000
RVA, IMAGE_SIZE = 0x5000, 0x9000
BASE_ORDINAL = 10
FUNCTIONS, NAMES, ORDINALS = RVA + 0x40, RVA + 0x80, RVA + 0xC0
ALPHA, MIDDLE, ZETA = RVA + 0x200, RVA + 0x1010, RVA + 0x2010
"""RVAs of the names, one on each page."""


def directory(functions: Sequence[int], names: Sequence[tuple[int, int]], *, count: int | None = None) -> bytearray:
    """Lay out `functions` (RVAs) and `names` (RVA of the text, index of the function)."""
    data = bytearray(3 * PAGE)
    shown = len(names) if count is None else count
    struct.pack_into("<12xII5I", data, 0, 0, BASE_ORDINAL, len(functions), shown, FUNCTIONS, NAMES, ORDINALS)
    struct.pack_into(f"<{len(functions)}I", data, FUNCTIONS - RVA, *functions)
    for index, (text, function) in enumerate(names):
        struct.pack_into("<I", data, NAMES - RVA + 4 * index, text)
        struct.pack_into("<H", data, ORDINALS - RVA + 2 * index, function)
    for at, text in ((ALPHA, b"Alpha\0"), (MIDDLE, b"Middle\0"), (ZETA, b"Zeta\0")):
        data[at - RVA : at - RVA + len(text)] = text
    return data


WHOLE = directory([0x1100, 0x1200, 0x1300, 0x1400], [(ALPHA, 1), (MIDDLE, 0), (ZETA, 3)])


def parsed(data: bytes, *absent: int, limit: int = IMAGE_SIZE) -> Exports:
    """Parse `data` without the pages `absent`, counted from 0."""
    pages = [None if at in absent else bytes(data[at * PAGE : (at + 1) * PAGE]) for at in range(len(data) // PAGE)]
    return parse_exports((RVA, len(data)), pages, limit)


def names(exports: Exports) -> dict[int, str]:
    return {export.rva: export.name for export in exports}


def test_a_directory_without_absent_pages():
    exports = parsed(WHOLE)
    assert names(exports) == {0x1100: "Middle", 0x1200: "Alpha", 0x1300: "Ordinal12", 0x1400: "Zeta"}
    assert exports.is_whole
    assert not exports.may_lack("Beta")


def test_a_name_on_an_absent_page_costs_that_name_alone():
    """Its function is kept under its ordinal, 10, so that the function before does not seem to go on."""
    exports = parsed(WHOLE, 1)
    assert names(exports) == {0x1100: "Ordinal10", 0x1200: "Alpha", 0x1300: "Ordinal12", 0x1400: "Zeta"}
    assert exports.has_all_starts
    assert [exports.may_lack(name) for name in ("Aardvark", "Middle", "Omega", "Zulu")] == [False, True, True, False]


def test_an_export_name_that_runs_into_an_absent_page_is_not_used():
    """Of `Mi|ddle` only `Mi` can be read, which could be another function's name."""
    data = directory([0x1100], [(RVA + PAGE - 2, 0)])
    data[PAGE - 2 : PAGE + 5] = b"Middle\0"
    exports = parsed(data, 1)
    assert names(exports) == {0x1100: "Ordinal10"}
    assert exports.may_lack("Middle")


def test_if_the_head_of_the_directory_is_absent_any_name_may_be_exported():
    exports = parsed(WHOLE, 0)
    assert exports is UNKNOWN_EXPORTS
    assert exports.may_lack("Alpha")


def test_entries_whose_table_words_are_on_an_absent_page_are_left_out():
    """The second page has the last two addresses and all ordinals. As zeros it would give all names to function 0."""
    data = directory([0] * 4, [])
    tables = (RVA + PAGE - 8, RVA + 0x80, RVA + PAGE + 0x100)
    struct.pack_into("<12xII5I", data, 0, 0, BASE_ORDINAL, 4, 2, *tables)
    struct.pack_into("<4I", data, PAGE - 8, 0x1100, 0x1200, 0x1300, 0x1400)
    struct.pack_into("<2I", data, 0x80, ALPHA, ZETA)
    struct.pack_into("<2H", data, PAGE + 0x100, 2, 3)
    assert names(parsed(data)) == {0x1100: "Ordinal10", 0x1200: "Ordinal11", 0x1300: "Alpha", 0x1400: "Zeta"}
    exports = parsed(data, 1)
    assert names(exports) == {0x1100: "Ordinal10", 0x1200: "Ordinal11"}
    assert not exports.has_all_starts
    assert exports.may_lack("Alpha")
    assert exports.may_lack("Zeta")


def test_names_that_are_not_sorted_may_be_anywhere():
    exports = parsed(directory([0x1100, 0x1200, 0x1300], [(ZETA, 0), (MIDDLE, 1), (ALPHA, 2)]), 1)
    assert exports.may_lack("Aardvark")


def test_addresses_beyond_the_image_are_dropped():
    """RVA 0xF0000000 plus the base of an x86 image is not even an address."""
    data = directory([0xF0000000, IMAGE_SIZE, IMAGE_SIZE - 1], [(ALPHA, 0), (MIDDLE, 1)])
    assert list(parsed(data)) == [Export(IMAGE_SIZE - 1, "Ordinal12")]


@pytest.mark.parametrize("name", [b"\x1b[2J", b"Two words", b"\xe9"])
def test_a_name_that_no_linker_writes_is_not_used(name: bytes):
    data = directory([0x1100], [(ALPHA, 0)])
    data[ALPHA - RVA : ALPHA - RVA + 10] = name.ljust(10, b"\0")
    assert list(parsed(data)) == [Export(0x1100, "Ordinal10")]


def test_a_forwarded_export_has_its_target():
    """Alpha forwards to `Middle`. An entry whose target is on an absent page is no code either."""
    data = directory([MIDDLE, 0x1200], [(ALPHA, 0)])
    assert list(parsed(data)) == [Export(0x1200, "Ordinal11"), Export(MIDDLE, "Alpha", "Middle")]
    assert list(parsed(data, 1)) == [Export(0x1200, "Ordinal11"), Export(MIDDLE, "Alpha", "")]


@pytest.mark.parametrize("tables", [(0, 0, 0), (0xFFFFFFF0,) * 3, (RVA + 3 * PAGE - 1,) * 3, (RVA - 4,) * 3])
def test_tables_outside_the_directory_are_not_read(tables: tuple[int, int, int]):
    data = directory([0x1100], [(ALPHA, 0)])
    struct.pack_into("<3I", data, 28, *tables)
    exports = parsed(data)
    assert list(exports) == []
    assert exports.may_lack("Alpha")


def test_false_counts_and_overlapping_names_cost_no_memory():
    """The directory claims four billion functions, and as many names of up to 8 KiB that overlap."""
    data = directory([], [])
    struct.pack_into("<12xII5I", data, 0, 0, 1, 0xFFFFFFFF, 0xFFFFFFFF, RVA + 0x28, RVA + 0x28, RVA + 0x28)
    for at in range(0x28, PAGE, 4):
        struct.pack_into("<I", data, at, RVA + PAGE + at)
    data[PAGE:] = b"A" * (2 * PAGE - 1) + b"\0"
    tracemalloc.start()
    try:
        exports = parsed(data)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert sum(len(export.name) for export in exports if not export.name.startswith("Ordinal")) <= len(data)


def test_a_derived_table_is_made_once():
    exports, made = parsed(WHOLE), []

    def make(given: Exports) -> int:
        made.append(given)
        return len(given)

    assert (exports.derived(make), exports.derived(make)) == (4, 4)
    assert made == [exports]
