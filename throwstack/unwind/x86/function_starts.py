# SPDX-License-Identifier: Apache-2.0
"""Guesses where the functions of an image begin, for images without full symbols.

A function is taken to begin at the target of a direct call, at a prologue, after padding, where a word of the image's
data points to code, and at an export. If a PDB or another full symbol table names the functions, its starts are used
instead.
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_right
from collections.abc import Iterator
from itertools import islice

from throwstack.core.budgets import Meter
from throwstack.core.memory import PAGE_SIZE
from throwstack.core.stack_words import CodeRanges, pages_between
from throwstack.images.image import Image, Section
from throwstack.unwind.x86.code import Code

_MAX_SECTION = 64 << 20
_MAX_TRIES = 12
_MAX_DISTANCE = 0x10000
_CALL = re.compile(rb"\xe8", re.DOTALL)
# `mov edi, edi; push ebp; mov ebp, esp` anywhere, or `push ebp; mov ebp, esp` after a return or padding.
_PROLOGUE = re.compile(rb"\x8b\xff\x55\x8b\xec|(?<=[\xc3\xcc\x90\x00])\x55(?:\x8b\xec|\x89\xe5)", re.DOTALL)
_AFTER_PADDING = re.compile(rb"(?<=[\xcc\x90])[^\xcc\x90\x00]", re.DOTALL)


class FunctionStarts:
    """Finds possible starts of functions. A section of an image is searched when it is first asked about."""

    __slots__ = ("_code", "_known", "_meter")

    def __init__(self, code: Code, meter: Meter | None = None) -> None:
        """`code` is the address space's code, whose images are searched for function starts.

        `meter` counts the positions in the images that are examined, against the budget for function starts. Without
        one, this object counts for itself.
        """
        self._code = code
        self._meter = Meter() if meter is None else meter
        self._known: dict[tuple[int, int], list[int]] = {}

    def guesses(self, address: int) -> Iterator[int]:
        """Yield possible starts of the function that contains `address`, from the nearest one downwards."""
        starts = self._of_section(address)
        index = bisect_right(starts, address)
        export = self._code.symbols.function_start(address)
        for start in reversed(starts[max(index - _MAX_TRIES, 0) : index]):
            if address - start > _MAX_DISTANCE:
                break
            if export is not None and start < export:
                yield export
                export = None
            if start == export:
                export = None
            yield start
        if export is not None:
            yield export

    def nearest(self, address: int) -> int | None:
        """Return the nearest possible function start at or before `address`, or None."""
        return next(self.guesses(address), None)

    def _of_section(self, address: int) -> list[int]:
        image = self._code.images.find(address)
        headers = None if image is None else image.headers
        if image is None or headers is None:
            return []
        section = headers.section_at(address - image.base)
        if section is None:
            return []
        key = (image.base, section.rva)
        if key not in self._known:
            data = [other for other in headers.sections if not other.is_executable]
            self._known[key] = _collect(image, section, data, self._meter)
        return self._known[key]


def _collect(image: Image, section: Section, data: list[Section], meter: Meter) -> list[int]:
    """Return the possible function starts of `section` in ascending order.

    `image` is the image of the section. `data` are those of its sections that are searched for pointers to code.
    `meter` counts the positions that are examined. If its budget is spent, some starts are missing.
    """
    first = image.base + section.rva
    end = min(first + section.size, image.base + image.module.size)
    found: set[int] = set()
    for start, code in _contents(image, section):
        for match in _places(meter, _CALL, code, len(code) - 4):
            (distance,) = struct.unpack_from("<i", code, match.end())
            target = start + match.end() + 4 + distance
            if first <= target < end:
                found.add(target)
        found.update(start + match.start() for match in _places(meter, _PROLOGUE, code, len(code)))
        aligned = (start + match.start() for match in _places(meter, _AFTER_PADDING, code, len(code)))
        found.update(address for address in aligned if (address - first) % 16 == 0)
    # Tables of pointers to code: virtual functions, callbacks, imports from the image itself.
    inside = CodeRanges([(first, end - 1)], 4)
    for other in data:
        found.update(_words(image, other, inside, meter))
    return sorted(found)


def _places(meter: Meter, pattern: re.Pattern[bytes], code: bytes, end: int) -> Iterator[re.Match[bytes]]:
    left = meter.left(meter.budgets.starts)
    count = 0
    for count, match in enumerate(islice(pattern.finditer(code, 0, end), left + 1), 1):
        if count <= left:
            yield match
    meter.take(meter.budgets.starts, count)


def _words(image: Image, section: Section, inside: CodeRanges, meter: Meter) -> Iterator[int]:
    """Yield the words of a section whose values are in the ranges `inside`, until the budget of `meter` is spent."""
    if section.size > _MAX_SECTION:
        return
    first = image.base + section.rva
    for address, page in pages_between(image.memory, first, first + section.size):
        if page is None or inside.is_known(page):
            continue
        offsets = inside.offsets(page)
        if meter.take(meter.budgets.starts, 1 + len(offsets)) <= len(offsets):
            return
        for offset in offsets:
            if first <= address + offset < first + section.size:
                yield from struct.unpack_from("<I", page, offset)


def _contents(image: Image, section: Section) -> Iterator[tuple[int, bytes]]:
    """Yield (address, bytes) for each readable part of a section, and nothing if the section is too large."""
    if section.size > _MAX_SECTION:
        return
    address = image.base + section.rva
    end = min(address + section.size, image.base + image.module.size)
    while address < end:
        part = image.memory.read_available(address, end - address)
        if part:
            yield address, part
        address = (address + len(part) + PAGE_SIZE) & -PAGE_SIZE
