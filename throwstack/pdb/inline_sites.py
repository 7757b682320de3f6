# SPDX-License-Identifier: Apache-2.0
"""Reads where other functions were inlined into a function: S_INLINESITE and its annotations.

Follows `cvinfo.h` of Microsoft's microsoft-pdb (`CodeViewAnnotation`). The annotations of a site are a little program.
It has registers for offset in the function, file and line, and each step emits a range of code with its file and line.
Numbers are compressed to 1, 2 or 4 bytes.

What other descriptions leave open was found by comparing with Microsoft's and LLVM's own readers. The length that comes
with code 12 does not advance the offset, while that of code 4 does. A range without a length reaches to the next one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

_RECORD = struct.Struct("<HH")
_S_INLINESITE, _S_INLINESITE2, _S_INLINESITE_END = 0x114D, 0x115D, 0x114E
_ID_AT = 12
_ANNOTATIONS_AT = {_S_INLINESITE: 16, _S_INLINESITE2: 20}
_OFFSET, _ADVANCE, _LENGTH, _FILE, _LINE, _ADVANCE_BOTH, _LENGTH_AND_ADVANCE = 1, 3, 4, 5, 6, 11, 12
_EMITTING = frozenset({_ADVANCE, _ADVANCE_BOTH, _LENGTH_AND_ADVANCE})
_MAX_SITES = 1 << 16
_MAX_DEPTH = 256
_MAX_RANGES = 1 << 16


class InlineRange(NamedTuple):
    """A range of code from an inlined function: offsets in the function around it, file and line relative to the site.

    `file` is None for the file in which the inlined function begins. `line` counts from the line where it begins.
    """

    begin: int
    end: int
    file: int | None
    line: int


class InlineSite(NamedTuple):
    """One call that was inlined. `depth` is 1 if it was in the function itself, 2 if in a function inlined there."""

    depth: int
    id: int
    ranges: list[InlineRange]

    def at(self, offset: int) -> InlineRange | None:
        """Return the range that has the byte at `offset` of the function, or None."""
        for found in self.ranges:
            if found[0] <= offset < found[1]:
                return found
        return None


@dataclass(frozen=True, slots=True)
class InlineSites:
    """All sites of one function, in the order of its records: a site is after the one that it is in."""

    sites: tuple[InlineSite, ...] = ()

    @property
    def kept_bytes(self) -> int:
        """Return about how many bytes of memory this takes."""
        return 128 + sum(150 + 150 * len(site.ranges) for site in self.sites)

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
    depth, left, at, end = 0, _MAX_RANGES, 0, len(body)
    while at + _RECORD.size <= end:
        length, kind = _RECORD.unpack_from(body, at)
        following = at + 2 + length
        if length < 2 or following > end:
            break
        if kind in _ANNOTATIONS_AT:
            depth += 1
            if depth > _MAX_DEPTH or len(sites) >= _MAX_SITES or left <= 0:
                break
            ranges = read_annotations(body[at + _ANNOTATIONS_AT[kind] : following], left)
            left -= len(ranges)
            sites.append(InlineSite(depth, int.from_bytes(body[at + _ID_AT : at + _ID_AT + 4], "little"), ranges))
        elif kind == _S_INLINESITE_END:
            depth -= 1
        at = following
    return InlineSites(tuple(sites))


def read_annotations(data: bytes, limit: int = _MAX_RANGES) -> list[InlineRange]:  # noqa: C901, PLR0912 a code each
    """Return the ranges that the annotations `data` of a site emit, at most `limit`.

    The last one may have no length. Such a range is left out, and so are all after damage.
    """
    ranges: list[InlineRange] = []
    offset = line = 0
    file: int | None = None
    begun: tuple[int, int | None, int] | None = None  # the range that has no end yet: its begin, file and line
    numbers = _numbers(data)
    for code, operand in zip(numbers, numbers, strict=False):
        if code == 0 or len(ranges) >= limit:
            break
        length = 0
        if code == _OFFSET:
            offset = operand
        elif code == _FILE:
            file = operand
        elif code == _LINE:
            line += _signed(operand)
        elif code == _LENGTH:
            if begun is not None:
                ranges.append(InlineRange(begun[0], begun[0] + operand, begun[1], begun[2]))
                begun = None
            offset += operand
        elif code in _EMITTING:
            if code == _ADVANCE_BOTH:
                advance = operand & 15
                line += _signed(operand >> 4)
            elif code == _LENGTH_AND_ADVANCE:
                length, advance = operand, next(numbers, 0)
            else:
                advance = operand
            offset += advance
            if begun is not None:
                ranges.append(InlineRange(begun[0], offset, begun[1], begun[2]))
            begun = offset, file, line
            if length:
                ranges.append(InlineRange(offset, offset + length, file, line))
                begun = None
    return ranges


def _numbers(data: bytes) -> Iterator[int]:
    """Yield the compressed numbers in `data`, up to one that is cut."""
    at, end = 0, len(data)
    while at < end:
        first = data[at]
        if first < 0x80:
            yield first
            at += 1
        elif first < 0xC0:
            if at + 2 > end:
                return
            yield (first & 0x3F) << 8 | data[at + 1]
            at += 2
        else:
            if at + 4 > end:
                return
            yield int.from_bytes(data[at : at + 4], "big") & 0x1FFFFFFF
            at += 4


def _signed(number: int) -> int:
    return -(number >> 1) if number & 1 else number >> 1
