# SPDX-License-Identifier: Apache-2.0
"""The file that a minidump is written to: its header, its directory of streams, and where each part of it is.

MINIDUMP_HEADER, MINIDUMP_DIRECTORY and MINIDUMP_LOCATION_DESCRIPTOR of minidumpapiset.h. Parts are written one after
the other, and what refers to a part is written after it, so that the writer keeps nothing. A part is found by its RVA,
the offset in the file. RVAs have 32 bits: all parts but the memory of a full dump have to begin below 4 GiB.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from enum import IntEnum
from typing import BinaryIO, NamedTuple

from throwstack.core.errors import ThrowstackError

MAX_RVA = 0xFFFFFFFF
_SIGNATURE = b"MDMP"
_VERSION = 0xA793
"""MINIDUMP_VERSION, in the low word; the high word is for the writer's own use."""
_HEADER = struct.Struct("<4sIIIIIQ")
_DIRECTORY_ENTRY = struct.Struct("<III")
_STRING_LENGTH = struct.Struct("<I")
_MAX_STRINGS = 4096
"""The most strings whose places are remembered, so that equal strings are written once."""


class StreamType(IntEnum):
    """The members of MINIDUMP_STREAM_TYPE that are written."""

    THREAD_LIST = 3
    MODULE_LIST = 4
    MEMORY_LIST = 5
    EXCEPTION = 6
    SYSTEM_INFO = 7
    MEMORY64_LIST = 9
    COMMENT_W = 11
    HANDLE_DATA = 12
    UNLOADED_MODULE_LIST = 14
    MISC_INFO = 15
    MEMORY_INFO_LIST = 16
    THREAD_INFO_LIST = 17
    THREAD_NAMES = 24


class Placement(NamedTuple):
    """A MINIDUMP_LOCATION_DESCRIPTOR: size in bytes, and RVA."""

    size: int
    rva: int


NOWHERE = Placement(0, 0)


class TooLarge(ThrowstackError):
    """A part of a minidump would begin where its RVA has more than 32 bits."""


class MinidumpFile:
    """A minidump that is being written."""

    def __init__(self, file: BinaryIO, streams: int, *, time: int, flags: int) -> None:
        """Leave room for the header and a directory of at most `streams` streams at the begin of the empty `file`.

        `time` is when the dump was made, in seconds since 1970. `flags` is a MINIDUMP_TYPE.
        """
        self._file = file
        self._room = streams
        self._time = time & 0xFFFFFFFF
        self._flags = flags
        self._streams: list[tuple[StreamType, Placement]] = []
        self._strings: dict[str, int] = {}
        self._end = 0
        self._write(bytes(_HEADER.size + streams * _DIRECTORY_ENTRY.size))

    @property
    def end(self) -> int:
        """Return the size of the file so far."""
        return self._end

    def align(self, unit: int) -> int:
        """Fill the file with zeros up to a multiple of `unit`, and return where that is."""
        self._write(bytes(-self._end % unit))
        return self._end

    def append(self, data: bytes, *, alignment: int = 8) -> Placement:
        """Write a part at the end of the file and return its location. Raises `TooLarge`."""
        rva = self._checked(self.align(alignment), len(data))
        self._write(data)
        return Placement(len(data), rva)

    def append_parts(self, parts: Iterable[bytes]) -> int:
        """Write bytes at the end of the file, at whatever offset that is, and return how many."""
        before = self._end
        for part in parts:
            self._write(part)
        return self._end - before

    def append_list(self, parts: Iterable[bytes]) -> Placement:
        """Write a part of many pieces at the end of the file and return its location. Raises `TooLarge`."""
        rva = self.align(8)
        size = self.append_parts(parts)
        return Placement(size, self._checked(rva, size))

    def reserve(self, size: int) -> int:
        """Leave room for `size` bytes, which `fill` writes later, and return its RVA. What is not filled is zero."""
        rva = self._checked(self.align(8), size)
        self._end += size
        self._file.seek(self._end)
        return rva

    def fill(self, rva: int, parts: Iterable[bytes]) -> Placement:
        """Write bytes into room that was reserved at `rva`, and return where they are."""
        self._file.seek(rva)
        size = 0
        for part in parts:
            self._file.write(part)
            size += len(part)
        self._file.seek(self._end)
        return Placement(size, rva)

    def string(self, text: str) -> int:
        """Write a MINIDUMP_STRING (length in bytes, UTF-16, a zero) and return its RVA; equal ones are written once."""
        known = self._strings.get(text)
        if known is not None:
            return known
        data = text.encode("utf-16-le", "surrogatepass")
        rva = self.append(_STRING_LENGTH.pack(len(data)) + data + b"\0\0", alignment=4).rva
        if len(self._strings) < _MAX_STRINGS:
            self._strings[text] = rva
        return rva

    def add_stream(self, kind: StreamType, location: Placement) -> None:
        """Put a stream into the directory. Each kind may be there once."""
        if len(self._streams) == self._room or any(kind is known for known, _ in self._streams):
            message = f"a minidump with {len(self._streams)} streams has no room for another of kind {kind.name}"
            raise ValueError(message)
        self._streams.append((kind, location))

    def finish(self) -> int:
        """Write header and directory, and return the size of the file."""
        header = _HEADER.pack(_SIGNATURE, _VERSION, len(self._streams), _HEADER.size, 0, self._time, self._flags)
        entries = (_DIRECTORY_ENTRY.pack(kind, *location) for kind, location in self._streams)
        self._file.truncate(self._end)  # a hole may be the last part
        self.fill(0, (header, *entries))
        return self._end

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._end += len(data)

    @staticmethod
    def _checked(rva: int, size: int) -> int:
        if rva + size > MAX_RVA:
            message = "the minidump would have parts after 4 GiB that its format cannot refer to"
            raise TooLarge(message)
        return rva
