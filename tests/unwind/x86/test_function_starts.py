# SPDX-License-Identifier: Apache-2.0
"""Where functions begin: what tells of a start, and code of which a page is not there."""

from __future__ import annotations

import tracemalloc

from tests.unwind.x86.assemble import EBP, ESP, Assembler, mov, push, ret
from tests.unwind.x86.machine import BASE, DATA, IMAGE_SIZE, TEXT, header_page
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


def test_targets_of_calls_prologues_and_aligned_code_after_padding_are_starts() -> None:
    asm = Assembler(TEXT)
    asm.label("caller").call("called").emit(ret()).align()
    asm.label("called").emit("40", ret(), "4040").label("frame").emit(ret(), push(EBP), mov(EBP, ESP), ret()).align()
    asm.label("after padding").emit("404040", ret())
    found = starts({TEXT: asm.finish()})
    assert found.nearest(asm.labels["called"] + 1) == asm.labels["called"]
    assert found.nearest(asm.labels["frame"] + 3) == asm.labels["frame"] + 1  # push ebp after a return
    assert found.nearest(asm.labels["after padding"] + 3) == asm.labels["after padding"]


def test_guesses_go_from_the_nearest_outwards() -> None:
    asm = Assembler(TEXT)
    for name in ("first", "second", "third"):
        asm.label(name).emit("404040", ret()).align()
    # int3 after each of them, which the first one has nothing of before it
    assert list(starts({TEXT: asm.finish()}).guesses(asm.labels["third"] + 2)) == [
        asm.labels["third"],
        asm.labels["second"],
    ]


def test_code_after_padding_that_is_not_aligned_is_no_start() -> None:
    asm = Assembler(TEXT)
    asm.label("first").emit("404040", ret(), "cccccc").label("unaligned").emit("404040", ret())
    assert starts({TEXT: asm.finish()}).nearest(asm.labels["unaligned"] + 2) is None


def test_a_pointer_in_the_data_is_a_start() -> None:
    """A function that is only called through a table: a virtual function, a callback."""
    code = b"\x40" * 0x100
    pointer = (TEXT + 0x33).to_bytes(4, "little")
    assert starts({TEXT: code, DATA: pointer}).nearest(TEXT + 0x40) == TEXT + 0x33
    assert starts({TEXT: code, DATA: bytes(4)}).nearest(TEXT + 0x40) is None


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
