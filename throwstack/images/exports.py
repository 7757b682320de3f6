# SPDX-License-Identifier: Apache-2.0
"""Parses the export directory of an image, some of whose pages may be absent. Follows the PE/COFF specification.

An entry is made of four parts: the function's address, the pointer to its name, its ordinal, and the name. If one of
these parts is on an absent page, the entry is left out, and `Exports` records what may be missing.

Absent pages are not read as zeros, for this reason: the table of ordinals maps the n-th name to an index of the table
of addresses. A page of zeros there would map 2,048 names to index 0, so that the first function of the DLL would get
all these names.

All tables and names have to be inside the directory, where linkers put them, and all addresses inside the image.
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
"""IMAGE_EXPORT_DIRECTORY from Name on: Name, Base, numbers of functions and names, RVAs of the three tables."""
_MAX_ENTRIES = 1 << 16
"""Ordinals have 16 bits."""
_MAX_NAME = 4096
_NAME = re.compile(rb"[!-~]*")
"""Linkers write names in printable ASCII without spaces."""
_LAST = chr(0x10FFFF)
"""A name that sorts after all other names."""


@dataclass(frozen=True, slots=True)
class Export:
    """One export of an image.

    `forwarder` is `DLL.Name` if the entry forwards to another DLL, else None; a forwarder's `rva` is not that of code.
    An export without a name gets a name like `Ordinal12`, as in debuggers, and so does an export whose name cannot be
    read. The latter must not be left out: an address is named after the nearest export before it, so the addresses in
    that function would get the name of the function before it.
    """

    rva: int
    name: str
    forwarder: str | None = None


class Exports:
    """The exports of an image, sorted by RVA, and what may be missing; at one RVA, exports with a name come first."""

    __slots__ = ("_derived", "_entries", "_gaps", "has_all_starts")

    def __init__(
        self, entries: Sequence[Export], gaps: Sequence[tuple[str, str]] = (), *, has_all_starts: bool = True
    ) -> None:
        """`entries` are the exports that could be read.

        Each of `gaps` is a pair (first, last) of names: exports whose names sort between these two may be missing.
        `has_all_starts` says whether the addresses of all functions could be read. If it is True, no unknown exported
        function begins between two entries.
        """
        self._entries = tuple(entries)
        self._gaps = tuple(gaps)
        self.has_all_starts = has_all_starts
        self._derived: dict[object, Any] = {}

    def __iter__(self) -> Iterator[Export]:
        """Yield the exports."""
        return iter(self._entries)

    def __len__(self) -> int:
        """Return the number of exports that could be read."""
        return len(self._entries)

    @property
    def is_whole(self) -> bool:
        """Say whether all exports could be read."""
        return self.has_all_starts and not self._gaps

    def may_lack(self, name: str) -> bool:
        """Say whether `name`, which is not the name of an entry, may be that of an export that could not be read."""
        return any(first <= name <= last for first, last in self._gaps)

    def derived(self, make: Callable[[Exports], T]) -> T:
        """Return `make(self)`. The result is computed once for all images that share this object."""
        if make not in self._derived:
            self._derived[make] = make(self)
        value: T = self._derived[make]
        return value


NO_EXPORTS = Exports(())
UNKNOWN_EXPORTS = Exports((), [("", _LAST)], has_all_starts=False)
"""The exports of an image whose headers or IMAGE_EXPORT_DIRECTORY cannot be read: none is known, any may be missing."""


def parse_exports(directory: tuple[int, int], pages: Sequence[bytes | None], limit: int) -> Exports:
    """Parse the export directory of an image; `directory` is its RVA and size.

    `pages` are the directory's pages, beginning with the page that holds its RVA; an absent page is None. Entries whose
    RVA is not below `limit`, the size of the image, are left out.
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
    """Return a pair of names for each row of unknown names (None) in `names`: the known name before and after the row.

    The table of names is sorted, as the loader bisects it, so the unknown names sort between these two. If the two are
    out of order, the pair covers all names.
    """
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
    """The bytes of an export directory, some of which may be absent."""

    def __init__(self, directory: tuple[int, int], pages: Sequence[bytes | None]) -> None:
        self._low, size = directory
        self._high = self._low + size
        self._first = self._low // PAGE_SIZE
        self._pages = pages
        self._names: dict[int, str | None] = {}
        self._letters_left = size
        """Letters of names still to be read. Linkers' names do not overlap: together they fit into the directory."""

    def read(self, rva: int, size: int) -> bytes | None:
        """Return the bytes at `rva`; None if one of them is outside the directory or absent."""
        if not self._low <= rva <= self._high - size:
            return None
        index, offset = rva // PAGE_SIZE - self._first, rva % PAGE_SIZE
        page = self._pages[index]
        if page is None or offset + size <= PAGE_SIZE:
            return None if page is None else page[offset : offset + size]
        rest = self._pages[index + 1]
        return None if rest is None else page[offset:] + rest[: offset + size - PAGE_SIZE]

    def words(self, rva: int, count: int, form: str) -> Iterator[int | None]:
        """Yield the `count` words of the table at `rva`, None for an absent one; `form` is a word's struct format.

        Words beyond the end of the directory are left out.
        """
        word = struct.Struct(form)
        fitting = max(self._high - rva, 0) // word.size if rva >= self._low else 0
        for at in range(rva, rva + min(count, fitting, _MAX_ENTRIES) * word.size, word.size):
            data = self.read(at, word.size)
            yield None if data is None else word.unpack(data)[0]

    def text(self, rva: int) -> str | None:
        """Return the zero-terminated name at `rva`; "" if the bytes cannot be a name, None if some are absent."""
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
        """Return the `DLL.Name` to which the entry with the address `rva` forwards; None if `rva` is that of code.

        An entry forwards if its address is inside the export directory, where a name is and not code. The result is ""
        if that name cannot be read.
        """
        return (self.text(rva) or "") if self._low <= rva < self._high else None
