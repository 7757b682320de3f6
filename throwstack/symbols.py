# SPDX-License-Identifier: Apache-2.0
"""Names for addresses: symbol tables of modules, looked up both ways.

A module's table comes from whoever has one (`SymbolSource`: an ISF file, a PDB) and otherwise from its exports. The
table that named an address is part of the answer, because a nearest export is a hint and a PDB's function a fact.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from throwstack.images import Image, ImageMap


class SymbolKind(Enum):
    """Where a module's names come from, best first."""

    PDB = "pdb"
    ISF = "isf"
    EXPORT = "export"


class SymbolTable:
    """The code symbols of one image: names by RVA, RVAs by name."""

    __slots__ = ("_by_name", "_names", "_rvas", "kind")

    def __init__(self, kind: SymbolKind, symbols: Iterable[tuple[int, str]]) -> None:
        """Take (RVA, name) pairs in any order; of several names at one RVA the first is kept for display."""
        self.kind = kind
        by_rva: dict[int, str] = {}
        self._by_name: dict[str, int] = {}
        for rva, name in symbols:
            by_rva.setdefault(rva, name)
            self._by_name.setdefault(name, rva)
        self._rvas = sorted(by_rva)
        self._names = [by_rva[rva] for rva in self._rvas]

    def __len__(self) -> int:
        """Return the number of distinct RVAs."""
        return len(self._rvas)

    def nearest(self, rva: int) -> tuple[str, int] | None:
        """Return the name at or before `rva` and the RVA at which it stands, or None."""
        index = bisect_right(self._rvas, rva) - 1
        return (self._names[index], self._rvas[index]) if index >= 0 else None

    def next_after(self, rva: int) -> int | None:
        """Return the RVA of the first symbol after `rva`, or None."""
        index = bisect_left(self._rvas, rva + 1)
        return self._rvas[index] if index < len(self._rvas) else None

    def rva_of(self, name: str) -> int | None:
        """Return the RVA of the symbol called `name`, or None."""
        return self._by_name.get(name)


SymbolSource = Callable[[Image], "SymbolTable | None"]


@dataclass(frozen=True, slots=True)
class Name:
    """A named address: `KERNEL32!RaiseException+0x53`, `KERNEL32+0x1234` or a bare address."""

    address: int
    module: str = ""
    symbol: str = ""
    offset: int = 0
    kind: SymbolKind | None = None
    source: str = ""
    """File and line, `d:\\src\\file.cpp @ 860`, where the symbols give it."""

    def __str__(self) -> str:
        """Return it as WinDbg prints it."""
        if not self.module:
            return f"0x{self.address:x}"
        label = f"{self.module}!{self.symbol}" if self.symbol else self.module
        return f"{label}+0x{self.offset:x}" if self.offset else label


class Symbols:
    """Names for the addresses of one address space."""

    __slots__ = ("_source", "_tables", "images")

    def __init__(self, images: ImageMap, source: SymbolSource | None = None) -> None:
        """Name what lies in `images`; `source` is asked once per image, before its exports are."""
        self.images = images
        self._source = source
        self._tables: dict[int, SymbolTable] = {}

    def table(self, image: Image) -> SymbolTable:
        """Return the symbol table of `image` (an empty one if it has no names at all)."""
        table = self._tables.get(image.base)
        if table is None:
            given = self._source(image) if self._source is not None else None
            table = given if given is not None else export_table(image)
            self._tables[image.base] = table
        return table

    def name(self, address: int, *, is_return_address: bool = False) -> Name:
        """Name `address`.

        A return address is looked up at the call before it: a call that never returns may be a function's last
        instruction, and its return address then lies in the next function. The offset still counts to `address`.
        """
        image = self.images.find(address)
        if image is None:
            return Name(address)
        probe = address - image.base - (1 if is_return_address and address > image.base else 0)
        found = self.table(image).nearest(probe)
        if found is None:
            return Name(address, image.module.label, "", address - image.base)
        symbol, rva = found
        return Name(address, image.module.label, symbol, address - image.base - rva, self.table(image).kind)

    def function_start(self, address: int, *, is_return_address: bool = False) -> int | None:
        """Return the address of the symbol at or before `address` in the same module and section, or None."""
        image = self.images.find(address)
        if image is None:
            return None
        probe = address - image.base - (1 if is_return_address else 0)
        found = self.table(image).nearest(probe)
        if found is None:
            return None
        start = found[1]
        headers = image.headers
        if headers is not None and headers.section_at(start) is not headers.section_at(probe):
            return None
        return image.base + start

    def find(self, name: str) -> Iterator[tuple[Image, int]]:
        """Yield every image that has a symbol `name`, with the symbol's address."""
        for image in self.images:
            rva = self.table(image).rva_of(name)
            if rva is not None:
                yield image, image.base + rva


def export_table(image: Image) -> SymbolTable:
    """Return the names an image exports, without those that only forward to another image."""
    return SymbolTable(
        SymbolKind.EXPORT, ((export.rva, export.name) for export in image.exports if export.forwarder is None)
    )
