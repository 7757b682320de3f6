# SPDX-License-Identifier: Apache-2.0
"""One open PDB: which functions are at an address, with files and lines, and where a function is.

What an address needs is read, and nothing else. The section contributions say which module (object file) the code is
from, and that module's stream has the function and its lines. Where no module has a function, the public symbols are
asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path

from throwstack.pdb.dbi import Dbi, DebugStream
from throwstack.pdb.function_names import FunctionNames, Place
from throwstack.pdb.info_stream import read_info
from throwstack.pdb.inlinee_names import InlineeNames
from throwstack.pdb.kept import KEPT, Kept
from throwstack.pdb.module_reader import ModuleReader
from throwstack.pdb.module_symbols import CodeKind, CodeSymbol
from throwstack.pdb.msf import NO_STREAM, MsfFile
from throwstack.pdb.omap import Omap
from throwstack.pdb.publics import Publics
from throwstack.pdb.sections import MAX_HEADERS, SectionTable
from throwstack.pdb.string_table import StringTable
from throwstack.pdb.type_stream import TypeStream
from throwstack.pdb.types import Types

_TPI_STREAM, _IPI_STREAM = 2, 4
_NO_NAMES = -1


class PdbKind(Enum):
    """How much a PDB says."""

    PRIVATE = "private symbols"
    PUBLIC = "public symbols only"
    FASTLINK = "public symbols only: lines are in the object files of the machine that linked it (/DEBUG:FASTLINK)"


@dataclass(frozen=True, slots=True)
class FunctionRecord:
    """The record of the function at an address: the index of its module, and what the record says.

    `section` and `offset` are the address as the PDB counts it.
    """

    module: int
    symbol: CodeSymbol
    section: int
    offset: int


@dataclass(frozen=True, slots=True)
class FoundFunction:
    """A function at an address. `name` is as the PDB spells it, decorated if `is_public`.

    `rva` is where the function starts, or None if it was inlined. `file` and `line` are those of the address; "" and 0
    if the PDB does not have them. `is_inside` says whether the address is in the function; None if the PDB does not
    know where the function ends. `place` is where a public symbol is.
    """

    name: str
    rva: int | None
    file: str = ""
    line: int = 0
    is_public: bool = False
    is_inside: bool | None = True
    place: Place | None = None
    record: FunctionRecord | None = None
    is_moved: bool = False
    """The address is in a piece of code that was moved away from the start of the function."""
    type: int = 0
    """The number of an inlined function's type; 0 if the PDB does not have it."""


class PdbFile:
    """A PDB that is open until `close`. Every method raises `NotAPdb` if what it needs is damaged."""

    def __init__(self, path: Path, kept: Kept = KEPT) -> None:
        """Open `path`. What is read of modules is kept in `kept`. Raises `NotAPdb` and OSError."""
        self.msf = MsfFile(path)
        try:
            self.info = read_info(self.msf)
            self.dbi = Dbi(self.msf)
            self.names = StringTable(self.msf.stream(self.info.named_streams.get("/names", _NO_NAMES)))
            """The strings: paths of files, programs of frame data."""
        except BaseException:
            self.msf.close()
            raise
        self.modules = ModuleReader(self.msf, self.dbi, self.names, kept)
        """The symbols and lines of its modules."""

    def close(self) -> None:
        """Close the file, and forget what is kept of it."""
        self.msf.close()
        self.modules.close()

    @property
    def kind(self) -> PdbKind:
        """Say how much the PDB has. One of objects without debug information is not stripped, and has as little."""
        if self.info.is_fastlink:
            return PdbKind.FASTLINK
        return PdbKind.PRIVATE if not self.dbi.is_stripped and self.has_lines else PdbKind.PUBLIC

    @cached_property
    def has_lines(self) -> bool:
        """Say whether any module has source lines."""
        modules = map(self.dbi.module, range(self.dbi.module_count))
        return any(module is not None and module.c11_size + module.c13_size > 0 for module in modules)

    @property
    def has_functions(self) -> bool:
        """Say whether the PDB names any code."""
        return len(self.publics) > 0 or any(map(self.modules.symbols, range(self.dbi.module_count)))

    @cached_property
    def omap(self) -> Omap:
        """What translates RVAs, if the image was rearranged after it was linked."""
        from_source, to_source = DebugStream.OMAP_FROM_SOURCE, DebugStream.OMAP_TO_SOURCE
        return Omap(self.dbi.debug_stream(from_source), self.dbi.debug_stream(to_source))

    @cached_property
    def sections(self) -> SectionTable:
        """The sections in which addresses of the PDB count: those from before the image was rearranged."""
        former = self.dbi.debug_stream(DebugStream.FORMER_SECTIONS).read(0, MAX_HEADERS) if self.omap else b""
        return SectionTable(former or self.dbi.debug_stream(DebugStream.SECTIONS).read(0, MAX_HEADERS))

    @cached_property
    def types(self) -> Types:
        """The types."""
        return Types(TypeStream(self.msf.stream(_TPI_STREAM), self.msf.stream, self.msf.time))

    @cached_property
    def ids(self) -> TypeStream | None:
        """The ids of functions, or None if the PDB has none."""
        return TypeStream(self.msf.stream(_IPI_STREAM), self.msf.stream, self.msf.time) if self.info.has_ids else None

    @cached_property
    def publics(self) -> Publics:
        """The public symbols."""
        return Publics(
            self.msf.stream(-1 if self.dbi.publics_stream == NO_STREAM else self.dbi.publics_stream),
            self.msf.stream(-1 if self.dbi.symbols_stream == NO_STREAM else self.dbi.symbols_stream),
            is_fastlink=self.info.is_fastlink,
            time=self.msf.time,
        )

    @cached_property
    def _functions(self) -> FunctionNames:
        return FunctionNames(
            self.msf,
            self.dbi,
            self.publics,
            self.modules.symbols,
            is_fastlink=self.info.is_fastlink,
            is_private=lambda: self.kind is PdbKind.PRIVATE,
        )

    @cached_property
    def _inlinees(self) -> InlineeNames:
        return InlineeNames(self.ids, self.types)

    def place(self, rva: int) -> Place | None:
        """Return section and offset of the byte at `rva`, as the PDB counts them, or None if it is in no section."""
        return self.sections.place(self.omap.before(rva))

    def rva_at(self, section: int, offset: int) -> int | None:
        """Return the RVA of the byte at `offset` of `section`, as the PDB counts them, or None if there is none."""
        before = self.sections.rva(section, offset)
        return None if before is None else self.omap.after(before)

    def rvas_of(self, name: str) -> list[int]:
        """Return the RVAs of all functions that a debugger calls `name`, in order."""
        afters = (self.rva_at(*place) for place in self._functions.places(name))
        return sorted({after for after in afters if after is not None})

    def function_record(self, rva: int) -> FunctionRecord | None:
        """Return the record of the function that has the code at `rva`, or None if there is none.

        A separated part has the record of its function.
        """
        place = self.place(rva)
        return None if place is None else self._record_at(place)

    def _record_at(self, place: Place) -> FunctionRecord | None:
        module = self.dbi.contributor(*place)
        if module is None:
            return None
        symbols = self.modules.symbols(module)
        symbol = None if symbols is None else symbols.covering(*place)
        if symbols is not None and symbol is not None and symbol.kind is CodeKind.PART and symbol.target is not None:
            symbol = next((one for one in symbols.starting_at(*symbol.target) if one.kind is CodeKind.FUNCTION), None)
        return None if symbol is None else FunctionRecord(module, symbol, *place)

    def symbols_of(self, record: FunctionRecord) -> bytes:
        """Return the records of a function: its own first, then those inside it, up to S_END, which is left out."""
        symbols = self.modules.symbols(record.module)
        return b"" if symbols is None else symbols.body(record.symbol)

    def functions_at(self, rva: int) -> tuple[FoundFunction, ...]:
        """Return the functions at `rva`. Inlined ones are first, from the innermost outwards."""
        place = self.place(rva)
        if place is None:
            return ()
        record = self._record_at(place)
        if record is None:
            return self._outside(rva, place)
        symbol = record.symbol
        file, line = self.modules.line(record.module, *place, symbol.size)
        name = self._trampoline_name(record) if symbol.kind is CodeKind.TRAMPOLINE else symbol.name
        start = self._start(rva, symbol.section, symbol.offset)
        outer = FoundFunction(name, start, file, line, record=record)
        return (*self._inlined(record), outer)

    def _inlined(self, record: FunctionRecord) -> Iterator[FoundFunction]:
        inlined = self.modules.inlined(record.module, record.symbol, record.offset - record.symbol.offset)
        for number, file, line in inlined:
            name, type_ = self._inlinees.of(number)
            yield FoundFunction(name or "<inlined function>", None, file, line, type=type_)

    def _start(self, rva: int, section: int, offset: int) -> int:
        """Return where a function starts that has the code at `rva`.

        If the image was rearranged, the pieces of a function may be anywhere. Offsets into it count as in the image
        before: `f+0x20` is 0x20 bytes after the start of `f` there.
        """
        before = self.sections.rva(section, offset) or 0
        return before + rva - self.omap.before(rva)

    def _is_there(self, start: int | None, section: int, offset: int) -> bool:
        """Say whether the function that began at this place still begins at the RVA `start`, counted from its code."""
        return not self.omap or self.omap.after(self.sections.rva(section, offset) or 0) == start

    def _outside(self, rva: int, place: Place) -> tuple[FoundFunction, ...]:
        """Return the nearest function before `rva`, which is in no function of a module; none in another section.

        A public symbol has no end. It names code of its own contribution, and what is after that is in another function
        or in none.
        """
        section, offset = place
        near = self.publics.nearest(section, offset)
        last = self._last_procedure(place)
        if last is not None and (not near or near[0].offset <= last.offset):
            start = self._start(rva, section, last.offset)
            is_moved = not self._is_there(start, section, last.offset)
            return (FoundFunction(last.name, start, is_inside=False, is_moved=is_moved),)
        if not near:
            return ()
        start = self._start(rva, section, near[0].offset)
        is_moved = not self._is_there(start, section, near[0].offset)
        is_inside: bool | None = None
        if self.dbi.has_contributions and self.dbi.contribution(section, offset) != self.dbi.contribution(
            section, near[0].offset
        ):
            is_inside = False
        elif is_moved:
            is_inside = True  # its neighbours are other functions and prove nothing
        name = near[0].name
        at = section, near[0].offset
        return (FoundFunction(name, start, is_public=True, is_inside=is_inside, place=at, is_moved=is_moved),)

    def nearest(self, rva: int) -> FoundFunction | None:
        """Return the function that starts last at or before `rva`, in the same section, or None.

        A separated part of a function is no start: if `rva` is in one, the result is None.
        """
        place = self.place(rva)
        if place is None:
            return None
        record = self._record_at(place)
        if record is not None:
            starts = (record.symbol.section, record.symbol.offset)
            symbols = self.modules.symbols(record.module)
            covering = None if symbols is None else symbols.covering(*place)
            if covering is None or (covering.section, covering.offset) != starts:
                return None
            found = FoundFunction(record.symbol.name, self._start(rva, *starts), record=record)
            return found if self._is_there(found.rva, *starts) else None
        near = self._outside(rva, place)
        return near[0] if near and not near[0].is_moved else None

    def _last_procedure(self, place: Place) -> CodeSymbol | None:
        """Return the function of a module that starts last before `place`, which is in none."""
        module = self.dbi.last_contributor(*place)
        symbols = None if module is None else self.modules.symbols(module)
        found = None if symbols is None else symbols.last_before(*place)
        return found if found is not None and found.kind in {CodeKind.FUNCTION, CodeKind.THUNK} else None

    def folded_with(self, found: FoundFunction) -> tuple[str, ...]:
        """Return the further names of a function that the linker folded with others because their code is the same.

        One of them has a record in the module that contributed the code. Those of other modules have public symbols.
        """
        symbol = None if found.record is None else found.record.symbol
        place = found.place if symbol is None else (symbol.section, symbol.offset)
        if place is None:
            return ()
        names = tuple(public.name for public in self.publics.at(*place) if public.is_function)
        if len(names) > 1 or found.record is None or symbol is None:
            return names
        symbols = self.modules.symbols(found.record.module)
        procedures = () if symbols is None else symbols.starting_at(*place)
        return tuple(dict.fromkeys(one.name for one in procedures if one.name != symbol.name))

    def _trampoline_name(self, record: FunctionRecord) -> str:
        """Return the name of a trampoline, as debuggers make it: `ILT+5(_main)`."""
        symbol, symbols = record.symbol, self.modules.symbols(record.module)
        first = symbol.offset if symbols is None or symbols.first_trampoline is None else symbols.first_trampoline
        target = ""
        if symbol.target is not None:
            target = next((public.name for public in self.publics.at(*symbol.target)), "")
            module = None if target else self.dbi.contributor(*symbol.target)
            found = None if module is None else self.modules.symbols(module)
            target = target or next((one.name for one in (found.starting_at(*symbol.target) if found else ())), "")
        return f"ILT+{symbol.offset - first}({target})"
