# SPDX-License-Identifier: Apache-2.0
"""Addresses of rearranged images."""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.held_stream import HeldStream
from throwstack.pdb.omap import Omap


def stream(*pairs: tuple[int, int]) -> HeldStream:
    return HeldStream(b"".join(struct.pack("<II", *pair) for pair in pairs))


# Bytes 2000 to 200f were moved to 3000, and a jump was inserted after them. Bytes 2010 to 201f were moved to 1000. The
# bytes at 2020 were removed.
FROM = stream((0x2000, 0x3000), (0x2010, 0x1000), (0x2020, 0))
TO = stream((0x1000, 0x2010), (0x1010, 0), (0x3000, 0x2000), (0x3010, 0), (0x3015, 0x80000000))


def test_addresses_are_translated_in_both_directions():
    omap = Omap(FROM, TO)
    assert [omap.before(rva) for rva in (0x1000, 0x100F, 0x3000, 0x300F)] == [0x2010, 0x201F, 0x2000, 0x200F]
    assert [omap.after(rva) for rva in (0x2010, 0x201F, 0x2000, 0x200F)] == [0x1000, 0x100F, 0x3000, 0x300F]
    assert omap.after(0x2020) is None
    assert omap.after(0x1FFF) is None


def test_inserted_code_counts_to_the_piece_before_it():
    omap = Omap(FROM, TO)
    assert [omap.before(rva) for rva in (0x3010, 0x3013, 0x3020)] == [0x200F] * 3


def test_a_range_is_split_into_pieces():
    assert list(Omap(FROM, TO).pieces(0x2004, 0x20)) == [(0x3004, 0xC, 0), (0x1000, 0x10, 0xC)]


def test_an_image_that_was_not_rearranged():
    omap = Omap()
    assert not omap
    assert (omap.before(0x1234), omap.after(0x1234)) == (0x1234, 0x1234)
    assert list(omap.pieces(0x1000, 0x20)) == [(0x1000, 0x20, 0)]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 64), min_size=1, max_size=20), st.randoms(use_true_random=False), st.booleans())
def test_every_byte_translates_there_and_back(sizes, chance, has_both):
    """Pieces of these `sizes` in random order, with both streams or only one, from which the other is made."""
    before, starts = 0x1000, []
    for size in sizes:
        starts.append((before, size))
        before += size
    chance.shuffle(starts)
    after, pairs, moved = 0x8000, [], {}
    for start, size in starts:
        pairs.append((start, after))
        moved.update({start + at: after + at for at in range(size)})
        after += size
    omap = Omap(stream(*pairs), stream(*((to, start) for start, to in pairs)) if has_both else None)
    assert {omap.after(rva): rva for rva in moved} == {to: rva for rva, to in moved.items()}
    assert all(omap.before(to) == rva for rva, to in moved.items())


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.binary(max_size=80), st.binary(max_size=80), st.integers(0, 1 << 32))
def test_random_streams_raise_nothing(from_source, to_source, rva):
    omap = Omap(HeldStream(from_source), HeldStream(to_source))
    assert omap.before(rva) >= 0
    assert sum(size for _, size, _ in omap.pieces(rva, 100)) <= 100
