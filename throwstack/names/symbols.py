# SPDX-License-Identifier: Apache-2.0
"""Names for addresses, and addresses for names, from the symbol tables of modules.

The table of a module comes from a PDB or an ISF file (`SymbolSource`), or else from the module's exports. Each name
says from which kind of table it comes, because a name from a PDB is certain, while the nearest export may be another
function. Methods of .NET have no symbols: their names come from the runtime (`CompiledMethods`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from throwstack.images.exports import Exports
from throwstack.images.image import Image, ImageMap
from throwstack.names.demangle import undecorate
from throwstack.names.frame_records import FrameData
from throwstack.names.function_extent import Certainty, certainty, function_begin
from throwstack.names.located_function import CompiledMethods, FunctionFacts, LocatedFunction


class SymbolKind(Enum):
    """Kinds of symbol tables, best first."""

    PDB = "pdb"
    ISF = "isf"
    CLR = "clr"
    """The runtime of .NET and the metadata of its images."""
    EXPORT = "export"


class SymbolTable:
    """The code symbols of one image, looked up by RVA and by name."""

    __slots__ = ("_by_name", "_names", "_rvas", "has_all_starts", "kind")

    def __init__(self, kind: SymbolKind, symbols: Iterable[tuple[int, str]], *, has_all_starts: bool = True) -> None:
        """`symbols` are (RVA, name) pairs in any order. If an RVA has several names, the first is shown.

        `kind` is the kind of the table. `has_all_starts` is False if the image has more symbols, which could not be
        read. One of these may be nearer to an address than the nearest known symbol.
        """
        self.kind = kind
        self.has_all_starts = has_all_starts
        by_rva: dict[int, str] = {}
        self._by_name: dict[str, int] = {}
        for rva, name in symbols:
            by_rva.setdefault(rva, name)
            self._by_name.setdefault(name, rva)
        self._rvas = sorted(by_rva)
        self._names = [by_rva[rva] for rva in self._rvas]

    def __len__(self) -> int:
        """Return the number of distinct RVAs that have a symbol."""
        return len(self._rvas)

    def nearest(self, rva: int) -> tuple[str, int] | None:
        """Return name and RVA of the last symbol at or before `rva`, or None."""
        index = bisect_right(self._rvas, rva) - 1
        return (self._names[index], self._rvas[index]) if index >= 0 else None

    def next_after(self, rva: int) -> int | None:
        """Return the RVA of the first symbol after `rva`, or None."""
        index = bisect_right(self._rvas, rva)
        return self._rvas[index] if index < len(self._rvas) else None

    def locate(self, rva: int) -> tuple[LocatedFunction, ...]:
        """Return the functions at `rva`. Inlined ones are first, from the innermost outwards.

        This table only knows where functions start. So it returns the function that starts nearest at or before `rva`,
        or nothing if there is none.
        """
        found = self.nearest(rva)
        return () if found is None else (LocatedFunction(undecorate(found[0]), found[1], raw=found[0]),)

    def rva_of(self, name: str) -> int | None:
        """Return the RVA of the symbol called `name`, or None."""
        return self._by_name.get(name)

    def extent_of(self, name: str, longest: int) -> tuple[int, int] | None:  # noqa: ARG002 the table of a PDB uses them
        """Return RVA and size, at most `longest`, of the function `name` if the table of a PDB has it; else None."""
        return None

    @property
    def missing(self) -> str:
        """Return what the table of a PDB lacks that a better file of the same identity would have; "" for nothing."""
        return ""

    def frame_description(self, rva: int) -> FrameData | None:  # noqa: ARG002 the table of a PDB uses it
        """Return the record in a PDB that describes the x86 frame of the function at `rva`, or None."""
        return None


_MAX_NAMES = 1 << 16

SymbolSource = Callable[[Image], "SymbolTable | None"]


@dataclass(frozen=True, slots=True)
class Name:
    """The name of an address. As text it is `KERNEL32!RaiseException+0x53`, `KERNEL32+0x1234`, or the bare address.

    `offset` is the distance in memory from the start of the function. It is negative, `app!parse-0x40`, in a part of
    the function that the linker put before the rest.
    """

    address: int
    module: str = ""
    symbol: str = ""
    offset: int = 0
    kind: SymbolKind | None = None
    source: str = ""
    """File and line, `d:\\src\\file.cpp @ 860`; "" if the symbols do not have them."""
    certainty: Certainty = Certainty.CERTAIN
    """Whether the address is in the named function, or in another one after it that has no symbol."""
    is_inline: bool = False
    """The function was inlined: it has no frame of its own and no offset."""
    raw: str = ""
    """The symbol as its table spells it, decorated perhaps."""
    rva: int | None = field(default=None, compare=False)
    """The offset of the address in its module; None if the symbol is that of an address outside all modules."""
    facts: FunctionFacts | None = field(default=None, compare=False, repr=False)
    reason: str = field(default="", compare=False)
    """Why the name of a managed method is missing or not whole; "" if it is whole, or nothing is known of a method."""

    @property
    def signature(self) -> str:
        """Return the symbol with result, calling convention and parameters; "" if the symbols do not have them."""
        return "" if self.facts is None else self.facts.signature()

    @property
    def others(self) -> tuple[str, ...]:
        """Return further functions with the same code: the linker folded them into one, and any may be meant."""
        return () if self.facts is None else self.facts.others()

    @property
    def is_certain(self) -> bool:
        """Say whether the address is known to be in the named function. Without a symbol it is not."""
        return bool(self.symbol) and self.certainty is Certainty.CERTAIN

    @property
    def is_likely(self) -> bool:
        """Say whether nothing speaks against the name: it may be shown. What decides about a row has to be certain."""
        return bool(self.symbol) and not self.is_doubtful

    @property
    def is_doubtful(self) -> bool:
        """Say whether the address seems to be in another function than the named one."""
        return self.certainty is Certainty.DOUBTFUL

    @property
    def provenance(self) -> str:
        """Return the kind of the symbol's table, `pdb`, `isf` or `export`, with a `?` if the name is doubtful."""
        return "" if self.kind is None else self.kind.value + ("?" if self.is_doubtful else "")

    def __str__(self) -> str:
        """Return the name as WinDbg prints it."""
        if not self.module:
            return f"0x{self.address:x}"
        label = f"{self.module}!{self.symbol}" if self.symbol else self.module
        return f"{label}{'-' if self.offset < 0 else '+'}{abs(self.offset):#x}" if self.offset else label


class Symbols:
    """Finds the names of addresses in one address space, and the addresses of names."""

    __slots__ = ("_compiled", "_fallback", "_name_outside", "_names", "_source", "_tables", "at_hand", "images")

    def __init__(
        self,
        images: ImageMap,
        source: SymbolSource | None = None,
        *,
        fallback: SymbolSource | None = None,
        name_outside: Callable[[int], Name | None] | None = None,
        compiled: CompiledMethods | None = None,
        at_hand: SymbolSource | None = None,
    ) -> None:
        """`images` are the images whose addresses are named.

        For an image, up to three symbol tables are tried, and the first that is not empty is used: the one that
        `source` returns (`first_of` joins several sources), the image's exports in memory, and the one that `fallback`
        returns (the exports in the image's file). The table that is used for an image is remembered. `name_outside`
        names addresses outside all images. `compiled` knows the methods of .NET in images, whose names come first.
        `at_hand` returns the table of an image's PDB if it costs little to get.
        """
        self.images = images
        self._source = source
        self._fallback = fallback
        self._name_outside = name_outside
        self._compiled = compiled
        self.at_hand = at_hand
        self._tables: dict[int, SymbolTable] = {}
        self._names: dict[tuple[int, bool], tuple[Name, ...]] = {}

    def table(self, image: Image) -> SymbolTable:
        """Return the symbol table of `image`, which is empty if no source has names for it."""
        table = self._tables.get(image.base)
        if table is None:
            table = self._source(image) if self._source is not None else None
            if table is None or not len(table):
                table = export_table(image)
            if not len(table) and self._fallback is not None:
                table = self._fallback(image) or table
            self._tables[image.base] = table
        return table

    def distrust(self, image: Image) -> None:
        """From now on, use the exports in the file of `image` instead of its exports in memory, if the file was found.

        An image whose names come from a PDB or an ISF file is left as it is.
        """
        if self.table(image).kind is SymbolKind.EXPORT and self._fallback is not None:
            self._tables[image.base] = self._fallback(image) or self._tables[image.base]
            self._names.clear()

    def name(self, address: int, *, is_return_address: bool = False) -> Name:
        """Return the name of the function that holds `address`. Functions that were inlined there are ignored.

        A return address is looked up one byte earlier, in the call instruction. A call that never returns can be the
        last instruction of its function: the return address of `call abort` at the end of `f` is the first byte of the
        function after `f`. The offset in the name is still that of `address`.
        """
        return self.frames_at(address, is_return_address=is_return_address)[-1]

    def frames_at(self, address: int, *, is_return_address: bool = False) -> tuple[Name, ...]:
        """Return the names of all functions at `address`. Inlined ones come first, from the innermost outwards.

        Results are remembered, because the threads of a process have most of their frames in the same functions.
        """
        key = address, is_return_address
        names = self._names.get(key)
        if names is None:
            if len(self._names) >= _MAX_NAMES:
                self._names.clear()
            names = self._names[key] = self._find_names(address, is_return_address=is_return_address)
        return names

    def _find_names(self, address: int, *, is_return_address: bool) -> tuple[Name, ...]:
        image = self.images.find(address)
        if image is None:
            found = self._name_outside(address) if self._name_outside is not None else None
            return (found if found is not None else Name(address),)
        rva = address - image.base
        probe = rva - (1 if is_return_address and rva else 0)
        method = None if self._compiled is None else self._compiled.locate(image, probe)
        if method is not None and method.symbol:
            offset = 0 if method.rva is None else rva - method.rva
            name = Name(address, image.module.label, method.symbol, offset, SymbolKind.CLR, rva=rva)
            return (replace(name, reason=method.reason) if method.reason else name,)
        table = self.table(image)
        locations = _locate(image, table, probe)
        if not locations:
            reason = "" if method is None else method.reason
            return (Name(address, image.module.label, "", rva, rva=rva, reason=reason),)
        return tuple(
            Name(
                address,
                image.module.label,
                location.symbol,
                0 if location.rva is None else rva - location.rva,
                table.kind,
                location.source,
                certainty=_certainty(image, table, location, probe),
                is_inline=location.rva is None,
                raw=location.raw,
                rva=rva,
                facts=location.facts,
            )
            for location in locations
        )

    def whole_function(self, name: Name) -> Name:
        """Return `name`, or the function of which it names a separate part, if the image's function table tells.

        Example: Visual C++ puts the code of `parse` that seldom runs apart from it, and calls it `parse$cold`. The
        result for `app!parse$cold+0x10` is `app!parse+0x4a0`.
        """
        image = self.images.find(name.address)
        begins = None if image is None or name.rva is None or name.is_inline else function_begin(image, name.rva)
        if image is None or begins is None or begins[0] == begins[1]:
            return name
        whole = self.name(image.base + begins[1])
        if whole.offset or not whole.is_certain:
            return name
        return replace(whole, address=name.address, offset=name.address - image.base - begins[1], rva=name.rva)

    def function_start(self, address: int, *, is_return_address: bool = False) -> int | None:
        """Return the address of the last symbol at or before `address` in the same section, or None.

        For a return address, this is done one byte earlier, in the call instruction.
        """
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

    def method_start(self, address: int) -> int | None:
        """Return where the precompiled method of .NET at `address` begins; None if none is there or known."""
        image = self.images.find(address)
        found = None if image is None or self._compiled is None else self._compiled.locate(image, address - image.base)
        return None if image is None or found is None or found.rva is None else image.base + found.rva

    def find(self, name: str) -> Iterator[tuple[Image, int]]:
        """Yield each image that has a symbol `name`, or exports it under that name, and the symbol's address."""
        for image in self.images:
            rva = self.rva_of(image, name)
            if rva is not None:
                yield image, image.base + rva

    def rva_of(self, image: Image, name: str) -> int | None:
        """Return the RVA of the symbol `name` of `image`, or None."""
        return self.rvas_of(image, (name,))[0]

    def rvas_of(self, image: Image, names: Sequence[str]) -> list[int | None]:
        """Return the RVA of each name, or None. Exports are asked first: they are parsed once for all processes."""
        exports = export_table(image)
        found = [exports.rva_of(name) for name in names]
        table = self.table(image) if None in found else exports
        if table is exports:
            return found
        return [table.rva_of(name) if rva is None else rva for name, rva in zip(names, found, strict=True)]


def _locate(image: Image, table: SymbolTable, rva: int) -> tuple[LocatedFunction, ...]:
    """Return the functions that `table` has at `rva`, inlined ones first.

    A separate part of a function belongs to that function. Example: the code of `parse` that seldom runs is after
    `print`, and its RUNTIME_FUNCTION leads to that of `parse`. The nearest symbol is `print`, but the function is
    `parse`. If the table knows where functions end, or has a symbol for the part itself, that symbol is kept.
    """
    locations = table.locate(rva)
    if locations and (locations[-1].is_inside or locations[-1].rva is None):
        return locations
    begins = function_begin(image, rva)
    if begins is None or begins[0] == begins[1]:
        return locations
    begin, function = begins
    nearest = locations[-1].rva if locations else None
    is_label = nearest is not None and begin <= nearest and (nearest == begin or table.kind is not SymbolKind.EXPORT)
    if is_label or nearest == function:
        return locations
    whole = table.locate(function)[-1:]
    if not whole or whole[0].rva != function:
        return locations
    return (replace(whole[0], source="", is_inside=True),)


def _certainty(image: Image, table: SymbolTable, location: LocatedFunction, rva: int) -> Certainty:
    if location.is_inside is not None:
        return Certainty.CERTAIN if location.is_inside else Certainty.DOUBTFUL
    start = location.rva
    if start is None:
        return Certainty.CERTAIN
    is_sparse = table.kind is SymbolKind.EXPORT
    return certainty(image, start, rva, is_sparse=is_sparse, has_gaps=not table.has_all_starts)


def export_table(image: Image) -> SymbolTable:
    """Return the table of the names that `image` exports, without those that forward to another image."""
    return image.exports.derived(_table_of_exports)


def _table_of_exports(exports: Exports) -> SymbolTable:
    names = ((export.rva, export.name) for export in exports if export.forwarder is None)
    return SymbolTable(SymbolKind.EXPORT, names, has_all_starts=exports.has_all_starts)


def first_of(*sources: SymbolSource) -> SymbolSource:
    """Return a source that calls `sources` in turn and returns the first table that is not empty, or None."""

    def ask(image: Image) -> SymbolTable | None:
        for source in sources:
            table = source(image)
            if table is not None and len(table):
                return table
        return None

    return ask
