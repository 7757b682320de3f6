# SPDX-License-Identifier: Apache-2.0
"""A process's memory with changes laid over it."""

from __future__ import annotations

from tests.recall.overlay import Overlay, with_word

DUMP = {0x1000: b"\x11" * 0x1000, 0x2000: b"\x22" * 0x1000}


def test_changes_are_laid_over_the_dump_and_taken_off_again():
    overlay = Overlay()
    overlay.changes = {0x1000: None, 0x9000: b"\x99" * 0x1000}
    assert overlay.page(0x1000, DUMP.get) is None
    assert overlay.page(0x9000, DUMP.get) == b"\x99" * 0x1000
    overlay.changes = {}
    assert overlay.page(0x1000, DUMP.get) == DUMP[0x1000]
    assert overlay.page(0x9000, DUMP.get) is None
    assert overlay.read == {0x1000}, "pages that the dump has, and that were asked for"


def test_a_word_over_the_end_of_a_page_changes_both():
    pages: dict[int, bytes | None] = {}
    with_word(pages, DUMP.get, 0x1FFE, b"\1\2\3\4")
    assert {address: page[-3:] + page[:3] for address, page in pages.items() if page is not None} == {
        0x1000: b"\x11\1\2\x11\x11\x11",
        0x2000: b"\x22\x22\x22\3\4\x22",
    }
