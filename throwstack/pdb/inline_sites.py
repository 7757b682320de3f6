# SPDX-License-Identifier: Apache-2.0
"""Reads where other functions were inlined into a function: S_INLINESITE and its annotations.

Follows `cvinfo.h` of Microsoft's microsoft-pdb (`CodeViewAnnotation`). The annotations of a site are a little program.
It has registers for offset in the function, file and line, and each step emits a range of code with its file and line.
Numbers are compressed to 1, 2 or 4 bytes.

What other descriptions leave open was found by comparing with Microsoft's and LLVM's own readers. The length that comes
with code 12 does not advance the offset, while that of code 4 does. A range without a length reaches to the next one.
"""

from __future__ import annotations

from dataclasses import dataclass

from throwstack.pdb.codeview import records

_S_INLINESITE, _S_INLINESITE2, _S_INLINESITE_END = 0x114D, 0x115D, 0x114E
_ID_AT = 12
_ANNOTATIONS_AT = {_S_INLINESITE: 16, _S_INLINESITE2: 20}
_MAX_SITES = 1 << 16
_MAX_DEPTH = 256
_MAX_RANGES = 1 << 16


@dataclass(frozen=True, slots=True)
class InlineRange:
    """A range of code from an inlined function: offsets in the function around it, file and line relative to the site.

    `file` is None for the file in which the inlined function begins. `line` counts from the line where it begins.
    """

    begin: int
    end: int
    file: int | None
    line: int


@dataclass(frozen=True, slots=True)
class InlineSite:
    """One call that was inlined. `depth` is 1 if it was in the function itself, 2 if in a function inlined there."""

    depth: int
    id: int
    ranges: tuple[InlineRange, ...]

    def at(self, offset: int) -> InlineRange | None:
        """Return the range that has the byte at `offset` of the function, or None."""
        return next((one for one in self.ranges if one.begin <= offset < one.end), None)


@dataclass(frozen=True, slots=True)
class InlineSites:
    """All sites of one function, in the order of its records: a site is after the one that it is in."""

    sites: tuple[InlineSite, ...] = ()

    @property
    def kept_bytes(self) -> int:
        """Return about how many bytes of memory this takes."""
        return 128 + sum(120 + 110 * len(site.ranges) for site in self.sites)

    def at(self, offset: int) -> list[tuple[InlineSite, InlineRange]]:
        """Return the sites that have the byte at `offset` of the function, each in the one before it."""
        chain: list[tuple[InlineSite, InlineRange]] = []
        for site in self.sites:
            found = site.at(offset)
            if found is not None:
                while chain and chain[-1][0].depth >= site.depth:
                    chain.pop()
                chain.append((site, found))
        return chain


def read_sites(body: bytes) -> InlineSites:
    """Return the sites in the records of a function. What is damaged is left out."""
    sites: list[InlineSite] = []
    depth, left = 0, _MAX_RANGES
    for record in records(body, 0, len(body)):
        if record.kind in _ANNOTATIONS_AT:
            depth += 1
            if depth > _MAX_DEPTH or len(sites) >= _MAX_SITES or left <= 0:
                break
            data = body[record.at : record.end]
            ranges = read_annotations(data[_ANNOTATIONS_AT[record.kind] :], left)
            left -= len(ranges)
            sites.append(InlineSite(depth, int.from_bytes(data[_ID_AT : _ID_AT + 4], "little"), ranges))
        elif record.kind == _S_INLINESITE_END:
            depth -= 1
    return InlineSites(tuple(sites))


def read_annotations(data: bytes, limit: int = _MAX_RANGES) -> tuple[InlineRange, ...]:
    """Return the ranges that the annotations `data` of a site emit, at most `limit`. The last one may have no length.

    Such a range is left out, and so are all after damage.
    """
    ranges: list[list[int | None]] = []  # begin, end or None, file, line
    state = _State()
    at = 0
    while at < len(data) and len(ranges) < limit:
        code, at = _number(data, at)
        if not code:
            break
        operand, at = _number(data, at)
        second = 0
        if code == 12:
            second, at = _number(data, at)
        if at > len(data):
            break
        state.run(code, operand, second, ranges)
    return tuple(
        InlineRange(begin, end, file, line)
        for begin, end, file, line in ranges
        if begin is not None and end is not None and line is not None
    )


@dataclass(slots=True)
class _State:
    """The registers of the program."""

    offset: int = 0
    file: int | None = None
    line: int = 0

    def run(self, code: int, operand: int, second: int, ranges: list[list[int | None]]) -> None:
        """Run one step, which may add to `ranges` or end the last of them."""
        if code == 1:
            self.offset = operand
        elif code == 3:
            self.offset += operand
            self._emit(ranges)
        elif code == 4:
            if ranges and ranges[-1][0] is not None:
                ranges[-1][1] = ranges[-1][0] + operand
            self.offset += operand
        elif code == 5:
            self.file = operand
        elif code == 6:
            self.line += _signed(operand)
        elif code == 11:
            self.offset += operand & 15
            self.line += _signed(operand >> 4)
            self._emit(ranges)
        elif code == 12:
            self.offset += second
            self._emit(ranges)
            ranges[-1][1] = self.offset + operand

    def _emit(self, ranges: list[list[int | None]]) -> None:
        if ranges and ranges[-1][1] is None:
            ranges[-1][1] = self.offset
        ranges.append([self.offset, None, self.file, self.line])


def _number(data: bytes, at: int) -> tuple[int, int]:
    """Return the compressed number at `at`, and the offset after it, which is after the end if the number is cut."""
    first = data[at] if at < len(data) else 0
    if first < 0x80:
        return first, at + 1
    if first < 0xC0:
        return int.from_bytes(data[at : at + 2], "big") & 0x3FFF, at + 2
    return int.from_bytes(data[at : at + 4], "big") & 0x1FFFFFFF, at + 4


def _signed(number: int) -> int:
    return -(number >> 1) if number & 1 else number >> 1
