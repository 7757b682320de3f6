# SPDX-License-Identifier: Apache-2.0
"""Reads the string table of a PDB, the stream `/names`: paths of source files, programs of frame data.

Follows LLVM's "The PDB String Table". A string is known by its offset in the table.
"""

from __future__ import annotations

from throwstack.pdb.msf import Stream
from throwstack.pdb.remembered import Remembered

_HEAD_SIZE = 12
_PIECE = 512
_MAX_LENGTH = 1 << 14
_MAX_REMEMBERED = 4 << 20


class StringTable:
    """The strings of a PDB. Each is read when it is asked for."""

    __slots__ = ("_known", "_stream")

    def __init__(self, stream: Stream) -> None:
        """`stream` is the stream `/names`; an empty one has no strings."""
        self._stream = stream
        self._known = Remembered[int, str](_MAX_REMEMBERED, len)

    def at(self, offset: int) -> str:
        """Return the string at `offset`, cut to 16 KB; "" if there is none. Raises `NotAPdb`."""
        return self._known.get(offset, self._read)

    def _read(self, offset: int) -> str:
        data = b""
        while len(data) < _MAX_LENGTH:
            piece = self._stream.read(_HEAD_SIZE + offset + len(data), _PIECE)
            end = piece.find(b"\0")
            data += piece if end < 0 else piece[:end]
            if end >= 0 or len(piece) < _PIECE:
                break
        return data.decode("utf-8", "replace")
