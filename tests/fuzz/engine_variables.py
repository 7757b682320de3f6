# SPDX-License-Identifier: Apache-2.0
"""Mutants of the types and variables of PDBs against what reads them and puts values into words."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz.engine import Attack, Family
from tests.fuzz.engine_files import scratch
from tests.fuzz.ground import Shot
from tests.fuzz.mutate import mutate
from tests.support.described_frames import Described
from tests.support.held_stream import HeldStream
from tests.support.pdb_functions import GUID, opened
from tests.support.pdb_model import (
    X64,
    X86,
    Block,
    Enumeration,
    FrameInfo,
    FrameRecord,
    Inline,
    Local,
    Member,
    Place,
    Procedure,
    Register,
    Structure,
    Variable,
)
from tests.support.pdb_writer import Pdb
from throwstack.core.registers import Arch
from throwstack.core.text import escape
from throwstack.pdb.msf import NotAPdb
from throwstack.pdb.signatures import Signatures
from throwstack.pdb.type_model import Enumeration as EnumerationType
from throwstack.pdb.type_model import Structure as StructureType
from throwstack.pdb.type_stream import TypeStream
from throwstack.pdb.type_text import TypeText
from throwstack.pdb.types import Types
from throwstack.pdb.variable_model import Scope
from throwstack.pdb.variable_symbols import function_symbol
from throwstack.variables.frame_values import frame_variables

_STACK = 0x20000
_MEMORY = {_STACK - 0x1000: bytes(range(256)) * 32}
_REGISTERS = {"ebp": _STACK, "ebx": _STACK + 8, "esi": _STACK + 16, "rbp": _STACK, "rbx": _STACK + 8, "r13": _STACK}
_MOST_TEXT = 100_000


def variable_pdb(machine: int) -> Pdb:
    """Return a PDB with a function that has variables of all kinds."""
    types = {
        "Color": Enumeration({"RED": 1, "GREEN": 70000}),
        "Point": Structure(8, (Member("x", "int", 0), Member("low", "unsigned", 4, bits=(3, 2)))),
        "Line": Structure(32, (Member("ends", "Point[2]", 0), Member("name", "char[8]", 16)), bases=(("Point", 24),)),
        "Shape": Structure(16, (Member("line", "Line*", 8),), virtual_bases=("Point",), has_function_table=True),
    }
    inner = Inline("inner", "a.h", 7, [(4, 0x30, 7)], items=(Local("i", "Color", (Place(0, 0x40, Register.EBX),)),))
    items = (
        FrameInfo(local_base=1, parameter_base=2),
        Variable("this", "Line*", register=Register.ESI),
        Variable("text", "const char*", 8),
        Local("line", "Line", (Place(0, 0x40, offset=-0x40, gaps=((2, 3),)),)),
        Local("point", "Point", (Place(0, 0x40, Register.ESI, part=4), Place(0, 0x40, Register.EBX, 8, part=0))),
        Local("whole", "double", (Place(offset=8),), is_parameter=True),
        Local("shape", "Shape", (Place(offset=-0x20),)),
        Block(8, 0x30, (Variable("in_block", "wchar_t[4]", -8), Local("gone", "Point&"))),
    )
    function = Procedure(
        "Line::draw",
        0x1100,
        0x40,
        parameters=("const char*", "double", "..."),
        items=items,
        this="Line",
        inlines=[inner],
    )
    program = "$T1 .raSearch = $T0 $T1 4 - 8 @ = $eip $T1 ^ = $esp $T1 4 + ="
    return Pdb(
        GUID, machine=machine, procedures=[function], types=types, frame_data=[FrameRecord(0x1100, 0x40, program)]
    )


def _parts(machine: int) -> tuple[bytes, bytes, bytes]:
    """Return the body of the function, the type stream and the hash stream of `variable_pdb`."""
    path = scratch() / "variables.pdb"
    path.write_bytes(variable_pdb(machine).to_bytes())
    read = opened(path, Arch.X64 if machine == X64 else Arch.X86)
    tpi = read.msf.stream(2).read()
    parts = read.bodies()[0], tpi, read.msf.stream(int.from_bytes(tpi[20:22], "little")).read()
    read.msf.close()
    return parts


def _types_and_functions() -> Attack:
    body, tpi, hashes = _parts(X86)

    def attack(rng: random.Random, shot: Shot) -> Iterator[str]:
        records = mutate(rng, body) if rng.random() < 0.6 else body
        stream = tpi[:56] + mutate(rng, tpi[56:]) if rng.random() < 0.8 else mutate(rng, tpi)
        listed = mutate(rng, hashes) if rng.random() < 0.3 else hashes
        shot.changes += [f"function {records.hex()}", f"types {stream.hex()}", f"hashes {listed.hex()}"]
        types = Types(TypeStream(HeldStream(stream), lambda _: HeldStream(listed)))
        text = TypeText(types, Arch.X86)
        for index in (0, 0x474, *range(0x1000, 0x1040), 0xFFFFFFFF):
            yield escape(_described(types, text, index))
        function = function_symbol(records)
        if function is not None:
            yield escape(Signatures(types, None, Arch.X86).of(function, function.name))
            assert _count(function.scope) <= 4096

    return attack


def _described(types: Types, text: TypeText, index: int) -> str:
    written = text.of(index)
    assert len(written) < _MOST_TEXT
    found = types.plain(index)
    names: list[str] = []
    if isinstance(found, StructureType):
        names = [field.name for field in types.members(found)]
        assert list(types.outline(found, 7).fields) == list(types.members(found))[:7]
    elif isinstance(found, EnumerationType):
        names = [name for name, _ in types.enumerators(found)]
    assert len(names) <= 1 << 14
    return f"{written} {types.size(index)} {types.scalar_bytes(index, 4)} {names[:3]}"


def _count(scope: Scope) -> int:
    return len(scope.variables) + sum(map(_count, scope.scopes))


def _values() -> Attack:
    seeds = [variable_pdb(machine).to_bytes() for machine in (X86, X64)]
    folder = scratch()

    def attack(rng: random.Random, shot: Shot) -> Iterator[str]:
        machine = rng.randrange(2)
        data = _changed(rng, seeds[machine])
        shot.note("PDB", seeds[machine], data)
        it = _process(folder, data, (X86, X64)[machine])
        if it is None:
            return
        for distance in (4, 0x18, 0x40):
            frame = it.frame(distance, slot=_STACK + 4, is_interrupted=rng.random() < 0.3, **_registers(it.arch))
            for scope in frame_variables(it.target, frame, None, rng.randrange(1, 3), is_doubtful=False):
                assert len(scope.variables) <= 64
                for variable in scope:
                    assert bool(variable.text) != bool(variable.reason)
                    yield f"{variable.type} {variable.name} {variable.text} {variable.source} {variable.reason}"
        it.close()

    return attack


def _registers(arch: Arch) -> dict[str, int]:
    return {name: value for name, value in _REGISTERS.items() if name in arch.register_names}


def _process(folder: Path, data: bytes, machine: int) -> Described | None:
    """Return a process whose image has the PDB `data`, or None if that cannot be opened."""
    try:
        return Described(folder, data, _MEMORY, Arch.X64 if machine == X64 else Arch.X86)
    except NotAPdb:
        return None


def _changed(rng: random.Random, seed: bytes) -> bytes:
    """Change some of the blocks of a PDB that have types or symbols."""
    data, block = seed, int.from_bytes(seed[32:36], "little")
    for _ in range(rng.choice((1, 1, 2, 4))):
        number = rng.randrange(1, len(seed) // block)
        part = data[number * block : (number + 1) * block]
        changed = mutate(rng, part.rstrip(b"\0") or part, keeps_size=True)
        data = data[: number * block] + changed + data[number * block + len(changed) :]
    return data


FAMILIES = [
    Family("types and variables of PDBs", _types_and_functions, 2),
    Family("values of variables", _values, 2),
]
