# SPDX-License-Identifier: Apache-2.0
"""What an image exports, as far as the pages of its export directory can be read. Follows the PE/COFF specification.

The directory is read in place, word by word: an entry of which one word (address, name pointer, ordinal, a letter of
the name) is on a page that is not there is left out, and what may be missing is known. Zeros in place of such a page
would be ordinals 0, which hang the names of all these entries on the first function. All tables and strings have to be
in the directory, where linkers put them; all addresses in the image.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from throwstack.core.memory import PAGE_SIZE

T = TypeVar("T")

_DIRECTORY = struct.Struct("<12xII5I")
"""Its members from Name on: Name, Base, how many functions and names there are, and the RVAs of the three tables."""
_MAX_ENTRIES = 1 << 16
"""Ordinals are words of 16 bits."""
_MAX_NAME = 4096
_NAME = re.compile(rb"[!-~]*")
"""Linkers write printable ASCII without spaces."""
_LAST = chr(0x10FFFF)


@dataclass(frozen=True, slots=True)
class Export:
    """An export: RVA, name, and `DLL.Name` where the entry forwards elsewhere (then `rva` is not code).

    One that has no name, only an ordinal, is called `Ordinal12`, as debuggers do. So is one whose name cannot be read:
    its ordinal is known all the same, and without it what follows would have the name of the function before.
    """

    rva: int
    name: str
    forwarder: str | None = None


class Exports:
    """The exports of an image in RVA order, named ones first, and what can be told of those that cannot be read."""

    __slots__ = ("_derived", "_entries", "_gaps", "has_all_starts")

    def __init__(
        self, entries: Sequence[Export], gaps: Sequence[tuple[str, str]] = (), *, has_all_starts: bool = True
    ) -> None:
        """Take the entries, and `gaps`: (first, last) names between which there can be names that were not read.

        `has_all_starts`: every function's address could be read, so that none begins unseen between two of them.
        """
        self._entries = tuple(entries)
        self._gaps = tuple(gaps)
        self.has_all_starts = has_all_starts
        self._derived: dict[object, Any] = {}

    def __iter__(self) -> Iterator[Export]:
        """Yield the exports."""
        return iter(self._entries)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._entries)

    @property
    def is_whole(self) -> bool:
        """Say whether nothing of them was on a page that is not there."""
        return self.has_all_starts and not self._gaps

    def may_lack(self, name: str) -> bool:
        """Say whether `name`, which is not among them, may be exported all the same."""
        return any(first <= name <= last for first, last in self._gaps)

    def derived(self, make: Callable[[Exports], T]) -> T:
        """Return `make` of these exports, made once for all images that share them."""
        if make not in self._derived:
            self._derived[make] = make(self)
        value: T = self._derived[make]
        return value


NO_EXPORTS = Exports(())
UNKNOWN_EXPORTS = Exports((), [("", _LAST)], has_all_starts=False)
"""Of an image whose headers, or whose directory's head, cannot be read."""


def parse_exports(directory: tuple[int, int], pages: Sequence[bytes | None], limit: int) -> Exports:
    """Return the exports in the directory (RVA, size), whose `pages` are those from the RVA's own page on.

    None is a page that is not there. Entries at or beyond RVA `limit`, the image's size, are left out.
    """
    view = _View(directory, pages)
    head = view.read(directory[0], _DIRECTORY.size)
    if head is None:
        return UNKNOWN_EXPORTS
    _, base, functions, names, functions_at, names_at, ordinals_at = _DIRECTORY.unpack(head)
    starts = list(view.words(functions_at, functions, "<I"))
    entries: list[Export] = []
    named: set[int] = set()
    read: list[str | None] = []
    for pointer, ordinal in zip(view.words(names_at, names, "<I"), view.words(ordinals_at, names, "<H"), strict=False):
        name = None if pointer is None else view.text(pointer)
        start = starts[ordinal] if ordinal is not None and ordinal < len(starts) else None
        is_known = name is not None and (start is not None or (ordinal is not None and ordinal >= len(starts)))
        read.append(name if is_known else None)
        if name and start:
            named.add(ordinal or 0)
            entries.append(Export(start, name, view.forwarder(start)))
    entries += [
        Export(start, f"Ordinal{base + ordinal}", view.forwarder(start))
        for ordinal, start in enumerate(starts)
        if start and ordinal not in named
    ]
    inside = sorted((entry for entry in entries if entry.rva < limit), key=lambda entry: entry.rva)
    gaps = _gaps(read) if len(read) == names else [("", _LAST)]
    return Exports(inside, gaps, has_all_starts=len(starts) == functions and None not in starts)


def _gaps(names: Sequence[str | None]) -> list[tuple[str, str]]:
    """Return between which names there are others that are not known: the loader wants the table sorted."""
    if None not in names:
        return []
    gaps = []
    before, is_open = "", False
    for name in (*names, _LAST):
        if name is None:
            is_open = True
            continue
        if is_open:
            gaps.append((before, name) if before <= name else ("", _LAST))
        before, is_open = name, False
    return gaps


class _View:
    """An export directory's bytes, some of which are not there."""

    def __init__(self, directory: tuple[int, int], pages: Sequence[bytes | None]) -> None:
        self._low, size = directory
        self._high = self._low + size
        self._first = self._low // PAGE_SIZE
        self._pages = pages
        self._names: dict[int, str | None] = {}
        self._letters_left = size
        """Names do not overlap in a directory that a linker made: together they are no longer than it."""

    def read(self, rva: int, size: int) -> bytes | None:
        """Return the bytes at `rva`, or None if one of them is not in the directory or not there."""
        if not self._low <= rva <= self._high - size:
            return None
        index, offset = rva // PAGE_SIZE - self._first, rva % PAGE_SIZE
        page = self._pages[index]
        if page is None or offset + size <= PAGE_SIZE:
            return None if page is None else page[offset : offset + size]
        rest = self._pages[index + 1]
        return None if rest is None else page[offset:] + rest[: offset + size - PAGE_SIZE]

    def words(self, rva: int, count: int, form: str) -> Iterator[int | None]:
        """Yield the words of a table, None for each that is not there; those outside the directory not at all."""
        word = struct.Struct(form)
        fitting = max(self._high - rva, 0) // word.size if rva >= self._low else 0
        for at in range(rva, rva + min(count, fitting, _MAX_ENTRIES) * word.size, word.size):
            data = self.read(at, word.size)
            yield None if data is None else word.unpack(data)[0]

    def text(self, rva: int) -> str | None:
        """Return the zero-terminated name at `rva`; "" if there can be none, None if a part of it is not there."""
        if rva not in self._names:
            self._names[rva] = self._text(rva)
        return self._names[rva]

    def _text(self, rva: int) -> str | None:
        letters = bytearray()
        room = min(_MAX_NAME, self._letters_left)
        while self._low <= rva < self._high and len(letters) < room:
            page, offset = self._pages[rva // PAGE_SIZE - self._first], rva % PAGE_SIZE
            if page is None:
                return None
            end = page.find(b"\0", offset, min(offset + room - len(letters), PAGE_SIZE))
            letters += page[offset:end] if end >= 0 else page[offset : offset + room - len(letters)]
            if end >= 0:
                self._letters_left -= len(letters)
                return letters.decode("ascii") if _NAME.fullmatch(letters) else ""
            rva += PAGE_SIZE - offset
        return ""

    def forwarder(self, rva: int) -> str | None:
        """Return the target of an entry that forwards ("" where it cannot be read), None for any other."""
        return (self.text(rva) or "") if self._low <= rva < self._high else None
