# SPDX-License-Identifier: Apache-2.0
"""Finds file and line of an address in the line information of one module of a PDB (C13, Visual C++ 2005 and later).

Follows `cvinfo.h` of Microsoft's microsoft-pdb and LLVM's `DebugSubsectionRecord.h`. The information is a row of
subsections: the lines of a range of code, the files, where inlined functions begin in their files, and the ids that a
module uses of others or lets others use. A file is the offset of its entry among the files ("checksums").
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

from throwstack.pdb.msf import Stream
from throwstack.pdb.ranges import Ranges, key_of

_SUBSECTION = struct.Struct("<II")
_LINES_HEAD = struct.Struct("<IHHI")
_FILE_HEAD = struct.Struct("<III")
_INLINEE = struct.Struct("<III")
_LINES, _FILES, _INLINEES, _IMPORTS, _EXPORTS = 0xF2, 0xF4, 0xF6, 0xF7, 0xF8
_NOT_LINES = frozenset({0xFEEFEE, 0xF00F00})
"""Numbers that a compiler gives to code of its own. A debugger steps over it as a part of the line before."""
_LINE_BITS = 0xFFFFFF
_WINDOW = 1 << 18
_MAX_BLOCKS = 1 << 22
_MAX_PART = 64 << 20
_MAX_INLINEES = 1 << 20


@dataclass(frozen=True, slots=True)
class LineBlock:
    """The lines of one range of code, sorted by offset in the range."""

    offsets: array[int]
    lines: array[int]
    files: array[int]

    @property
    def kept_bytes(self) -> int:
        """Return about how many bytes of memory this takes."""
        return 256 + 12 * len(self.offsets)

    def at(self, offset: int) -> tuple[int, int] | None:
        """Return file and line of the byte at `offset` of the range, or None."""
        index = bisect_right(self.offsets, offset) - 1
        return None if index < 0 else (self.files[index], self.lines[index])


@dataclass(frozen=True, slots=True)
class Inlinees:
    """Where the functions that a module inlines begin: file and line by the number of their id."""

    begins: dict[int, tuple[int, int]] = field(default_factory=dict)

    @property
    def kept_bytes(self) -> int:
        """Return about how many bytes of memory this takes."""
        return 256 + 250 * len(self.begins)


class ModuleLines:
    """The line information of one module. What it lists is read when it is asked for."""

    __slots__ = ("_end", "_ranges", "_start", "_stream", "_subsections")

    def __init__(self, stream: Stream, start: int, size: int) -> None:
        """List the subsections in the `size` bytes at `start` of the module's stream. Raises `NotAPdb`."""
        self._stream = stream
        self._start = start
        self._end = min(start + size, stream.size)
        self._subsections: dict[int, list[tuple[int, int]]] = {}
        """Offset and size of the subsections of each kind but lines."""
        self._ranges = self._list()

    @property
    def kept_bytes(self) -> int:
        """Return about how many bytes of memory this takes."""
        return 1024 + self._ranges.kept_bytes

    def blocks_at(self, section: int, offset: int) -> Iterator[tuple[int, int]]:
        """Yield the blocks of lines that have the byte at this place: position in the stream, offset in the block."""
        for position in self._ranges.covering(key_of(section, offset)):
            head = self._stream.read(position + _SUBSECTION.size, 4)
            yield position, offset - int.from_bytes(head, "little")

    def block(self, position: int) -> LineBlock:
        """Return the lines of the subsection at `position` of the stream. Raises `NotAPdb`."""
        size = int.from_bytes(self._stream.read(position + 4, 4), "little")
        data = self._stream.read(position + _SUBSECTION.size, min(size, _MAX_PART, self._end - position))
        rows: list[tuple[int, int, int]] = []
        at = _LINES_HEAD.size
        while at + _FILE_HEAD.size <= len(data):
            file, count, length = _FILE_HEAD.unpack_from(data, at)
            count = min(count, (len(data) - at - _FILE_HEAD.size) // 8)
            words = struct.unpack_from(f"<{2 * count}I", data, at + _FILE_HEAD.size)
            rows += [
                (offset, line & _LINE_BITS, file)
                for offset, line in zip(words[::2], words[1::2], strict=True)
                if line & _LINE_BITS not in _NOT_LINES
            ]
            at += max(length, _FILE_HEAD.size)
        rows.sort(key=lambda row: row[0])  # several files of one range have their lines mixed
        return LineBlock(*(array("I", (row[column] for row in rows)) for column in range(3)))

    def file_name_offset(self, file: int) -> int | None:
        """Return the offset of a file's path among the PDB's strings, or None. Raises `NotAPdb`."""
        for start, size in self._subsections.get(_FILES, ()):
            if file + 4 <= size:
                return int.from_bytes(self._stream.read(start + file, 4), "little")
        return None

    def inlinees(self) -> Inlinees:
        """Return where the functions begin that the module inlines. Raises `NotAPdb`."""
        found: dict[int, tuple[int, int]] = {}
        for start, size in self._subsections.get(_INLINEES, ()):
            data = self._stream.read(start, min(size, _MAX_PART))
            has_more_files = int.from_bytes(data[:4], "little") == 1
            at = 4
            while at + _INLINEE.size <= len(data) and len(found) < _MAX_INLINEES:
                number, file, line = _INLINEE.unpack_from(data, at)
                found[number] = file, line
                at += _INLINEE.size
                if has_more_files:
                    at += 4 + 4 * int.from_bytes(data[at : at + 4], "little")
        return Inlinees(found)

    def imported(self, number: int) -> tuple[int, int] | None:
        """Return what the id `number` of another module is: offset of that module's name, id there. Raises `NotAPdb`.

        Code that is generated at link time inlines functions of other modules. Bits 20 to 30 of such a number are the
        index of a module among the imports, and the lower ones the index of an id among those imported from there.
        """
        left, index = number >> 20 & 0x7FF, number & 0xFFFFF
        for start, size in self._subsections.get(_IMPORTS, ()):
            at, end = start, start + size
            while at + 8 <= end:
                name, count = _SUBSECTION.unpack(self._stream.read(at, 8).ljust(8, b"\0"))
                if left == 0:
                    if index >= count or at + 12 + 4 * index > end:
                        return None
                    return name, int.from_bytes(self._stream.read(at + 8 + 4 * index, 4), "little")
                left -= 1
                at += 8 + 4 * count
        return None

    def exported(self, number: int) -> int | None:
        """Return the id that other modules know by `number`, or None. Raises `NotAPdb`."""
        for start, size in self._subsections.get(_EXPORTS, ()):
            data = self._stream.read(start, min(size, _MAX_PART))
            for outside, inside in struct.iter_unpack("<II", data[: len(data) // 8 * 8]):
                if outside == number:
                    return int(inside)
        return None

    def _list(self) -> Ranges:
        starts, sizes, positions = array("Q"), array("I"), array("I")
        position, base, window = self._start, 0, b""
        head_size = _SUBSECTION.size + _LINES_HEAD.size
        while position + _SUBSECTION.size <= self._end and len(starts) < _MAX_BLOCKS:
            at = position - base
            if at + head_size > len(window) and base + len(window) < self._end:
                base, at = position, 0
                window = self._stream.read(base, min(_WINDOW, self._end - base))
            kind, size = _SUBSECTION.unpack_from(window, at)
            if kind == _LINES and at + head_size <= len(window):
                offset, section, _, length = _LINES_HEAD.unpack_from(window, at + _SUBSECTION.size)
                starts.append(section << 32 | offset)
                sizes.append(length)
                positions.append(position)
            elif kind in {_FILES, _INLINEES, _IMPORTS, _EXPORTS}:
                inside = min(size, self._end - position - _SUBSECTION.size)
                self._subsections.setdefault(kind, []).append((position + _SUBSECTION.size, inside))
            position += _SUBSECTION.size + (size + 3 & ~3)
        return Ranges(starts, sizes, positions)
