# SPDX-License-Identifier: Apache-2.0
"""Translates addresses between an image and its PDB if the image was rearranged after it was linked (OMAP streams).

Up to Windows 7, Microsoft rearranged the code of many system DLLs after linking, by how often it runs: functions were
moved, and blocks that seldom run were taken out of their functions and put somewhere else. The symbols in the PDB still
have the addresses from before. For example, bytes 2000 to 200f of the linked image may now be at 3000, and the rest of
the same function, 2010 to 201f, at 1000.

Two streams of the PDB translate RVAs, one in each direction. Each is a sorted list of pairs: the RVA where a piece
starts, and its RVA on the other side, or 0 if the piece does not exist there (`OMAP` in DbgHelp's documentation).

In this file, "before" means the image as linked, which the symbols describe, and "after" the image as it is.

Each piece is translated by itself. A function that was split has an entry for each of its pieces, so its start does not
say where the rest of it is. The section headers from before (debug stream 10) are not needed here. Where they are
absent, as in the PDBs of Google's Syzygy, symbols count in the sections of the image as it is (debug stream 5).
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from itertools import compress
from operator import gt

from throwstack.pdb.msf import Stream

_NOWHERE = 0x80000000
"""An RVA of this value or more, or 0, means that a piece does not exist on the other side."""
_MAX_PIECES = 256
_PAIR = 8
_MAX_PAIRS = 2_000_000
_STRIDE = 1 << 20


class Omap:
    """Translates RVAs of the image as it is into RVAs from before it was rearranged, and the other way round.

    A direction is read when it is first used. Its pairs are kept, with eight bytes for each.
    """

    __slots__ = ("_after", "_before", "_from_source", "_to_source")

    def __init__(self, from_source: Stream | None = None, to_source: Stream | None = None) -> None:
        """`from_source` translates RVAs from before into those after, and `to_source` the other way round.

        None or an empty stream is one that the PDB does not have. If one of the two is absent, it is made from the
        other. If both are absent, nothing was rearranged.
        """
        self._from_source = from_source if from_source is not None and from_source.size >= _PAIR else None
        self._to_source = to_source if to_source is not None and to_source.size >= _PAIR else None
        self._before: _Pairs | None = None
        self._after: _Pairs | None = None

    def __bool__(self) -> bool:
        """Say whether the image was rearranged."""
        return self._from_source is not None or self._to_source is not None

    def before(self, rva: int) -> int:
        """Return the RVA before that corresponds to `rva`, an RVA after. Raises `NotAPdb` if the PDB is damaged.

        Code that was inserted when the image was rearranged, such as a jump, is taken for the last byte of the piece in
        front of it.
        """
        if not self:
            return rva
        if self._after is None:
            self._after = _pairs(self._to_source, self._from_source)
        starts, targets = self._after
        last = bisect_right(starts, rva) - 1
        for index in range(last, max(last - _MAX_PIECES, -1), -1):
            start, to = starts[index], targets[index]
            if _is_somewhere(to):
                return to + rva - start
            rva = start - 1
        return max(rva, 0)

    def after(self, rva: int) -> int | None:
        """Return the RVA after of the code that was at `rva` before, or None if the code was removed.

        Raises `NotAPdb` if the PDB is damaged.
        """
        return next((start for start, _, _ in self.pieces(rva, 1)), None)

    def pieces(self, rva: int, size: int) -> Iterator[tuple[int, int, int]]:
        """Yield the pieces into which the range of `size` bytes at `rva`, an RVA before, was split.

        A piece is (RVA after, size, offset in the range before). Raises `NotAPdb` if the PDB is damaged.
        """
        if not self:
            yield rva, size, 0
            return
        if self._before is None:
            self._before = _pairs(self._from_source, self._to_source)
        starts, targets = self._before
        first, end = rva, rva + size
        index = bisect_right(starts, rva) - 1
        for _ in range(_MAX_PIECES):
            if rva >= end or index >= len(starts):
                return
            following = starts[index + 1] if index + 1 < len(starts) else end
            if index >= 0 and _is_somewhere(targets[index]):
                yield targets[index] + rva - starts[index], min(following, end) - rva, rva - first
            rva = following
            index += 1


_Pairs = tuple["array[int]", "array[int]"]
"""The starts of the pieces, sorted, and the RVA of each on the other side."""


def _pairs(stream: Stream | None, other: Stream | None) -> _Pairs:
    """Return the pairs of `stream`, or those of `other` turned round if there is no `stream`."""
    if stream is not None:
        return _sorted(*_read(stream))
    assert other is not None, "one of the two streams exists"
    starts, targets = _read(other)
    exists = list(map(_is_somewhere, targets))
    return _sorted(array("I", compress(targets, exists)), array("I", compress(starts, exists)))


def _read(stream: Stream) -> _Pairs:
    starts, targets = array("I"), array("I")
    end = min(stream.size // _PAIR, _MAX_PAIRS) * _PAIR
    for at in range(0, end, _STRIDE):
        words = array("I", stream.read(at, min(_STRIDE, end - at)))
        starts += words[0::2]
        targets += words[1::2]
    return starts, targets


def _sorted(starts: array[int], targets: array[int]) -> _Pairs:
    if not any(map(gt, starts, starts[1:])):
        return starts, targets
    order = sorted(range(len(starts)), key=starts.__getitem__)
    return array("I", map(starts.__getitem__, order)), array("I", map(targets.__getitem__, order))


def _is_somewhere(rva: int) -> bool:
    return 0 < rva < _NOWHERE
