# SPDX-License-Identifier: Apache-2.0
"""Whether an address is in the function of the nearest symbol."""

from __future__ import annotations

import struct

import pytest

from tests.support.pe_writer import READ_ONLY, X64, X86, Pe, Section
from throwstack.core.memory import memory_of
from throwstack.images.image import Image
from throwstack.images.modules import Module
from throwstack.names.function_extent import MAX_OFFSET, is_beyond_function

BASE = 0x10000000


def image(pe: Pe) -> Image:
    return Image(Module("m.dll", "m.dll", BASE, pe.size), memory_of({BASE: pe.mapped()}))


def x86(code: bytes) -> Image:
    return image(Pe(X86, BASE, sections=[Section(".text", 0x1000, code)]))


@pytest.mark.parametrize(
    ("between", "beyond"),
    [
        (b"\x55\x8b\xec\x90\x90\x5d\xc3", False),
        (b"\xc3\xcc\xcc\xcc\xcc", True),
        (b"\xc2\x08\x00\x90\x90\x90\x90\x90\x8b\xff", True),
        (b"\xb8\xcc\xcc\xcc\xcc\xf3\xab", False),  # a debug build fills its locals with this constant
        (b"\xcc\xc3", False),
        (b"\xc3\x90\x90\x90\x90\x90\x55", False),  # may align a loop
    ],
)
def test_filling_shows_where_an_x86_function_ends(between, beyond):
    it = x86(between.ljust(64, b"\x40"))
    assert is_beyond_function(it, 0x1000, 0x1030, is_sparse=True) is beyond
    assert is_beyond_function(it, 0x1000, 0x1030, is_sparse=False) is beyond


def test_far_from_an_export_the_name_is_doubted():
    it = x86(b"\x40" * 0x3000)
    assert not is_beyond_function(it, 0x1000, 0x1000 + MAX_OFFSET, is_sparse=True)
    assert is_beyond_function(it, 0x1000, 0x1001 + MAX_OFFSET, is_sparse=True)
    assert not is_beyond_function(it, 0x1000, 0x1001 + MAX_OFFSET, is_sparse=False)
    assert is_beyond_function(it, 0x1010, 0x1000, is_sparse=False)


def test_an_address_in_another_section_is_beyond_the_function():
    it = image(
        Pe(X86, BASE, sections=[Section(".text", 0x1000, b"\x40" * 0x1000), Section(".text2", 0x2000, b"\x40" * 16)])
    )
    assert is_beyond_function(it, 0x1FF0, 0x2004, is_sparse=False)


def test_if_the_headers_are_absent_the_distance_decides():
    it = Image(Module("m.dll", "m.dll", BASE, 0x10000), memory_of({}))
    assert not is_beyond_function(it, 0x1000, 0x1010, is_sparse=True)
    assert is_beyond_function(it, 0x1000, 0x8000, is_sparse=True)


PLAIN = struct.pack("<BBBB", 1, 0, 0, 0)


def chained(begin: int, end: int, unwind: int) -> bytes:
    """Return the unwind info of a separate part: no codes, then the RUNTIME_FUNCTION of the first part."""
    return struct.pack("<BBBBIII", 1 | 4 << 3, 0, 0, 0, begin, end, unwind)


def x64() -> Image:
    """Functions at 1000-1040 and 1040-1080, a leaf at 1080-10a0, the first's cold part at 10a0-10c0."""
    xdata = PLAIN.ljust(16, b"\0") + chained(0x1000, 0x1040, 0x2000)
    functions = [(0x1000, 0x1040, 0x2000), (0x1040, 0x1080, 0x2000), (0x10A0, 0x10C0, 0x2010)]
    sections = [Section(".text", 0x1000, b"\x90" * 0x1000), Section(".xdata", 0x2000, xdata, READ_ONLY)]
    return image(Pe(X64, BASE, sections=sections, functions=functions))


@pytest.mark.parametrize(
    ("start", "rva", "beyond"),
    [
        (0x1000, 0x103F, False),
        (0x1000, 0x1040, True),
        (0x1010, 0x1020, False),  # a label inside
        (0x1040, 0x1050, False),
        (0x1080, 0x1090, False),  # a leaf has no entry
        (0x1000, 0x1090, True),
        (0x1000, 0x10B0, False),  # its own cold part
        (0x1080, 0x10B0, True),  # another function's
    ],
)
def test_runtime_functions_delimit_functions(start, rva, beyond):
    assert is_beyond_function(x64(), start, rva, is_sparse=True) is beyond


def test_a_cyclic_chain_of_entries_is_followed_only_so_far():
    xdata = chained(0x1000, 0x1040, 0x2000)
    sections = [Section(".text", 0x1000, b"\x90" * 64), Section(".xdata", 0x2000, xdata, READ_ONLY)]
    it = image(Pe(X64, BASE, sections=sections, functions=[(0x1010, 0x1040, 0x2000), (0x1040, 0x1080, 0x2041)]))
    assert is_beyond_function(it, 0x1000, 0x1020, is_sparse=True) is False
    assert is_beyond_function(it, 0x1000, 0x1044, is_sparse=True) in (True, False)
