# SPDX-License-Identifier: Apache-2.0
"""Reads a stream from front to back, a part at a time, for a look at the head of each of its records."""

from __future__ import annotations

from throwstack.pdb.msf import Stream

_SIZE = 1 << 18


class Window:
    """A part of a stream: `data` is what begins at the offset `base`.

    Loops over millions of records compare with `last` by themselves, and call `move` when they are past it.
    """

    __slots__ = ("_end", "_head", "_stream", "base", "data", "last")

    def __init__(self, stream: Stream, begin: int, end: int, head: int) -> None:
        """The records are from offset `begin` of `stream` up to `end`. The head of one has at most `head` bytes."""
        self._stream = stream
        self._end = end
        self._head = head
        self.move(begin)

    def move(self, position: int) -> int:
        """Read on from the offset `position`. Return its offset in `data`, which is 0."""
        self.base = position
        self.data = self._stream.read(position, min(_SIZE, self._end - position))
        is_end = position + len(self.data) >= self._end or not self.data
        self.last = self._end if is_end else position + len(self.data) - self._head
        """The last offset in the stream at which a record may begin and have its whole head in `data`.

        At the end of the stream a head may be cut, because no more of it is there.
        """
        return 0
