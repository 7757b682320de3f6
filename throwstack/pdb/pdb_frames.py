# SPDX-License-Identifier: Apache-2.0
"""Reads the records of a PDB that describe the frames of x86 functions: FrameData ("new FPO") and FPO_DATA.

Follows `FRAMEDATA` in cvinfo.h, and `FPO_DATA` in winnt.h. Each kind has a debug stream of its own, an array that is
sorted by address. FrameData records may be nested: clang writes one for each step of a prologue, and each of them
reaches to the end of the function. The innermost record counts, which is the one that starts last.

LLVM, and readers that follow it, take the bits of FPO_DATA wrongly. They take bit 10 for "uses ebp", but that is bit
12, and bit 10 belongs to the number of saved registers. They also cut the size of the prologue to four bits. For
example, a function that saves four registers has 0x0400 there, which does not mean that it uses ebp. A walk with a
record that was read so gives wrong frames.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate, islice
from operator import add, gt

from throwstack.names.frame_records import FrameData
from throwstack.pdb.msf import Stream
from throwstack.pdb.omap import Omap
from throwstack.pdb.remembered import Remembered

_FPO = struct.Struct("<IIIHH")
_FRAME_DATA = struct.Struct("<IIIIIIHHI")
_HAS_SEH, _HAS_EH, _IS_FUNCTION_START = 1, 2, 4
_KIND_FPO, _KIND_NON_FPO = 0, 3

_MAX_RECORDS = 4_000_000
_GROUP = 128
_STRIDE = 128 * _GROUP
_MAX_GROUPS = 64
"""How many groups of records are kept: 2 MB at most."""
_MAX_NESTED = 64
"""How many records that cover one address are looked at. Compilers nest four or five."""
_MAX_REMEMBERED = 16 << 20
_RECORD_BYTES = 300


@dataclass(frozen=True, slots=True)
class _Found:
    """The records that cover an address, innermost first; an FPO_DATA record with its kind (`FRAME_FPO` and so on)."""

    frame_data: tuple[FrameData, ...] = ()
    fpo: tuple[tuple[int, FrameData], ...] = ()

    @property
    def kept_bytes(self) -> int:
        """Return about how many bytes of memory this takes."""
        programs = sum(len(data.program) for data in self.frame_data)
        return programs + _RECORD_BYTES * (len(self.frame_data) + len(self.fpo))

    @property
    def has_seh(self) -> bool:
        return any(data.has_seh for data in self.frame_data) or any(data.has_seh for _, data in self.fpo)


class PdbFrames:
    """The FrameData and FPO_DATA records of one PDB, looked up by RVA."""

    __slots__ = ("_fpo", "_frame_data", "_names", "_omap", "_remembered")

    def __init__(self, frame_data: Stream, fpo: Stream, names: Callable[[int], str], omap: Omap | None = None) -> None:
        """`frame_data` and `fpo` are the debug streams, which are empty where the PDB has none.

        `names` returns the string at an offset in the PDB's `/names`, where the programs are. `omap` translates
        addresses if the image was rearranged after it was linked.
        """
        self._frame_data = _Records(frame_data, _FRAME_DATA)
        self._fpo = _Records(fpo, _FPO)
        self._names = names
        self._omap = omap or Omap()
        self._remembered = Remembered[int, _Found](_MAX_REMEMBERED, lambda found: found.kept_bytes)

    def find(self, rva: int) -> FrameData | None:
        """Return the innermost record that gives the layout of the frame at `rva`, or None.

        FrameData records are preferred to the older FPO_DATA. Two kinds of FPO_DATA are left out. One is Non-FPO: the
        function begins with `push ebp; mov ebp, esp`, and the sizes in the record do not include the saved ebp. The
        other is trap and task frames, which are not functions. Raises `NotAPdb` if the PDB is damaged.
        """
        found = self._at(rva)
        fpo = (data for kind, data in found.fpo if kind == _KIND_FPO)
        return _with_seh(next(iter(found.frame_data), None) or next(fpo, None), found)

    def described(self, rva: int) -> FrameData | None:
        """Return the record that `kv` shows for the function at `rva`, or None. Raises `NotAPdb`.

        FPO_DATA is preferred here: its record covers the whole function, while FrameData may have one for each part.
        """
        found = self._at(rva)
        for wanted in (_KIND_FPO, _KIND_NON_FPO):
            for kind, data in found.fpo:
                if kind == wanted:
                    return _with_seh(data, found)
        return _with_seh(next(iter(found.frame_data), None), found)

    def _at(self, rva: int) -> _Found:
        return self._remembered.get(rva, self._read)

    def _read(self, rva: int) -> _Found:
        before = self._omap.before(rva)
        frame_data, fpo = [], []
        for record in self._frame_data.covering(before):
            piece = self._piece(record, rva)
            if piece is not None:
                frame_data.append(self._frame_data_record(record, piece))
        for record in self._fpo.covering(before):
            piece = self._piece(record, rva)
            if piece is not None:
                fpo.append((record[4] >> 14, _fpo_record(record, piece)))
        return _Found(tuple(frame_data), tuple(fpo))

    def _piece(self, record: tuple[int, ...], rva: int) -> tuple[int, int, int] | None:
        """Return the piece of the record's range that has `rva`: (RVA, size, offset in the range).

        None if code was inserted at `rva` when the image was rearranged: no record covers that.
        """
        pieces = self._omap.pieces(record[0], record[1])
        return next((piece for piece in pieces if piece[0] <= rva < piece[0] + piece[1]), None)

    def _frame_data_record(self, record: tuple[int, ...], piece: tuple[int, int, int]) -> FrameData:
        _, _, local, parameters, _, program, prologue, saved, flags = record
        rva, size, offset = piece
        return FrameData(
            rva,
            size,
            max(0, prologue - offset),
            parameters,
            saved,
            local,
            self._names(program),
            uses_base_pointer=False,
            has_seh=bool(flags & _HAS_SEH),
            has_eh=bool(flags & _HAS_EH),
            is_function_start=bool(flags & _IS_FUNCTION_START) and not offset,
        )


def _fpo_record(record: tuple[int, ...], piece: tuple[int, int, int]) -> FrameData:
    _, _, local, parameters, bits = record
    rva, size, offset = piece
    return FrameData(
        rva,
        size,
        max(0, (bits & 0xFF) - offset),
        4 * parameters,
        4 * (bits >> 8 & 7),
        4 * local,
        "",
        uses_base_pointer=bool(bits >> 12 & 1),
        has_seh=bool(bits >> 11 & 1),
        is_non_fpo=bits >> 14 == _KIND_NON_FPO,
    )


def _with_seh(data: FrameData | None, found: _Found) -> FrameData | None:
    """Return `data` as that of a function with an exception handler if any record that covers the address says so."""
    if data is None or data.has_seh or not found.has_seh:
        return data
    return replace(data, has_seh=True)


class _Records:
    """The records of a stream, whose first two words are the start and the size of a range.

    They are found by a binary search in an index that has the start of every 128th record. The records themselves stay
    in the stream. The index takes one pass over the stream, in which the order is checked as well: linkers sort the
    records, and a wrong order would give wrong frames without a word.
    """

    __slots__ = ("_count", "_first", "_groups", "_highest", "_order", "_reach", "_record", "_stream")

    def __init__(self, stream: Stream, record: struct.Struct) -> None:
        self._stream = stream
        self._record = record
        self._count = min(stream.size // record.size, _MAX_RECORDS)
        self._order: array[int] | None = None
        """The numbers of the records in the order of their starts; None if that is their order in the stream."""
        self._first: list[int] | None = None
        """The start of the first record of each group."""
        self._highest: list[int] = []
        """Where the last of the ranges of each group ends."""
        self._reach: list[int] = []
        """The same of each group and all before it."""
        self._groups: dict[int, list[tuple[int, ...]]] = {}

    def covering(self, rva: int) -> list[tuple[int, ...]]:
        """Return the records whose range covers `rva`, innermost first, at most `_MAX_NESTED`."""
        if self._first is None:
            self._first = self._make_index()
        found = list(islice(self._from_last(self._first, rva), _MAX_NESTED))
        found.sort(key=lambda record: (-record[0], record[1]))
        return found

    def _from_last(self, first: list[int], rva: int) -> Iterator[tuple[int, ...]]:
        # All records of the groups before the last one start at or before `rva`. So each of these groups in which a
        # range ends after `rva` has a record that covers it: no group is read in vain.
        for group in range(bisect_right(first, rva) - 1, -1, -1):
            if self._reach[group] <= rva:
                return
            if self._highest[group] > rva:
                records = self._group(group)
                for index in range(bisect_left(records, (rva + 1,)) - 1, -1, -1):
                    if rva < records[index][0] + records[index][1]:
                        yield records[index]

    def _group(self, group: int) -> list[tuple[int, ...]]:
        found = self._groups.get(group)
        if found is None:
            if len(self._groups) >= _MAX_GROUPS:
                self._groups.clear()
            found = self._groups[group] = self._read_group(group)
        return found

    def _read_group(self, group: int) -> list[tuple[int, ...]]:
        start, end = group * _GROUP, min((group + 1) * _GROUP, self._count)
        if self._order is None:
            return list(self._record.iter_unpack(self._read(start, end - start)))
        return [self._record.unpack(self._read(index, 1)) for index in self._order[start:end]]

    def _make_index(self) -> list[int]:
        """Make the index, and return the first part of it. Records that are not sorted get an order first."""
        starts, sizes = array("I"), array("I")
        words = self._record.size // 4
        for number in range(0, self._count, _STRIDE):
            read = array("I", self._read(number, min(_STRIDE, self._count - number)))
            starts += read[0::words]
            sizes += read[1::words]
        if any(map(gt, starts, starts[1:])):
            self._order = array("I", sorted(range(len(starts)), key=starts.__getitem__))
            starts, sizes = (array("I", map(values.__getitem__, self._order)) for values in (starts, sizes))
        groups = range(0, len(starts), _GROUP)
        self._highest = [max(map(add, starts[at : at + _GROUP], sizes[at : at + _GROUP])) for at in groups]
        self._reach = list(accumulate(self._highest, max))
        return [starts[at] for at in groups]

    def _read(self, number: int, count: int) -> bytes:
        """Return `count` records from `number` on."""
        return self._stream.read(number * self._record.size, count * self._record.size)
