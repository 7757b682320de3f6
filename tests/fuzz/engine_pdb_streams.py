# SPDX-License-Identifier: Apache-2.0
"""Mutants of single streams of PDBs, in files that are whole otherwise: heads, modules, lines, types, hash tables.

A file whose blocks are changed at random is mostly refused at its door. Here the container is right, so that what is
wrong is read: one stream, or a few, are changed, cut or grown, and the file is written anew. The attack then asks all
that plugins ask, and all types and variables of the functions that it finds.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz.engine import Attack, Family
from tests.fuzz.engine_files import GUID, scratch
from tests.fuzz.ground import Shot
from tests.fuzz.mutate import mutate
from tests.support.msf_writer import write_msf
from tests.support.pdb_model import (
    X64,
    Block,
    Enumeration,
    FrameInfo,
    FrameRecord,
    Inline,
    Local,
    Member,
    Place,
    Procedure,
    Public,
    Register,
    Structure,
    Thunk,
    Variable,
)
from tests.support.pdb_writer import Pdb
from throwstack.core.text import escape
from throwstack.names.frame_records import annotation
from throwstack.pdb.msf import MsfFile, NotAPdb
from throwstack.pdb.pdb_file import PdbFile
from throwstack.pdb.pdb_table import PdbTable
from throwstack.pdb.type_model import Enumeration as EnumerationType
from throwstack.pdb.type_model import Structure as StructureType
from throwstack.pdb.variable_model import Scope
from throwstack.pdb.variable_symbols import function_symbol

_RVAS = (0x1000, 0x1006, 0x1012, 0x1044, 0x1085, 0x1100, 0x1122, 0x1141, 0x1162, 0x3000)
_NAMES = ("main", "A::f", "start", "g")
_DBI, _MOST_FIELDS = 3, 100_000
_HEAD = 64


def _full(machine: int) -> Pdb:
    """Return a PDB with everything that the writer knows of."""
    base, register = (Register.RSP, Register.RCX) if machine == X64 else (Register.EBP, Register.ECX)
    items = (
        FrameInfo(32, 8, 1, 1, is_optimised=True),
        Local("p", "A*", (Place(0, 0x20, register), Place(0x20, 0x40, None, 8, ((2, 3),))), is_parameter=True),
        Local("gone", "Colour"),
        Variable("counted", "int", 8, base),
        Block(8, 0x10, (Variable("inside", "char[8]", -16, base),), "b"),
    )
    inner = Inline("inner", "a.cpp", 7, [(4, 4, 7), (16, 8, 9)], [Inline("innermost", "b.h", 3, [(6, 2, 4)])])
    return Pdb(
        GUID,
        machine=machine,
        procedures=[
            Procedure("A::f", 0x1000, 0x40, [(0, "a.cpp", 5), (8, "b.h", 9)], ("A*", "int"), [inner], items=items),
            Procedure("main", 0x1040, 0x80, [(0, "b.cpp", 1)], ("int",), parts=((0x1120, 0x10),), module="main.obj"),
        ],
        publics=[Public("_start", 0x1100), Public("?g@@YAXXZ", 0x1140), Public("?h@@YAXXZ", 0x1140)],
        frame_data=[FrameRecord(0x1000, 0x40, "$T0 .raSearch = $eip $T0 ^ =", locals=8, saved_registers=4)],
        types={
            "A": Structure(
                16, (Member("next", "A*", 0), Member("colour", "Colour", 8), Member("bits", "int", 12, (3, 2)))
            ),
            "Colour": Enumeration({"red": 1, "green": -2}),
        },
        typedefs={"ALIAS": "A"},
        thunks=[Thunk(0x1160, 6, 0x1000, "jump"), Thunk(0x1168, 5, 0x1040)],
    )


def streams_of(path: Path) -> list[bytes]:
    """Return the streams of the PDB at `path`."""
    with MsfFile(path) as file:
        return [file.stream(number).read() for number in range(40)]


def _pdb_streams() -> Attack:
    directory = scratch()
    path, seed = directory / "app.pdb", directory / "seed.pdb"
    seeds = []
    for machine in (0x14C, X64):
        seed.write_bytes(_full(machine).to_bytes())
        streams = streams_of(seed)
        while not streams[-1]:
            streams.pop()
        seeds.append(streams)

    def attack(rng: random.Random, shot: Shot) -> Iterator[str]:
        streams = list(rng.choice(seeds))
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            number = rng.choice((_DBI, *range(1, len(streams))))
            data, donor = streams[number], rng.choice(streams)
            if not data:
                continue
            head = data[:_HEAD] if rng.random() < 0.3 else data
            streams[number] = mutate(rng, head, donor) + data[len(head) :]
            shot.note(f"stream {number}", data, streams[number])
        path.write_bytes(write_msf(streams, rng.choice((512, 4096))))
        said: list[str] = []
        try:
            pdb = PdbFile(path)
        except NotAPdb as reason:
            yield str(reason)
            return
        try:
            yield from _asked(PdbTable(pdb, said.append))
        finally:
            pdb.close()
        yield from said

    return attack


def _asked(table: PdbTable) -> Iterator[str]:
    for rva in _RVAS:
        for found in table.locate(rva):
            yield escape(f"{found.symbol} {found.source}")
            if found.facts is not None:
                yield escape(f"{found.facts.signature()} {found.facts.others()}")
        table.nearest(rva)
        data = table.frame_data(rva)
        if data is not None:
            yield escape(annotation(data))
        try:
            _all_variables(table.pdb, rva)
        except NotAPdb as reason:
            yield str(reason)
    for name in _NAMES:
        table.rvas_of(name)


def _all_variables(pdb: PdbFile, rva: int) -> None:
    """Read the variables of the function at `rva` with their types, and what the types are made of."""
    record = pdb.function_record(rva)
    function = None if record is None else function_symbol(pdb.symbols_of(record))
    if function is None:
        return
    scopes: list[Scope] = [function.scope]
    while scopes:
        scope = scopes.pop()
        scopes += scope.scopes
        for variable in scope.variables:
            pdb.types.size(variable.type)
            found = pdb.types.plain(variable.type)
            if isinstance(found, StructureType):
                assert sum(1 for _ in pdb.types.members(found)) < _MOST_FIELDS
            if isinstance(found, EnumerationType):
                assert sum(1 for _ in pdb.types.enumerators(found)) < _MOST_FIELDS


FAMILIES = [Family("PDB streams", _pdb_streams, 4)]
