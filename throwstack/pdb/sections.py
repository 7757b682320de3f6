# SPDX-License-Identifier: Apache-2.0
"""Translates between RVAs and the addresses of a PDB: number of the section, from 1, and offset in it.

The PDB has the section headers of the image (IMAGE_SECTION_HEADER of the PE format), 40 bytes each.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from dataclasses import dataclass

_HEADER = struct.Struct("<8sII24x")
_MAX_SECTIONS = 1 << 15
MAX_HEADERS = _MAX_SECTIONS * _HEADER.size


@dataclass(frozen=True, slots=True)
class SectionRange:
    """A section of the image: where it starts, and its length in bytes."""

    name: str
    rva: int
    size: int


class SectionTable:
    """The sections of an image, as its PDB knows them."""

    __slots__ = ("_order", "_sections", "_starts")

    def __init__(self, headers: bytes) -> None:
        """`headers` are the section headers, one after the other."""
        whole = headers[: min(len(headers) // _HEADER.size, _MAX_SECTIONS) * _HEADER.size]
        self._sections = [
            SectionRange(name.rstrip(b"\0").decode("latin-1"), rva, size)
            for name, size, rva in _HEADER.iter_unpack(whole)
        ]
        self._order = sorted(range(len(self._sections)), key=lambda index: self._sections[index].rva)
        self._starts = [self._sections[index].rva for index in self._order]

    def section(self, number: int) -> SectionRange | None:
        """Return section `number`, counted from 1, or None if there is none."""
        return self._sections[number - 1] if 0 < number <= len(self._sections) else None

    def place(self, rva: int) -> tuple[int, int] | None:
        """Return section number and offset of `rva`, or None if it is in no section."""
        index = bisect_right(self._starts, rva) - 1
        if index < 0:
            return None
        number = self._order[index]
        offset = rva - self._sections[number].rva
        return (number + 1, offset) if offset < max(self._sections[number].size, 1) else None

    def rva(self, section: int, offset: int) -> int | None:
        """Return the RVA of the byte at `offset` of `section`, or None if there is no such section."""
        found = self.section(section)
        return None if found is None else found.rva + offset
