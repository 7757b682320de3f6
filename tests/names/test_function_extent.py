# SPDX-License-Identifier: Apache-2.0
"""How certain it is that an address is in the function of the nearest symbol."""

from __future__ import annotations

import struct

import pytest

from tests.support.pe_writer import READ_ONLY, X64, X86, Pe, Section
from throwstack.core.memory import memory_of
from throwstack.images.image import Image
from throwstack.images.modules import Module
from throwstack.names.function_extent import MAX_OFFSET, Certainty, certainty, function_begin

BASE = 0x10000000
CERTAIN, LIKELY, DOUBTFUL = Certainty


def image(pe: Pe) -> Image:
    return Image(Module("m.dll", "m.dll", BASE, pe.size), memory_of({BASE: pe.mapped()}))


def x86(code: bytes) -> Image:
    return image(Pe(X86, BASE, sections=[Section(".text", 0x1000, code)]))


@pytest.mark.parametrize(
    ("between", "expected"),
    [
        ("558bec 40 40 40 40", CERTAIN),
        ("7402 33c0 40 c3 40", LIKELY),  # je +2; a return that nothing jumps over ends the function
        ("7404 33c0 40 c3 40", CERTAIN),  # je over the return
        ("0f8400100000 40 c3 40", LIKELY),  # je to a cold part, far after other functions
        ("eb02 33c0 40 40", LIKELY),  # a jump: whether it leaves the function is not known
        ("40 cd29 40 40 40", LIKELY),  # int 29h never returns
        ("b8cccccccc f3ab 40", CERTAIN),  # a debug build fills its locals with this constant
        ("c3 90 90 90 90 90 55", LIKELY),  # may align a loop
        ("c3 cccccccc", DOUBTFUL),
        ("c20800 9090909090 8bff", DOUBTFUL),
        (f"83ec0c{'40' * 8} ebf6 8d7600 55", DOUBTFUL),  # jmp to the head of a loop; lea esi, [esi]; push ebp
        (f"83ec0c{'40' * 8} ebf6 6690 90 8d4c2404 83e4f0", DOUBTFUL),  # a function that aligns its stack
        (f"0f8400100000{'40' * 5} ebf6 8d7600 55", LIKELY),  # its cold part may come back
        (f"83ec0c{'40' * 8} eb08 8d7600 55", LIKELY),  # a jump into a loop
        (f"83ec0c{'40' * 6} ff2485 00100010", LIKELY),  # a jump by a table
        (f"83ec0c{'40' * 8} ebf6 8d7600 8b4424", LIKELY),  # may be a block that only a jump reaches
    ],
)
def test_the_code_between_an_x86_export_and_an_address(between, expected):
    code = bytes.fromhex(between)
    it = x86(code.ljust(0x30, b"\x40") + b"\x40" * 16)
    assert certainty(it, 0x1000, 0x1030, is_sparse=True) is expected
    is_named_by_pdb = CERTAIN if expected is LIKELY else expected  # it has a symbol for every function
    assert certainty(it, 0x1000, 0x1030, is_sparse=False) is is_named_by_pdb


@pytest.mark.parametrize("following", ["558bec", "90", "8d7600", "55", "83ec1c"])
def test_padding_or_a_prologue_after_a_call_may_begin_another_function(following):
    """`call abort` is the last instruction of its function: the code after it may be of the next one."""
    caller = bytes.fromhex("83ec1c") + b"\x40" * 0x18 + bytes.fromhex("e800000000")
    it = x86(caller + bytes.fromhex(following) + b"\x40" * 0x40)
    assert certainty(it, 0x1000, 0x101F, is_sparse=True) is CERTAIN  # inside the call
    assert certainty(it, 0x1000, 0x1030, is_sparse=True) is LIKELY


def test_far_from_an_x86_export_the_name_is_doubted():
    it = x86(b"\x40" * 0x3000)
    assert certainty(it, 0x1000, 0x1000 + MAX_OFFSET, is_sparse=True) is CERTAIN
    assert certainty(it, 0x1000, 0x1001 + MAX_OFFSET, is_sparse=True) is DOUBTFUL
    assert certainty(it, 0x1000, 0x1001 + MAX_OFFSET, is_sparse=False) is CERTAIN
    assert certainty(it, 0x1010, 0x1000, is_sparse=False) is DOUBTFUL


def test_an_address_in_another_section_is_beyond_the_function():
    it = image(
        Pe(X86, BASE, sections=[Section(".text", 0x1000, b"\x40" * 0x1000), Section(".text2", 0x2000, b"\x40" * 16)])
    )
    assert certainty(it, 0x1FF0, 0x2004, is_sparse=False) is DOUBTFUL


def test_if_the_headers_are_absent_the_distance_decides():
    it = Image(Module("m.dll", "m.dll", BASE, 0x10000), memory_of({}))
    assert certainty(it, 0x1000, 0x1000, is_sparse=True) is CERTAIN
    assert certainty(it, 0x1000, 0x1010, is_sparse=True) is LIKELY
    assert certainty(it, 0x1000, 0x8000, is_sparse=True) is DOUBTFUL


def test_an_export_with_absent_code_is_only_likely():
    whole = Pe(X86, BASE, sections=[Section(".text", 0x1000, b"\x40" * 0x1000)])
    headers = whole.mapped()[:0x1000]
    it = Image(Module("m.dll", "m.dll", BASE, whole.size), memory_of({BASE: headers}))
    assert certainty(it, 0x1000, 0x1010, is_sparse=True) is LIKELY


PLAIN = struct.pack("<BBBB", 1, 0, 0, 0)


def chained(begin: int, end: int, unwind: int) -> bytes:
    """Return the unwind info of a separate part: no codes, then the RUNTIME_FUNCTION of the first part."""
    return struct.pack("<BBBBIII", 1 | 4 << 3, 0, 0, 0, begin, end, unwind)


def x64() -> Image:
    """Functions at 1000-1040 and 1040-1080, a leaf at 1080-10a0, the first's cold part at 10a0-10c0."""
    xdata = PLAIN.ljust(16, b"\0") + chained(0x1000, 0x1040, 0x2000)
    functions = [(0x1000, 0x1040, 0x2000), (0x1040, 0x1080, 0x2000), (0x10A0, 0x10C0, 0x2010)]
    sections = [Section(".text", 0x1000, b"\x50" * 0x1000), Section(".xdata", 0x2000, xdata, READ_ONLY)]
    return image(Pe(X64, BASE, sections=sections, functions=functions))


@pytest.mark.parametrize(
    ("start", "rva", "expected"),
    [
        (0x1000, 0x103F, CERTAIN),
        (0x1000, 0x1040, DOUBTFUL),  # as a frame of RtlDispatchException after the export RtlUnwindEx
        (0x1010, 0x1020, LIKELY),  # a label inside
        (0x1040, 0x1050, CERTAIN),
        (0x1080, 0x1083, CERTAIN),  # a leaf has no entry
        (0x1040, 0x1090, DOUBTFUL),  # a leaf without an export, after a function that has ended
        (0x1000, 0x1090, DOUBTFUL),
        (0x1000, 0x10B0, CERTAIN),  # its own cold part
        (0x1080, 0x10B0, DOUBTFUL),  # another function's
    ],
)
def test_runtime_functions_delimit_functions(start, rva, expected):
    assert certainty(x64(), start, rva, is_sparse=True) is expected


def test_a_function_table_decides_although_exports_are_missing():
    it = x64()
    assert certainty(it, 0x1000, 0x1020, is_sparse=True, has_gaps=True) is CERTAIN
    assert certainty(it, 0x1080, 0x1090, is_sparse=True, has_gaps=True) is DOUBTFUL


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("4c8bd1 b834000000 f604250803fe7f01 7503 0f05 c3 cd2e c3", LIKELY),  # the stub of a system call, and the next
        ("4883ec28 40 40 40 40", CERTAIN),
        ("c3 4883ec28", LIKELY),
    ],
)
def test_the_code_of_a_leaf_says_where_it_ends(code, expected):
    text = bytes.fromhex(code).ljust(0x40, b"\x50")
    sections = [Section(".text", 0x1000, text), Section(".xdata", 0x2000, PLAIN, READ_ONLY)]
    it = image(Pe(X64, BASE, sections=sections, functions=[(0x1800, 0x1840, 0x2000)]))
    assert certainty(it, 0x1000, 0x1020, is_sparse=True) is expected


def test_a_system_call_returns_into_its_stub():
    stub = bytes.fromhex("4c8bd1 b834000000 f604250803fe7f01 7503 0f05 c3 cd2e c3".replace(" ", ""))
    sections = [Section(".text", 0x1000, stub), Section(".xdata", 0x2000, PLAIN, READ_ONLY)]
    it = image(Pe(X64, BASE, sections=sections, functions=[(0x1800, 0x1840, 0x2000)]))
    assert [certainty(it, 0x1000, rva, is_sparse=True) for rva in (0x1013, 0x1014, 0x1015)] == [CERTAIN] * 3


def test_a_leaf_may_be_before_all_entries():
    sections = [Section(".text", 0x1000, b"\x50" * 0x1000), Section(".xdata", 0x2000, PLAIN, READ_ONLY)]
    it = image(Pe(X64, BASE, sections=sections, functions=[(0x1800, 0x1840, 0x2000)]))
    assert certainty(it, 0x1000, 0x1700, is_sparse=True) is CERTAIN


def test_without_its_function_table_an_x64_export_is_at_most_likely():
    it = image(Pe(X64, BASE, sections=[Section(".text", 0x1000, b"\x90" * 0x1000)]))
    assert certainty(it, 0x1000, 0x1010, is_sparse=True) is LIKELY
    assert certainty(it, 0x1000, 0x1400, is_sparse=True) is DOUBTFUL


def test_a_part_leads_to_its_function():
    assert [function_begin(x64(), rva) for rva in (0x1050, 0x10B0, 0x1090)] == [
        (0x1040, 0x1040),
        (0x10A0, 0x1000),
        None,
    ]


def test_a_cyclic_chain_of_entries_is_followed_only_so_far():
    xdata = chained(0x1000, 0x1040, 0x2000)
    sections = [Section(".text", 0x1000, b"\x90" * 64), Section(".xdata", 0x2000, xdata, READ_ONLY)]
    it = image(Pe(X64, BASE, sections=sections, functions=[(0x1010, 0x1040, 0x2000), (0x1040, 0x1080, 0x2041)]))
    assert certainty(it, 0x1000, 0x1020, is_sparse=True) is CERTAIN
    assert certainty(it, 0x1000, 0x1044, is_sparse=True) in Certainty
