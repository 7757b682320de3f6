# SPDX-License-Identifier: Apache-2.0
"""Headers of x86 GC info: frequent ones, ones that are changed, and the epilogues after them."""

from __future__ import annotations

import random

import pytest

from throwstack.core.memory import PAGE_SIZE, memory_of
from throwstack.managed.gc_info_x86 import GcHeader, decode_gc_header

BASE = 0x50000
MORE = 0x80


def decoded(*data: int) -> GcHeader | None:
    """Decode a header that ends at the end of the last page that is there."""
    at = BASE + PAGE_SIZE - len(data)
    return decode_gc_header(memory_of({at: bytes(data)}), at)


@pytest.mark.parametrize(
    ("data", "header"),
    [
        # ret, at the end of 16 bytes.
        ([0x10, 0x01], GcHeader(16, 0, 1, (15,), (), False, False, 0, 0)),
        # push edi; push esi; ...; pop esi; pop edi; ret 4, at the end.
        ([0x20, 0x26], GcHeader(32, 2, 5, (27,), ("esi", "edi"), False, False, 0, 4)),
        # All four registers and no frame pointer, two epilogues at 10h and 10h + 8.
        ([0x40, 0x40, 0x10, 0x08], GcHeader(64, 4, 5, (16, 24), ("ebp", "ebx", "esi", "edi"), False, False, 0, 0)),
        # push ebp; mov ebp,esp, frame of 2 words; its table of variables has 3 rows, and one epilogue is at 0Ah.
        ([0x20, 0x51, 0x03, 0x0A], GcHeader(32, 6, 4, (10,), (), True, False, 8, 0)),
        # A method of 200 bytes: its size has 2 bytes.
        ([0x81, 0x48, 0x01], GcHeader(200, 0, 1, (199,), (), False, False, 0, 0)),
        # 0x01, changed to a frame of 5 words, 3 arguments, a prologue of 4 bytes, and edi saved.
        (
            [0x40, 0x01 | MORE, 0x05 | MORE, 0x0B | MORE, 0x15 | MORE, 0x3B],
            GcHeader(64, 4, 1, (63,), ("edi",), False, False, 20, 12),
        ),
        # ebp saved and frame pointer, a frame of 12h words in two parts.
        (
            [0x40, 0x01 | MORE, 0x3E | MORE, 0x3F | MORE, 0x01 | MORE, 0x52],
            GcHeader(64, 0, 1, (63,), (), True, False, 72, 0),
        ),
        # Arguments that the caller removes, of a method with variable arguments.
        ([0x20, 0x04 | MORE, 0x48], GcHeader(32, 0, 3, (29,), (), False, False, 0, 0)),
    ],
)
def test_headers(data: list[int], header: GcHeader) -> None:
    assert decoded(*data) == header


def test_what_follows_the_header_is_passed_over() -> None:
    """The place of 0x00's epilogue follows the count of untracked variables, the cookie's and the lock's offsets."""
    changed = [0x20, 0x00 | MORE, 0x47 | MORE, 0x4A | MORE, 0x4B | MORE, 0x4E, 0x81, 0x00, 0x0C, 1, 1, 0x10, 0x1F]
    assert decoded(*changed) == GcHeader(32, 0, 1, (0x1F,), (), False, False, 0, 0)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param([0x00, 0x01], id="no code"),
        pytest.param([0x02, 0x3F], id="prologue and epilogue are longer than the method"),
        pytest.param([0x40, 0x01 | MORE, 0x3F], id="frame pointer that is not saved"),
        pytest.param([0x40, 0x51 | MORE, 0x41, 0x03, 0x0A], id="frame pointer and aligned"),
        pytest.param([0x40], id="cut"),
        pytest.param([0x40, 0x01 | MORE], id="cut in the changes"),
        pytest.param([0x40, 0x01 | MORE, *[0x5F | MORE] * 20, 0x5F], id="a frame of 84 bits"),
        pytest.param([0x40, 0x01 | MORE, *[0x6F | MORE] * 20, 0x6F], id="arguments of 84 bits"),
        pytest.param([0x90, 0x80, 0x80, 0x80, 0x00, 0x01], id="too large"),
    ],
)
def test_what_no_compiler_writes_is_refused(data: list[int]) -> None:
    assert decoded(*data) is None


def test_the_body_is_without_prologue_and_epilogues() -> None:
    header = decoded(0x40, 0x40, 0x10, 0x08)
    assert header is not None
    inside = [offset for offset in range(80) if header.is_in_body(offset)]
    assert inside == [*range(4, 17), *range(21, 25), *range(29, 64)]


def test_no_bytes_raise_an_error() -> None:
    rng = random.Random(3)
    for _ in range(2000):
        header = decode_gc_header(memory_of({BASE: rng.randbytes(rng.randrange(1, 200))}), BASE)
        assert header is None or 0 < header.method_size < 1 << 24
    assert decode_gc_header(memory_of({}), BASE) is None
