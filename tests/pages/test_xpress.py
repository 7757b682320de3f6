# SPDX-License-Identifier: Apache-2.0
"""Plain LZ77: the examples of [MS-XCA], the output of the tests' own compressor, and damaged data."""

from __future__ import annotations

import contextlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.forge.xpress import compress
from throwstack.pages.xpress import BadXpress, decompress

EXAMPLES = [
    (b"abcdefghijklmnopqrstuvwxyz", "3f000000 6162636465666768696a6b6c6d6e6f707172737475767778797a"),
    (b"abc" * 100, "ffffff1f 616263 1700 0f ff 2601"),
]
"""[MS-XCA], "Examples" of the plain LZ77 algorithm."""


@pytest.mark.parametrize(("plain", "packed"), EXAMPLES)
def test_the_published_examples_are_decompressed(plain: bytes, packed: str):
    assert decompress(bytes.fromhex(packed), len(plain)) == plain
    assert compress(plain) == bytes.fromhex(packed)


def page(seed: int) -> bytes:
    """Return a page as processes have them: pointers, text and zeros, in runs of different lengths."""
    chance = random.Random(seed)
    words = [chance.randbytes(chance.randint(1, 40)) for _ in range(chance.randint(1, 60))] + [bytes(9)]
    data = b""
    while len(data) < 4096:
        data += chance.choice(words) * chance.choice((1, 1, 1, 2, 30))
    return data[:4096]


@pytest.mark.parametrize("seed", range(60))
def test_compressed_pages_decompress_to_themselves(seed: int):
    plain = page(seed)
    assert decompress(compress(plain), 4096) == plain


@pytest.mark.parametrize("size", [3, 9, 10, 24, 25, 26, 279, 280, 281, 300, 4096])
def test_every_form_of_a_length(size: int):
    """Two matches of the same length follow each other, so that they share the byte of their half bytes."""
    plain = b"\x01" * (size + 1) + b"\x02" * (size + 1)
    assert decompress(compress(plain), len(plain)) == plain


def test_a_length_of_32_bits():
    """A length that would fit into 16 bits may be written with 32 bits as well."""
    packed = bytes.fromhex("ffffff7f 61 0700 0f ff 0000 26010000")
    assert decompress(packed, 298) == b"a" * 298


DAMAGED = [
    pytest.param("", "ends before", id="nothing"),
    pytest.param("3f0000", "ends before", id="within flags"),
    pytest.param("3f000000 61", "ends before", id="within bytes"),
    pytest.param("ffffff7f 61 07", "ends before", id="within a match"),
    pytest.param("ffffff7f 61 0700", "ends before", id="before a length"),
    pytest.param("ffffff7f 61 0700 0f ff 00", "ends before", id="within a length"),
    pytest.param("ffffffff 0000", "begins before", id="match of nothing"),
    pytest.param("ffffff7f 61 0800", "begins before", id="match too far back"),
    pytest.param("ffffff7f 61 0700 0f ff 0000 ffffffff", "ends after", id="a length of four gigabytes"),
    pytest.param("ffffff7f 61 0700 0f ff 1500", "shorter than its form", id="length that took too many bytes"),
]


@pytest.mark.parametrize(("packed", "reason"), DAMAGED)
def test_the_kind_of_damage_is_named(packed: str, reason: str):
    with pytest.raises(BadXpress, match=reason):
        decompress(bytes.fromhex(packed), 300)


def test_bytes_after_the_end_of_the_output_are_ignored():
    assert decompress(bytes.fromhex(EXAMPLES[1][1]) + b"\xff" * 40, 300) == EXAMPLES[1][0]


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([1, 300, 4096]))
def test_random_bytes_give_the_size_or_are_refused(data: bytes, size: int):
    with contextlib.suppress(BadXpress):
        assert len(decompress(data, size)) == size


@settings(max_examples=150, derandomize=True, deadline=None)
@given(st.integers(0, 5), st.lists(st.tuples(st.integers(0, 4095), st.integers(0, 255)), min_size=1, max_size=4))
def test_damaged_pages_give_a_page_or_are_refused(seed: int, changes: list[tuple[int, int]]):
    packed = bytearray(compress(page(seed)))
    for at, value in changes:
        packed[at % len(packed)] = value
    with contextlib.suppress(BadXpress):
        assert len(decompress(bytes(packed), 4096)) == 4096
