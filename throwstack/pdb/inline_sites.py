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


class InlineLine(NamedTuple):
    """Where code of an inlined function is from.

    `file` is None for the file in which the function begins. `line` counts from the line where it begins.
    """

    file: int | None
    line: int


class InlineSite(NamedTuple):
    """One call that was inlined. `depth` is 1 if it was in the function itself, 2 if in a function inlined there.

    `id` is the number of the inlined function, and `annotations` say which code is from it.
    """

    depth: int
    id: int
    annotations: bytes


@dataclass(frozen=True, slots=True)
class InlineSites:
    """All sites of one function, in the order of its records: a site is after the one that it is in."""

    sites: tuple[InlineSite, ...] = ()

    @property
    def kept_bytes(self) -> int:
        """Return about how many bytes of memory this takes."""
        return 128 + 160 * len(self.sites) + sum(len(site.annotations) for site in self.sites)

    def at(self, offset: int) -> list[tuple[InlineSite, InlineLine]]:
        """Return the sites that have the byte at `offset` of the function, each in the one before it.

        A site without that byte has no site in it that has the byte.
        """
        chain: list[tuple[InlineSite, InlineLine]] = []
        reached = 0  # how many sites around the next one have the byte
        for site in self.sites:
            depth = site.depth
            if depth <= reached:
                reached = depth - 1
            if depth == reached + 1:
                found = line_at(site.annotations, offset)
                if found is not None:
                    chain[reached:] = [(site, found)]
                    reached = depth
        return chain


def read_sites(body: bytes) -> InlineSites:
    """Return the sites in the records of a function. What is damaged is left out."""
    if not any(kind.to_bytes(2, "little") in body for kind in _ANNOTATIONS_AT):
        return InlineSites()
    sites: list[InlineSite] = []
    depth, at, end, head = 0, 0, len(body), _RECORD.unpack_from
    while at + _RECORD.size <= end:
        length, kind = head(body, at)
        following = at + 2 + length
        if length < 2 or following > end:
            break
        if kind in _ANNOTATIONS_AT:
            depth += 1
            if depth > _MAX_DEPTH or len(sites) >= _MAX_SITES:
                break
            number = int.from_bytes(body[at + _ID_AT : at + _ID_AT + 4], "little")
            sites.append(InlineSite(depth, number, body[at + _ANNOTATIONS_AT[kind] : following]))
        elif kind == _S_INLINESITE_END:
            depth = max(0, depth - 1)
        at = following
    return InlineSites(tuple(sites))


def line_at(annotations: bytes, wanted: int) -> InlineLine | None:  # noqa: C901, PLR0912 one branch for each code
    """Return where the code at the offset `wanted` of the function is from; None if it is not from this site.

    The last range may have no length. Nothing is in it. Damage ends the program.
    """
    offset = line = 0
    file: int | None = None
    begun: tuple[int, int | None, int] | None = None  # the range that has no end yet: its begin, file and line
    # Numbers below 128 are one byte each, and mostly there are no others.
    numbers = iter(annotations) if annotations.isascii() else _numbers(annotations)
    only_forward = _OFFSET not in annotations  # nothing sets the offset back
    for code in numbers:
        operand = next(numbers, None)
        if not code or operand is None:
            break
        if code == _LINE:
            line += _signed(operand)
        elif code == _LENGTH:
            if begun is not None and begun[0] <= wanted < begun[0] + operand:
                return InlineLine(begun[1], begun[2])
            begun = None
            offset += operand
        elif code in _EMITTING:
            length = 0
            if code == _ADVANCE_BOTH:
                advance = operand & 15
                line += _signed(operand >> 4)
            elif code == _LENGTH_AND_ADVANCE:
                length, advance = operand, next(numbers, 0)
            else:
                advance = operand
            offset += advance
            if begun is not None and begun[0] <= wanted < offset:
                return InlineLine(begun[1], begun[2])
            if length and offset <= wanted < offset + length:
                return InlineLine(file, line)
            if offset > wanted and only_forward:
                break
            begun = None if length else (offset, file, line)
        elif code == _FILE:
            file = operand
        elif code == _OFFSET:
            offset = operand
    return None


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
