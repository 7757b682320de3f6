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
from collections.abc import Sequence
from dataclasses import dataclass
from operator import gt
from sys import byteorder

from throwstack.pdb.msf import Stream
from throwstack.pdb.ranges import Ranges, key_of
from throwstack.pdb.window import Window
from throwstack.pdb.word_search import find_word

_SUBSECTION = struct.Struct("<II")
_LINES_HEAD = struct.Struct("<IHHI")
_FILE_HEAD = struct.Struct("<III")
_INLINEE = struct.Struct("<III")
_LINES, _FILES, _INLINEES, _IMPORTS, _EXPORTS = 0xF2, 0xF4, 0xF6, 0xF7, 0xF8
_LISTED = frozenset({_FILES, _INLINEES, _IMPORTS, _EXPORTS})
_MAX_LISTED = 1024
"""How many subsections of a kind are looked at. Linkers write one of each."""
_MAX_SUBSECTIONS = 1 << 23
_WITH_MORE_FILES = 1
_NOT_LINES = frozenset({0xFEEFEE, 0xF00F00})
"""Numbers that a compiler gives to code of its own. A debugger steps over it as a part of the line before."""
_LINE_BITS = 0xFFFFFF
_MAX_BLOCKS = 1 << 22
_MAX_PART = 16 << 20
"""Most bytes of the lines of one range, of all inlined functions of a module, of the ids that it lets others use."""
_MAX_MARKED = 4096
"""How many lines in front of an address are looked at for one that is no mark of the compiler."""
_MAX_INLINEES = 1 << 17


@dataclass(frozen=True, slots=True)
class LineBlock:
    """The lines of one range of code, sorted by offset in the range. The number of a line is in its low 24 bits."""

    offsets: array[int]
    lines: array[int]
    files: Sequence[int]

    @property
    def kept_bytes(self) -> int:
        """Return about how many bytes of memory this takes."""
        return 256 + 12 * len(self.offsets)

    def at(self, offset: int) -> tuple[int, int] | None:
        """Return file and line of the byte at `offset` of the range, or None."""
        last = bisect_right(self.offsets, offset) - 1
        for index in range(last, max(last - _MAX_MARKED, -1), -1):
            line = self.lines[index] & _LINE_BITS
            if line not in _NOT_LINES:
                return self.files[index], line
        return None


@dataclass(frozen=True, slots=True)
class Inlinees:
    """Where the functions begin that a module inlines: records as they are in the PDB, or by the number of an id."""

    tables: list[bytes]
    begins: dict[int, tuple[int, int]]

    @property
    def kept_bytes(self) -> int:
        """Return about how many bytes of memory this takes."""
        return 256 + sum(map(len, self.tables)) + 250 * len(self.begins)

    def begin(self, number: int) -> tuple[int, int] | None:
        """Return file and line where the function with the id `number` begins, or None."""
        for table in self.tables:
            at = find_word(table, number, size=_INLINEE.size)
            if at >= 0 and at + _INLINEE.size <= len(table):
                _, file, line = _INLINEE.unpack_from(table, at)
                return file, line
        return self.begins.get(number)


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

    def blocks_at(self, section: int, offset: int, size: int = 0) -> list[tuple[int, int]]:
        """Return the blocks of lines that have the byte at this place: position in the stream, offset in the block.

        Blocks of `size` bytes, the size of the function there, come first among those that begin together: Microsoft's
        assembler for ARM64 has written the lines of all functions of a file as if these began at the last of them.
        """
        found = list(self._ranges.covering(key_of(section, offset)))
        heads = [_LINES_HEAD.unpack(self._stream.read(at + _SUBSECTION.size, _LINES_HEAD.size)) for at in found]
        blocks = [(at, offset - head[0], head[3]) for at, head in zip(found, heads, strict=True)]
        if size and len(blocks) > 1:
            blocks.sort(key=lambda block: (block[1], block[2] != size))
        return [(at, inside) for at, inside, _ in blocks]

    def block(self, position: int) -> LineBlock:
        """Return the lines of the subsection at `position` of the stream. Raises `NotAPdb`."""
        size = int.from_bytes(self._stream.read(position + 4, 4), "little")
        data = self._stream.read(position + _SUBSECTION.size, min(size, _MAX_PART, self._end - position))
        words, files = array("I"), []
        at = _LINES_HEAD.size
        while at + _FILE_HEAD.size <= len(data):
            file, count, length = _FILE_HEAD.unpack_from(data, at)
            count = min(count, (len(data) - at - _FILE_HEAD.size) // 8)
            words.frombytes(data[at + _FILE_HEAD.size : at + _FILE_HEAD.size + 8 * count])
            files += [file] * count
            at += max(length, _FILE_HEAD.size)
        if byteorder == "big":
            words.byteswap()
        offsets, lines = words[0::2], words[1::2]
        if any(map(gt, offsets, offsets[1:])):  # several files of one range have their lines mixed
            order = sorted(range(len(offsets)), key=offsets.__getitem__)
            offsets, lines = (array("I", map(values.__getitem__, order)) for values in (offsets, lines))
            files = list(map(files.__getitem__, order))
        return LineBlock(offsets, lines, files)

    def file_name_offset(self, file: int) -> int | None:
        """Return the offset of a file's path among the PDB's strings, or None. Raises `NotAPdb`."""
        for start, size in self._subsections.get(_FILES, ()):
            if file + 4 <= size:
                return int.from_bytes(self._stream.read(start + file, 4), "little")
        return None

    def inlinees(self) -> Inlinees:
        """Return where the functions begin that the module inlines. Raises `NotAPdb`."""
        tables: list[bytes] = []
        begins: dict[int, tuple[int, int]] = {}
        left = _MAX_PART
        for start, size in self._subsections.get(_INLINEES, ()):
            data = self._stream.read(start, min(size, left))
            left -= len(data)
            if int.from_bytes(data[:4], "little") != _WITH_MORE_FILES:
                tables.append(data[4:])
                continue
            at = 4
            while at + _INLINEE.size <= len(data) and len(begins) < _MAX_INLINEES:
                number, file, line = _INLINEE.unpack_from(data, at)
                begins[number] = file, line
                at += _INLINEE.size
                at += 4 + 4 * int.from_bytes(data[at : at + 4], "little")
        return Inlinees(tables, begins)

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
        left = _MAX_PART
        for start, size in self._subsections.get(_EXPORTS, ()):
            data = self._stream.read(start, min(size, left))
            left -= len(data)
            found = find_word(data, number, size=8)
            if found >= 0 and found + 8 <= len(data):
                return int.from_bytes(data[found + 4 : found + 8], "little")
        return None

    def _list(self) -> Ranges:
        starts, sizes, positions = array("Q"), array("I"), array("I")
        position, head_size = self._start, _SUBSECTION.size + _LINES_HEAD.size
        window = Window(self._stream, position, self._end, head_size)
        for _ in range(_MAX_SUBSECTIONS):
            if position + _SUBSECTION.size > self._end or len(starts) >= _MAX_BLOCKS:
                break
            at = position - window.base if position <= window.last else window.move(position)
            kind, size = _SUBSECTION.unpack_from(window.data, at)
            if kind == _LINES and at + head_size <= len(window.data):
                offset, section, _, length = _LINES_HEAD.unpack_from(window.data, at + _SUBSECTION.size)
                starts.append(section << 32 | offset)
                sizes.append(length)
                positions.append(position)
            elif kind in _LISTED:
                listed = self._subsections.setdefault(kind, [])
                if len(listed) < _MAX_LISTED:
                    inside = min(size, self._end - position - _SUBSECTION.size)
                    listed.append((position + _SUBSECTION.size, inside))
            position += _SUBSECTION.size + (size + 3 & ~3)
        return Ranges(starts, sizes, positions)
