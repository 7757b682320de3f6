# SPDX-License-Identifier: Apache-2.0
"""Where functions begin: what tells of a start, and code of which a page is not there."""

from __future__ import annotations

import struct
import tracemalloc

import pytest

from tests.unwind.x86.assemble import EBP, ESP, Assembler, mov, push, ret
from tests.unwind.x86.machine import BASE, DATA, EXPORTS, IMAGE_SIZE, TEXT, TEXT_SIZE, export_page, header_page
from throwstack.core.budgets import Budget, Budgets, Meter
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


def patched(name: bytes, *, size: int | None = None, rva: int | None = None, page: bytes = b"") -> bytes:
    """The header page with another size or place of a section."""
    page = bytearray(page or header_page())
    at = page.find(name)
    for offset, value in ((8, size), (12, rva)):
        if value is not None:
            page[at + offset : at + offset + 4] = value.to_bytes(4, "little")
    return bytes(page)


def guesses_of(pages: dict[int, bytes], address: int, *, size: int = IMAGE_SIZE, meter: Meter | None = None):
    images = ImageMap(memory_of({BASE: header_page(), **pages}), ModuleMap([Module("test.dll", "", BASE, size)]))
    return list(FunctionStarts(Code(images, Symbols(images)), meter).guesses(address))


def call(at: int, target: int) -> bytes:
    return b"\xe8" + (target - at - 5).to_bytes(4, "little", signed=True)


def test_the_twelve_nearest_starts_are_guesses():
    code = b"".join(b"\x40\xc3".ljust(16, b"\xcc") for _ in range(20))
    found = guesses_of({TEXT: code}, TEXT + 16 * 15 + 3)
    assert found == [TEXT + 16 * number for number in range(15, 3, -1)]
    few = guesses_of({TEXT: call(TEXT, TEXT) + code[5:]}, TEXT + 16 * 3)
    assert few == [TEXT + 48, TEXT + 32, TEXT + 16, TEXT]


@pytest.mark.parametrize(("distance", "is_found"), [(0x10000, True), (0x10001, False)])
def test_a_start_is_within_64_kb(distance, is_found):
    pages = {BASE: patched(b".text", size=0x20000), TEXT: call(TEXT, TEXT)}
    assert guesses_of(pages, TEXT + distance, size=0x40000) == ([TEXT] if is_found else [])


@pytest.mark.parametrize(
    ("exported", "expected"),
    [(0, [0x20, 0x10, 0]), (0x10, [0x20, 0x10]), (0x14, [0x20, 0x14, 0x10]), (0x24, [0x24, 0x20, 0x10])],
)
def test_an_export_is_a_guess_in_its_place(exported, expected):
    code = b"".join(b"\x40\xc3".ljust(16, b"\xcc") for _ in range(3))
    pages = {TEXT: code, EXPORTS: export_page({"exported": TEXT + exported})}
    assert guesses_of(pages, TEXT + 0x28) == [TEXT + offset for offset in expected]


def test_an_export_that_is_far_is_a_guess_all_the_same():
    pages = {BASE: patched(b".text", size=0x20000), TEXT: call(TEXT, TEXT + 4)}
    pages[BASE + 0x30000] = export_page({"exported": TEXT})
    assert guesses_of(pages, TEXT + 0x18000, size=0x40000) == []
    page = {TEXT: b"\x40" * 64, EXPORTS: export_page({"exported": TEXT})}
    assert guesses_of(page, TEXT + 9) == [TEXT]


def test_outside_sections_and_images_nothing_starts():
    code = {TEXT: call(TEXT, TEXT)}
    assert guesses_of(code, BASE + 0x10) == []
    assert guesses_of(code, 0x7000000) == []
    assert guesses_of({BASE: b"\0" * PAGE_SIZE, **code}, TEXT) == []


def test_calls_within_the_section_are_looked_at_to_its_end():
    last = TEXT + TEXT_SIZE - 5
    code = b"\x40" * (TEXT_SIZE - 5) + call(last, TEXT + 0x30)
    assert guesses_of({TEXT: code}, TEXT + 0x35) == [TEXT + 0x30]
    cut = b"\x40" * (TEXT_SIZE - 4) + call(last + 1, TEXT + 0x30)[:4]
    assert guesses_of({TEXT: cut}, TEXT + 0x35) == []
    page = b"\x40" * (PAGE_SIZE - 5) + call(TEXT + PAGE_SIZE - 5, TEXT + 0x30)  # and the next page is not there
    assert guesses_of({TEXT: page}, TEXT + 0x35) == [TEXT + 0x30]


@pytest.mark.parametrize(
    ("target", "is_found"),
    [(TEXT, True), (TEXT - 1, False), (TEXT + TEXT_SIZE - 1, True), (TEXT + TEXT_SIZE, False), (TEXT + 3, True)],
)
def test_a_call_or_a_pointer_leads_into_the_section(target, is_found):
    for pages in ({TEXT: call(TEXT, target)}, {TEXT: b"\x40", DATA: target.to_bytes(4, "little")}):
        assert guesses_of(pages, TEXT + TEXT_SIZE - 1) == ([target] if is_found else [])


def test_a_word_of_the_code_is_no_pointer():
    assert guesses_of({TEXT: b"\x40" * 16 + (TEXT + 4).to_bytes(4, "little")}, TEXT + 8) == []


@pytest.mark.parametrize(
    ("offset", "is_found"), [(0x1C, False), (0x20, True), (0x101C, True), (0x1020, False), (0x21, False)]
)
def test_pointers_are_aligned_words_of_a_section(offset, is_found):
    """The section begins in the middle of a page, and takes whole pages of its own."""
    page = patched(b".edata", rva=IMAGE_SIZE - PAGE_SIZE // 2)
    pages = {BASE: patched(b".data", rva=DATA - BASE + 0x20, size=0x20, page=page), TEXT: b"\x40"}
    pages[DATA] = bytes(offset) + (TEXT + 4).to_bytes(4, "little")
    assert guesses_of(pages, TEXT + 12) == ([TEXT + 4] if is_found else [])


@pytest.mark.parametrize(("more", "is_found"), [(0, True), (1, False)])
def test_sections_of_more_than_64_mb_are_not_searched(more, is_found):
    limit, pointer = 64 << 20, (TEXT + 4).to_bytes(4, "little")
    pages = {BASE: patched(b".text", size=limit + more), TEXT: call(TEXT, TEXT + 4)}
    assert guesses_of(pages, TEXT + 8, size=limit + 0x10000) == ([TEXT + 4] if is_found else [])
    pages = {BASE: patched(b".data", size=limit + more), TEXT: b"\x40", DATA: pointer}
    assert guesses_of(pages, TEXT + 8, size=limit + 0x100000) == ([TEXT + 4] if is_found else [])


@pytest.mark.parametrize(("budget", "found"), [(3, 3), (2, 2)])
def test_what_is_left_of_the_budget_is_looked_at(budget, found):
    code = b"".join(call(TEXT + 8 * number, TEXT + 0x100 + number).ljust(8, b"\x40") for number in range(3))
    meter = Meter(Budgets(starts=Budget("places", budget, budget, budget, 1)))
    assert len(guesses_of({TEXT: code}, TEXT + 0x200, meter=meter)) == found
    assert bool(meter.spent) == (budget < 3)


@pytest.mark.parametrize(("budget", "found"), [(9, 3), (4, 3), (3, 0), (1, 0)])
def test_a_page_of_pointers_costs_one_and_as_many_as_it_has(budget, found):
    data = b"".join((TEXT + 4 + number).to_bytes(4, "little") for number in range(3))
    meter = Meter(Budgets(starts=Budget("places", budget, budget, budget, 1)))
    pages = {BASE: patched(b".edata", size=0), TEXT: b"\x40", DATA: data}
    assert len(guesses_of(pages, TEXT + 0x20, meter=meter)) == found
    assert meter.left(meter.budgets.starts) == max(budget - 4, 0)


def test_a_section_is_searched_once():
    meter = Meter()
    images = ImageMap(
        memory_of({BASE: header_page(), TEXT: call(TEXT, TEXT + 9)}),
        ModuleMap([Module("test.dll", "", BASE, IMAGE_SIZE)]),
    )
    found = FunctionStarts(Code(images, Symbols(images)), meter)
    left = []
    for _ in range(2):
        assert found.nearest(TEXT + 12) == TEXT + 9
        left.append(meter.left(meter.budgets.starts))
    assert left[0] == left[1] < meter.budgets.starts.thread


def test_sections_that_share_a_page_are_each_searched() -> None:
    """An image whose sections are aligned to 0x200 bytes: a second section of code begins in the first one's page."""
    page = bytearray(header_page())
    at = page.find(b".text")
    struct.pack_into("<I", page, page.find(b"PE\0\0") + 24 + 32, 0x200)  # SectionAlignment
    struct.pack_into("<II", page, at + 8, 0x400, 0x1000)
    struct.pack_into("<8sII", page, at + 40, b".text2", 0x400, 0x1400)
    struct.pack_into("<I", page, at + 40 + 36, 0x60000020)
    prologue = b"\x8b\xff\x55\x8b\xec".ljust(0x100, b"\x40")
    found = starts({BASE: bytes(page), TEXT: b"\x40" * 0x380 + prologue[:0x80] + b"\x40" * 0x100 + prologue})
    assert found.nearest(TEXT + 0x3FF) == TEXT + 0x380
    assert found.nearest(TEXT + 0x4FF) is None  # the function before is in the other section
    assert found.nearest(TEXT + 0x5FF) == TEXT + 0x500
