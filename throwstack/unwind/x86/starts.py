# SPDX-License-Identifier: Apache-2.0
"""Where functions begin: symbols, targets of direct calls, and code that follows padding."""

from __future__ import annotations

import re
import struct
from bisect import bisect_right
from collections.abc import Iterator

from throwstack.images import Image, Section
from throwstack.memory import PAGE_SIZE
from throwstack.unwind.x86.code import Code

_MAX_SECTION = 64 << 20
_MAX_TRIES = 12
_MAX_DISTANCE = 0x10000
_CALL = re.compile(rb"\xe8", re.DOTALL)
# `mov edi, edi; push ebp; mov ebp, esp`, or `push ebp; mov ebp, esp` behind a return or padding.
_PROLOGUE = re.compile(rb"\x8b\xff\x55\x8b\xec|(?<=[\xc3\xcc\x90\x00])\x55(?:\x8b\xec|\x89\xe5)", re.DOTALL)
_AFTER_PADDING = re.compile(rb"(?<=[\xcc\x90])[^\xcc\x90\x00]", re.DOTALL)


class Starts:
    """Function starts of every image, collected for an image when it is first asked for."""

    __slots__ = ("_code", "_known")

    def __init__(self, code: Code) -> None:
        """Look for function starts in `code`."""
        self._code = code
        self._known: dict[tuple[int, int], list[int]] = {}

    def guesses(self, address: int) -> Iterator[int]:
        """Yield possible starts of the function that holds `address`, nearest first."""
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
        headers = image.headers if image is not None else None
        section = headers.section_at(address - image.base) if image is not None and headers is not None else None
        if image is None or section is None:
            return []
        key = (image.base, section.rva)
        if key not in self._known:
            data = [other for other in headers.sections if not other.is_executable] if headers is not None else []
            self._known[key] = _collect(image, section, data)
        return self._known[key]


def _collect(image: Image, section: Section, data: list[Section]) -> list[int]:
    first = image.base + section.rva
    found: set[int] = set()
    for start, code in _contents(image, section):
        for match in _CALL.finditer(code, 0, max(len(code) - 4, 0)):
            target = start + match.end() + 4 + struct.unpack_from("<i", code, match.end())[0]
            if first <= target < first + section.size:
                found.add(target)
        found.update(start + match.start() for match in _PROLOGUE.finditer(code))
        aligned = (start + match.start() for match in _AFTER_PADDING.finditer(code))
        found.update(address for address in aligned if (address - first) % 16 == 0)
    # Tables of pointers to code: virtual functions, callbacks, imports from the image itself.
    for other in data:
        for start, part in _contents(image, other):
            words = part[-start & 3 :]
            for (word,) in struct.iter_unpack("<I", words[: len(words) & ~3]):
                if first <= word < first + section.size:
                    found.add(word)
    return sorted(found)


def _contents(image: Image, section: Section) -> Iterator[tuple[int, bytes]]:
    """Yield (address, bytes) of each part of a section that can be read."""
    if section.size > _MAX_SECTION:
        return
    address = image.base + section.rva
    end = min(address + section.size, image.base + image.module.size)
    while address < end:
        part = image.memory.read_available(address, end - address)
        if part:
            yield address, part
        address = (address + len(part) + PAGE_SIZE) & -PAGE_SIZE
