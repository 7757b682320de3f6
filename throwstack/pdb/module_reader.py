# SPDX-License-Identifier: Apache-2.0
"""Gives the symbols and lines of the modules of one PDB, which are kept for the whole process up to a limit."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from throwstack.pdb.dbi import Dbi, PdbModule
from throwstack.pdb.inline_sites import InlineSites, read_sites
from throwstack.pdb.kept import Kept, Part
from throwstack.pdb.lines import Inlinees, LineBlock, ModuleLines
from throwstack.pdb.module_symbols import CodeSymbol, ModuleSymbols
from throwstack.pdb.msf import NO_STREAM, MsfFile
from throwstack.pdb.string_table import StringTable

_IMPORTED = 0x80000000
_OWNERS = count()
_MAX_REMEMBERED = 1 << 14


class ModuleReader:
    """The modules of one PDB. Every method raises `NotAPdb` if what it needs is damaged."""

    def __init__(self, msf: MsfFile, dbi: Dbi, names: StringTable, kept: Kept) -> None:
        """`names` are the strings of the PDB, among them the paths of source files."""
        self._msf = msf
        self._dbi = dbi
        self._names = names
        self._kept = kept
        self._owner = next(_OWNERS)
        self._imported: dict[tuple[int, int], int] = {}

    def close(self) -> None:
        """Forget what is kept of this PDB."""
        self._kept.forget(self._owner)

    def symbols(self, index: int) -> ModuleSymbols | None:
        """Return the functions of module `index`, or None if it has no symbols."""
        module = self._dbi.module(index)
        if module is None or module.stream == NO_STREAM:
            return None
        return self._get(("symbols", module.stream, module.symbols_size), lambda: self._read_symbols(module))

    def line(self, index: int, section: int, offset: int, size: int = 0) -> tuple[str, int]:
        """Return path and number of the line at a place in the code of module `index`, or ("", 0).

        `size` is that of the function there, 0 if that is not known.
        """
        lines = self._lines(index)
        if lines is None:
            return "", 0
        for position, inside in lines.blocks_at(section, offset, size):
            self._msf.time.check()
            found = self._block(index, lines, position).at(inside)
            if found is not None:
                return self._path(lines, found[0]), found[1]
        return "", 0

    def inlined(self, index: int, symbol: CodeSymbol, offset: int) -> list[tuple[int, str, int]]:
        """Return what was inlined at `offset` in the function `symbol` of module `index`, innermost first.

        Each is (number of its id in the PDB, path, line).
        """
        symbols, lines = self.symbols(index), self._lines(index)
        if symbols is None or lines is None or not symbol.end:
            return []
        sites: InlineSites = self._get(("sites", index, symbol.position), lambda: read_sites(symbols.body(symbol)))
        here = sites.at(offset)
        if not here:
            return []
        inlinees = self._inlinees(index, lines)
        found = []
        for site, part in here:
            self._msf.time.check()
            begin = inlinees.begin(site.id)
            file = part.file if part.file is not None else begin[0] if begin is not None else None
            path = "" if file is None else self._path(lines, file)
            line = 0 if begin is None else max(0, begin[1] + part.line)
            found.append((self._resolved(index, lines, site.id), path, line))
        return found[::-1]

    def number_here(self, index: int, number: int) -> int:
        """Return the number in this PDB of a type that module `index` refers to; 0 if it is not found.

        Code that is generated at link time refers so to what it inlines from other modules, and to the types there.
        """
        lines = self._lines(index) if number & _IMPORTED else None
        return number if not number & _IMPORTED else 0 if lines is None else self._resolved(index, lines, number)

    def _resolved(self, index: int, lines: ModuleLines, number: int) -> int:
        """Return the id in this PDB of an inlined function, maybe one of another module; 0 if it is not found."""
        if not number & _IMPORTED:
            return number
        known = self._imported.get((index, number))
        if known is None:
            if len(self._imported) >= _MAX_REMEMBERED:
                self._imported.clear()
            known = self._imported[index, number] = self._imported_id(lines, number)
        return known

    def _imported_id(self, lines: ModuleLines, number: int) -> int:
        imported = lines.imported(number)
        module = None if imported is None else self._dbi.module_named(self._names.at(imported[0]))
        exporting = None if module is None else self._lines(module.index)
        if imported is None or exporting is None:
            return 0
        return exporting.exported(imported[1]) or 0

    def _path(self, lines: ModuleLines, file: int) -> str:
        offset = lines.file_name_offset(file)
        return "" if offset is None else self._names.at(offset)

    def _lines(self, index: int) -> ModuleLines | None:
        module = self._dbi.module(index)
        if module is None or module.stream == NO_STREAM:
            return None
        return self._get(("lines", index), lambda: self._read_lines(module))

    def _inlinees(self, index: int, lines: ModuleLines) -> Inlinees:
        return self._get(("inlinees", index), lines.inlinees)

    def _block(self, index: int, lines: ModuleLines, position: int) -> LineBlock:
        return self._get(("block", index, position), lambda: lines.block(position))

    def _get(self, key: tuple[object, ...], make: Callable[[], Part]) -> Part:
        return self._kept.get((self._owner, key), lambda: self._in_time(make))

    def _in_time(self, make: Callable[[], Part]) -> Part:
        self._msf.time.check()
        return make()

    def _read_symbols(self, module: PdbModule) -> ModuleSymbols:
        return ModuleSymbols(self._msf.stream(module.stream), module.symbols_size)

    def _read_lines(self, module: PdbModule) -> ModuleLines:
        start = module.symbols_size + module.c11_size
        return ModuleLines(self._msf.stream(module.stream), start, module.c13_size)
