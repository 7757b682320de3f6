# SPDX-License-Identifier: Apache-2.0
"""Lines of a module, from subsections as compilers write them."""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.held_stream import HeldStream
from throwstack.pdb.lines import ModuleLines

A, B = 0, 8
"""Files, by the offset of their entries among the checksums."""
STATEMENT = 1 << 31


def subsection(kind: int, data: bytes) -> bytes:
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 4)


def files(*names: int) -> bytes:
    """Files, each the offset of its path among the strings, without a checksum."""
    return subsection(0xF4, b"".join(struct.pack("<IBBH", name, 0, 0, 0) for name in names))


def lines(offset: int, size: int, *runs: tuple[int, list[tuple[int, int]]]) -> bytes:
    """The lines of the range at `offset` of section 1. A run is a file and its (offset in the range, line)."""
    data = struct.pack("<IHHI", offset, 1, 0, size)
    for file, rows in runs:
        data += struct.pack("<III", file, len(rows), 12 + 8 * len(rows))
        data += b"".join(struct.pack("<II", at, line | STATEMENT) for at, line in rows)
    return subsection(0xF2, data)


def module(*subsections: bytes) -> ModuleLines:
    """A module without symbols."""
    data = struct.pack("<I", 4) + b"".join(subsections)
    return ModuleLines(HeldStream(data), 4, len(data) - 4)


def line(found: ModuleLines, offset: int) -> tuple[int, int] | None:
    for position, inside in found.blocks_at(1, offset):
        return found.block(position).at(inside)
    return None


def test_lines_of_a_function():
    found = module(files(1, 10), lines(0x100, 0x40, (A, [(0, 5), (8, 6), (0x20, 9)])))
    assert [line(found, at) for at in (0x100, 0x107, 0x108, 0x11F, 0x13F)] == [(A, 5), (A, 5), (A, 6), (A, 6), (A, 9)]
    assert line(found, 0x140) is None
    assert line(found, 0xFF) is None


def test_lines_of_several_files_are_mixed():
    """A header's inlined code is in the middle of the function. Each file has its lines in a run of its own."""
    found = module(files(1, 10), lines(0x100, 0x40, (A, [(0, 5), (0x20, 6)]), (B, [(0x10, 90), (0x30, 91)])))
    assert [line(found, at) for at in (0x10F, 0x110, 0x120, 0x130)] == [(A, 5), (B, 90), (A, 6), (B, 91)]


def test_numbers_that_are_no_lines():
    """0xFEEFEE and 0xF00F00 mark code of the compiler's own: a debugger stays on the line before."""
    found = module(lines(0x100, 0x40, (A, [(0, 0xF00F00), (4, 5), (8, 0xFEEFEE), (0x10, 6)])))
    assert [line(found, at) for at in (0x100, 0x104, 0x10C, 0x110)] == [None, (A, 5), (A, 5), (A, 6)]


def test_of_two_lines_at_one_offset_the_last_counts():
    """Microsoft's ARM64 assembler writes such."""
    assert line(module(lines(0x100, 0x40, (A, [(0, 5), (0, 6)]))), 0x100) == (A, 6)


def test_files_are_offsets_of_paths():
    found = module(files(77, 99))
    assert [found.file_name_offset(file) for file in (A, B, 16, 1 << 31)] == [77, 99, None, None]


def test_where_inlined_functions_begin():
    plain = struct.pack("<I", 0) + struct.pack("<III", 0x1001, A, 30) + struct.pack("<III", 0x1002, B, 0x1003)
    more = struct.pack("<I", 1) + struct.pack("<IIIII", 0x2001, A, 40, 1, B) + struct.pack("<IIII", 0x2002, B, 50, 0)
    inlinees = module(subsection(0xF6, plain), subsection(0xF6, more)).inlinees()
    begins = {number: inlinees.begin(number) for number in (0x1001, 0x1002, 0x1003, 0x2001, 0x2002, B)}
    assert begins == {0x1001: (A, 30), 0x1002: (B, 0x1003), 0x1003: None, 0x2001: (A, 40), 0x2002: (B, 50), B: None}


def test_ids_of_other_modules():
    """Code generated at link time: number 1 among what is imported from the second module is known there as 0x55."""
    imports = struct.pack("<III", 10, 1, 0x11) + struct.pack("<IIII", 20, 2, 0x44, 0x55)
    found = module(subsection(0xF7, imports))
    assert found.imported(0x80100001) == (20, 0x55)
    assert found.imported(0x80000000) == (10, 0x11)
    assert [found.imported(number) for number in (0x80000001, 0x80100002, 0x80200000)] == [None, None, None]
    exporting = module(subsection(0xF8, struct.pack("<IIII", 0x44, 0x1005, 0x55, 0x1006)))
    assert [exporting.exported(number) for number in (0x55, 0x44, 0x1006)] == [0x1006, 0x1005, None]


def test_a_large_module_keeps_where_its_lines_are_and_not_the_lines():
    found = module(*(lines(0x40 * at, 0x40, (A, [(0, at + 1), (0x10, at + 2)])) for at in range(10_000)))
    assert found.kept_bytes < 20 * 10_000
    assert max(size for _, size in found._stream.reads) <= 1 << 18
    assert line(found, 0x40 * 7777 + 0x20) == (A, 7779)


WHOLE = files(1, 10) + lines(0x100, 0x40, (A, [(0, 5)]), (B, [(8, 90)])) + subsection(0xF6, bytes(16))
WHOLE += subsection(0xF7, struct.pack("<III", 10, 1, 0x11)) + subsection(0xF8, bytes(8))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=6), st.integers(0, len(WHOLE)))
def test_damage_raises_nothing(changes, size):
    data = bytearray(WHOLE)
    for at, value in changes:
        data[at] = value
    found = module(bytes(data[:size]))
    for offset in (0, 0x100, 0x110):
        line(found, offset)
    found.file_name_offset(A)
    found.inlinees().begin(0)
    found.imported(0x80000000)
    found.exported(0)


def test_of_ranges_that_begin_together_that_of_the_function_counts():
    """Microsoft's assembler for ARM64 writes the lines of each function of a file as if all began at the last one."""
    ranges = [lines(0xB0, size, (A, [(0, line)])) for size, line in ((0x18, 4105), (0x2C, 4116), (0x14, 4135))]
    found = module(files(1), *ranges)
    first = [found.block(found.blocks_at(1, 0xB3, size)[0][0]).at(3) for size in (0x14, 0x2C, 0x18, 0x99, 0)]
    assert first == [(A, 4135), (A, 4116), (A, 4105), (A, 4105), (A, 4105)]


def test_marks_of_the_compiler_without_end_have_no_line():
    """A block of millions of them would be gone through for each address."""
    marks = [(at, 0xFEEFEE) for at in range(1, 10_000)]
    block = module(files(1), lines(0, 20_000, (A, [(0, 7), *marks]))).block(4 + 8 + 8)
    assert (block.at(0), block.at(4000), block.at(9_000)) == ((A, 7), (A, 7), None)
