# SPDX-License-Identifier: Apache-2.0
"""Where functions begin, in code of which a page is not there."""

from __future__ import annotations

import tracemalloc

from tests.unwind.x86.machine import BASE, IMAGE_SIZE, TEXT, header_page
from throwstack.core.memory import PAGE_SIZE, memory_of
from throwstack.images.image import ImageMap
from throwstack.images.modules import Module, ModuleMap
from throwstack.names.symbols import Symbols
from throwstack.unwind.x86.code import Code
from throwstack.unwind.x86.function_starts import FunctionStarts


def starts(pages: dict[int, bytes]) -> FunctionStarts:
    module = Module("test.dll", "", BASE, IMAGE_SIZE)
    images = ImageMap(memory_of({BASE: header_page(), **pages}), ModuleMap([module]))
    return FunctionStarts(Code(images, Symbols(images)))


def test_after_an_absent_page_nothing_is_known_of_what_was_before():
    """`push ebp; mov ebp, esp` begins a function after padding. Zeros in place of an absent page are no padding."""
    code = b"\x55\x8b\xec".ljust(PAGE_SIZE, b"\x40")
    assert starts({TEXT: bytes(PAGE_SIZE), TEXT + PAGE_SIZE: code}).nearest(TEXT + PAGE_SIZE + 4) == TEXT + PAGE_SIZE
    assert starts({TEXT + PAGE_SIZE: code}).nearest(TEXT + PAGE_SIZE + 4) is None


def test_calls_are_followed_across_absent_pages():
    call = b"\xe8" + (3 * PAGE_SIZE - 5).to_bytes(4, "little")
    found = starts({TEXT: call.ljust(PAGE_SIZE, b"\x40"), TEXT + 3 * PAGE_SIZE: b"\x40" * PAGE_SIZE})
    assert found.nearest(TEXT + 3 * PAGE_SIZE + 9) == TEXT + 3 * PAGE_SIZE


def test_a_section_that_is_not_there_costs_no_memory():
    """The header says 60 MB."""
    page = bytearray(header_page())
    at = page.find(b".text")
    page[at + 8 : at + 12] = (60 << 20).to_bytes(4, "little")
    module = Module("test.dll", "", BASE, 64 << 20)
    images = ImageMap(memory_of({BASE: bytes(page)}), ModuleMap([module]))
    tracemalloc.start()
    try:
        assert FunctionStarts(Code(images, Symbols(images))).nearest(TEXT + 9) is None
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
