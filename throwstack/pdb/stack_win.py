# SPDX-License-Identifier: Apache-2.0
"""Parses `STACK WIN` records, the text form of a PDB's frame data that Breakpad's tools and symbolic use.

Follows Breakpad's symbol file format; figures are in hex:

    STACK WIN type rva code_size prologue_size epilogue_size parameter_size saved_register_size local_size
        max_stack_size has_program program_or_uses_base_pointer

One kind of record is throwstack's own: `STACK SEH rva code_size` for a function that registers an exception handler,
which Breakpad's format cannot express (`throwstack.pdb.fpo` writes it).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import replace

from throwstack.names.frame_records import FrameData

_MAX_RECORDS = 4_000_000
_FPO, _STANDARD, _FRAME_DATA = "0", "3", "4"


class FrameDataTable:
    """The frame data of one image, looked up by RVA."""

    __slots__ = ("_fpo", "_frame_data", "_non_fpo", "_seh")

    def __init__(self, text: str) -> None:
        """`text` has one record in each line. Lines that are damaged or are not such records are left out."""
        frame_data: list[tuple[int, int, str]] = []
        fpo: list[tuple[int, int, str]] = []
        non_fpo: list[tuple[int, int, str]] = []
        seh: list[tuple[int, int, str]] = []
        for line, _ in zip(text.splitlines(), range(_MAX_RECORDS), strict=False):
            words = line.split(None, 5)
            is_seh = words[:2] == ["STACK", "SEH"] and len(words) == 4
            if not is_seh and (len(words) != 6 or words[:2] != ["STACK", "WIN"]):
                continue
            try:
                start, size = (_figure(word) for word in (words[2:4] if is_seh else words[3:5]))
            except ValueError:
                continue
            if is_seh:
                seh.append((start, start + size, line))
            elif words[2] == _FRAME_DATA:
                frame_data.append((start, start + size, line))
            elif words[2] == _FPO:
                fpo.append((start, start + size, line))
            elif words[2] == _STANDARD:
                non_fpo.append((start, start + size, line))
        self._frame_data = _Cover(frame_data)
        self._fpo = _Cover(fpo)
        self._non_fpo = _Cover(non_fpo)
        self._seh = _Cover(seh)

    def find(self, rva: int) -> FrameData | None:
        """Return the innermost record that gives the layout of the frame at `rva`, or None.

        FrameData records are preferred to the older FPO_DATA. Two kinds of FPO_DATA are left out. One is Non-FPO: the
        function begins with `push ebp; mov ebp, esp`, and the sizes in the record do not include the saved ebp. The
        other is trap and task frames, which are not functions.
        """
        return self._first(rva, self._frame_data, self._fpo)

    def described(self, rva: int) -> FrameData | None:
        """Return the record that `kv` shows for the function at `rva`, or None.

        FPO_DATA is preferred here: its record covers the whole function, while FrameData may have one for each part.
        """
        return self._first(rva, self._fpo, self._non_fpo, self._frame_data)

    def _first(self, rva: int, *covers: _Cover) -> FrameData | None:
        for cover in covers:
            line = cover.at(rva)
            record = None if line is None else parse_record(line)
            if record is not None:
                return replace(record, has_seh=self._seh.at(rva) is not None)
        return None


def parse_record(line: str) -> FrameData | None:
    """Return the record that a `STACK WIN` line holds, or None if it is damaged."""
    words = line.split(None, 12)
    if len(words) != 13:
        return None
    try:
        start, size, prologue, _, parameters, saved, local, _ = (_figure(word) for word in words[3:11])
    except ValueError:
        return None
    has_program = words[11] != "0"
    return FrameData(
        start,
        size,
        prologue,
        parameters,
        saved,
        local,
        words[12] if has_program else "",
        uses_base_pointer=not has_program and words[12].strip() != "0",
        is_non_fpo=words[2] == _STANDARD,
    )


def _figure(word: str) -> int:
    """Return the value of a hex figure. Raises ValueError if it is no figure or has more than the 32 bits of PDBs."""
    value = int(word, 16)
    if not 0 <= value <= 0xFFFFFFFF:
        message = "no figure of 32 bits"
        raise ValueError(message)
    return value


class _Cover:
    """Finds the innermost of nested or overlapping ranges at an address.

    The innermost range is the one that starts last.
    """

    __slots__ = ("_lines", "_starts")

    def __init__(self, ranges: Iterable[tuple[int, int, str]]) -> None:
        self._starts: list[int] = []
        self._lines: list[str | None] = []
        open_ranges: list[tuple[int, str]] = []
        for start, end, line in sorted(ranges, key=lambda item: (item[0], -item[1])):
            self._close(open_ranges, start)
            open_ranges.append((end, line))
            self._add(start, line)
        self._close(open_ranges, 1 << 64)

    def _close(self, open_ranges: list[tuple[int, str]], until: int) -> None:
        """Remove the open ranges that end at or before `until`, and add a boundary at the end of each.

        From there on, the range around the removed one is the innermost.
        """
        while open_ranges and open_ranges[-1][0] <= until:
            end = open_ranges.pop()[0]
            while open_ranges and open_ranges[-1][0] <= end:
                open_ranges.pop()
            self._add(end, open_ranges[-1][1] if open_ranges else None)

    def _add(self, start: int, line: str | None) -> None:
        if self._starts and self._starts[-1] == start:
            self._lines[-1] = line
            return
        self._starts.append(start)
        self._lines.append(line)

    def at(self, rva: int) -> str | None:
        index = bisect_right(self._starts, rva) - 1
        return self._lines[index] if index >= 0 else None
