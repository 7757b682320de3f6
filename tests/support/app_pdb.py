# SPDX-License-Identifier: Apache-2.0
"""A PDB that tests of several modules read, and a directory to put it into."""

from __future__ import annotations

from pathlib import Path

from tests.support.pdb_writer import FpoRecord, FrameRecord, Inline, Pdb, Procedure, Public
from throwstack.core.memory import memory_of
from throwstack.files.symbol_path import SymbolPath, parse_symbol_path
from throwstack.images.image import Image, PdbIdentity
from throwstack.images.modules import Module
from throwstack.pdb.pdb_symbols import PdbSymbols
from throwstack.pdb.pdb_table import PdbTable

GUID = "0123456789ABCDEF00112233445566AA"
CPP, HEADER = r"d:\fts\ftpsrvdata_pg\src\idbcommand.cpp", r"d:\fts\inc\list.h"
PROGRAM = "$T0 .raSearch = $eip $T0 ^ = $esp $T0 4 + ="
APP = Pdb(
    GUID,
    age=3,
    procedures=[
        Procedure("PrintProviderError", 0x1100, 0x40, [(0, CPP, 855), (0x30, CPP, 860)], ("ADODB::_ConnectionPtr",)),
        Procedure(
            "IDBCommand::ExecuteResults",
            0x1200,
            0x60,
            [(0, CPP, 600), (0x20, CPP, 610)],
            (),
            [Inline("List::push", HEADER, 90, [(0x20, 0x10, 91)], [Inline("grow", HEADER, 20, [(0x28, 4, 22)])])],
        ),
        Procedure("untyped", 0x1300, 0x10),
    ],
    publics=[
        Public("?f@A@@QAEXH@Z", 0x2000),
        Public("_foo@8", 0x2010),
        Public("@fast@4", 0x2020),
        Public("__except_handler3", 0x2030),
    ],
    frame_data=[FrameRecord(0x1100, 0x40, PROGRAM, 12, 4, 8, 5, 0x20), FrameRecord(0x1105, 0x3B, f"{PROGRAM} inner")],
    fpo=[FpoRecord(0x2000, 0x10, 3, 2, 0x25, 2, uses_base_pointer=True)],
)


class Place:
    """A directory with PDBs, a cache, and what was said."""

    def __init__(self, tmp_path: Path) -> None:
        self.pdbs, self.cache = tmp_path / "pdbs", tmp_path / "cache"
        self.pdbs.mkdir()
        self.said: list[str] = []

    def put(self, pdb: Pdb | bytes, name: str = "app.pdb") -> Path:
        path = self.pdbs / name
        path.write_bytes(pdb.to_bytes() if isinstance(pdb, Pdb) else pdb)
        return path

    def symbols(self, **options) -> PdbSymbols:
        path = SymbolPath(parse_symbol_path(str(self.pdbs), self.cache), say=self.said.append)
        return PdbSymbols(path, say=self.said.append, **options)

    def table(self, age: int = 3, **options) -> PdbTable | None:
        return self.symbols(**options)(image(PdbIdentity("app.pdb", GUID, age)))


def image(identity: PdbIdentity | None) -> Image:
    """Make an image of nothing but the identity of its PDB."""
    it = Image(Module("app.dll", "app.dll", 0x10000000, 0x10000), memory_of({}))
    it._pdb, it._pdb_parsed = identity, True
    return it
