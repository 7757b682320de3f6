# SPDX-License-Identifier: Apache-2.0
"""Translates addresses between an image and its PDB if the image was rearranged after it was linked (OMAP streams).

Up to Windows 7, Microsoft rearranged the code of many system DLLs after linking, by how often it runs: functions were
moved, and blocks that seldom run were taken out of their functions and put somewhere else. The symbols in the PDB still
have the addresses from before. For example, bytes 2000 to 200f of the linked image may now be at 3000, and the rest of
the same function, 2010 to 201f, at 1000.

Two streams of the PDB translate RVAs, one in each direction. Each is a sorted list of pairs: the RVA where a piece
starts, and its RVA on the other side, or 0 if the piece does not exist there (`OMAP` in DbgHelp's documentation).

In this file, "before" means the image as linked, which the symbols describe, and "after" the image as it is.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator

from throwstack.pdb.dbi import Dbi, DebugStream
from throwstack.pdb.msf import MsfFile

MAX_STREAM = 256 << 20
_NOWHERE = 0x80000000
"""An RVA of this value or more, or 0, means that a piece does not exist on the other side."""
_MAX_PIECES = 256


def read_streams(msf: MsfFile, purposes: tuple[DebugStream, ...]) -> list[bytes]:
    """Return the contents of the debug streams for `purposes`: b"" for one that the PDB does not have."""
    dbi = Dbi(msf)
    return [dbi.debug_stream(purpose).read(0, MAX_STREAM) for purpose in purposes]


class Omap:
    """Translates RVAs of the image as it is into RVAs from before it was rearranged, and the other way round."""

    __slots__ = ("_after", "_after_starts", "_before", "_before_starts")

    def __init__(self, from_source: bytes = b"", to_source: bytes = b"") -> None:
        """`from_source` translates RVAs from before into those after, and `to_source` the other way round.

        If one of the two streams is empty, it is made from the other. If both are empty, nothing was rearranged.
        """
        before, after = _pairs(from_source), _pairs(to_source)
        self._before = before or sorted((to, start) for start, to in after if _is_somewhere(to))
        self._after = after or sorted((to, start) for start, to in before if _is_somewhere(to))
        self._before_starts = [start for start, _ in self._before]
        self._after_starts = [start for start, _ in self._after]

    def __bool__(self) -> bool:
        """Say whether the image was rearranged."""
        return bool(self._before)

    def before(self, rva: int) -> int:
        """Return the RVA before that corresponds to `rva`, an RVA after.

        Code that was inserted when the image was rearranged, such as a jump, is taken for the last byte of the piece in
        front of it.
        """
        last = bisect_right(self._after_starts, rva) - 1
        for index in range(last, max(last - _MAX_PIECES, -1), -1):
            start, to = self._after[index]
            if _is_somewhere(to):
                return to + rva - start
            rva = start - 1
        return max(rva, 0)

    def after(self, rva: int) -> int | None:
        """Return the RVA after of the code that was at `rva` before, or None if the code was removed."""
        return next((start for start, _, _ in self.pieces(rva, 1)), None)

    def pieces(self, rva: int, size: int) -> Iterator[tuple[int, int, int]]:
        """Yield the pieces into which the range of `size` bytes at `rva`, an RVA before, was split.

        A piece is (RVA after, size, offset in the range before).
        """
        if not self._before:
            yield rva, size, 0
            return
        first, end = rva, rva + size
        index = bisect_right(self._before_starts, rva) - 1
        for _ in range(_MAX_PIECES):
            if rva >= end or index >= len(self._before):
                return
            following = self._before_starts[index + 1] if index + 1 < len(self._before) else end
            if index >= 0 and _is_somewhere(self._before[index][1]):
                start, to = self._before[index]
                yield to + rva - start, min(following, end) - rva, rva - first
            rva = following
            index += 1


def _pairs(stream: bytes) -> list[tuple[int, int]]:
    return sorted(struct.iter_unpack("<II", stream[: len(stream) // 8 * 8]))


def _is_somewhere(rva: int) -> bool:
    return 0 < rva < _NOWHERE
