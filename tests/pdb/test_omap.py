# SPDX-License-Identifier: Apache-2.0
"""Addresses of rearranged images."""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from throwstack.pdb.omap import Omap


def stream(*pairs: tuple[int, int]) -> bytes:
    return b"".join(struct.pack("<II", *pair) for pair in pairs)


# Bytes 2000 to 200f went to 3000, a jump was put behind them, and 2010 to 201f to 1000. What was at 2020 is gone.
FROM = stream((0x2000, 0x3000), (0x2010, 0x1000), (0x2020, 0))
TO = stream((0x1000, 0x2010), (0x1010, 0), (0x3000, 0x2000), (0x3010, 0), (0x3015, 0x80000000))


def test_there_and_back():
    omap = Omap(FROM, TO)
    assert [omap.before(rva) for rva in (0x1000, 0x100F, 0x3000, 0x300F)] == [0x2010, 0x201F, 0x2000, 0x200F]
    assert [omap.after(rva) for rva in (0x2010, 0x201F, 0x2000, 0x200F)] == [0x1000, 0x100F, 0x3000, 0x300F]
    assert omap.after(0x2020) is None
    assert omap.after(0x1FFF) is None


def test_what_was_inserted_counts_to_what_it_follows():
    omap = Omap(FROM, TO)
    assert [omap.before(rva) for rva in (0x3010, 0x3013, 0x3020)] == [0x200F] * 3


def test_pieces():
    assert list(Omap(FROM, TO).pieces(0x2004, 0x20)) == [(0x3004, 0xC, 0), (0x1000, 0x10, 0xC)]


def test_nothing_rearranged():
    omap = Omap()
    assert not omap
    assert (omap.before(0x1234), omap.after(0x1234)) == (0x1234, 0x1234)
    assert list(omap.pieces(0x1000, 0x20)) == [(0x1000, 0x20, 0)]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 64), min_size=1, max_size=20), st.randoms(use_true_random=False), st.booleans())
def test_every_byte_comes_back(sizes, chance, has_both):
    """Pieces of these sizes in another order; whether both streams are there or one has to be made of the other."""
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
    omap = Omap(stream(*pairs), stream(*((to, start) for start, to in pairs)) if has_both else b"")
    assert {omap.after(rva): rva for rva in moved} == {to: rva for rva, to in moved.items()}
    assert all(omap.before(to) == rva for rva, to in moved.items())


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.binary(max_size=80), st.binary(max_size=80), st.integers(0, 1 << 32))
def test_any_streams(from_source, to_source, rva):
    omap = Omap(from_source, to_source)
    assert omap.before(rva) >= 0
    assert sum(size for _, size, _ in omap.pieces(rva, 100)) <= 100
