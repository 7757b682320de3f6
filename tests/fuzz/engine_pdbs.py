# SPDX-License-Identifier: Apache-2.0
"""Mutants of PDBs against the reader: everything that an address or a name makes it read."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

from tests.fuzz.engine import Attack, Family
from tests.fuzz.engine_files import GUID, scratch
from tests.fuzz.ground import Shot
from tests.fuzz.mutate import mutate
from tests.support.held_stream import HeldStream
from tests.support.pdb_model import Convention, Member, Structure, Thunk
from tests.support.pdb_writer import FpoRecord, FrameRecord, Inline, Pdb, Procedure, Public
from throwstack.core.text import escape
from throwstack.images.image import PdbIdentity
from throwstack.names.frame_records import annotation
from throwstack.pdb.inline_sites import line_at, read_sites
from throwstack.pdb.msf import NotAPdb
from throwstack.pdb.omap import Omap
from throwstack.pdb.pdb_file import PdbFile
from throwstack.pdb.pdb_frames import PdbFrames
from throwstack.pdb.pdb_identity import check_pdb
from throwstack.pdb.pdb_table import PdbTable

_RVAS = (0, 0x1000, 0x1006, 0x1044, 0x1085, 0x1100, 0x1104, 0x1141, 0x5004, 0xFFFFFFFF)
_NAMES = ("main", "A::f", "start", "g", "A::A")


def pdb_seeds() -> list[bytes]:
    """Return PDBs with everything that this project's writer knows of."""
    program = "$T0 .raSearch = $eip $T0 ^ = $esp $T0 4 + = $ebp $T0 16 - ^ ="
    inner = Inline("inner", "a.cpp", 7, [(4, 4, 7), (16, 8, 9)], [Inline("innermost", "b.h", 3, [(6, 2, 4)])])
    full = Pdb(
        GUID,
        procedures=[
            Procedure("A::f", 0x1000, 0x40, [(0, "a.cpp", 5), (8, "b.h", 9)], ("int", "A*"), [inner]),
            Procedure("main", 0x1040, 0x80, [(0, "b.cpp", 1)], parts=((0x1120, 0x10),)),
        ],
        publics=[Public("_start", 0x1100), Public("?g@@YAXXZ", 0x1140), Public("?h@@YAXXZ", 0x1140)],
        frame_data=[FrameRecord(0x1000, 0x40, program, locals=8, saved_registers=4, has_seh=True)],
        fpo=[FpoRecord(0x1040, 0x80, locals=2, parameters=1, prologue=3, has_seh=True)],
    )
    moved = Pdb(
        GUID,
        procedures=[Procedure("A::f", 0x1000, 0x80, [(0, "a.cpp", 5)], ("int",))],
        publics=[Public("_start", 0x1100)],
        fpo=[FpoRecord(0x1000, 0x80, locals=2)],
        omap=[(0x1000, 0x5000), (0x1040, 0), (0x1080, 0x2000)],
        former_sections=[(".text", 0x1000, 0x4000)],
    )
    linked = Pdb(
        GUID,
        procedures=[
            Procedure("A::f", 0x1000, 0x40, [(0, "a.cpp", 5)], ("int",), this="A", convention=Convention.THISCALL),
            Procedure("g", 0x1000, 0x40, [(0, "b.cpp", 5)], (), module="b.obj", parts=((0x1100, 0x20),)),
        ],
        publics=[Public("?f@A@@QAEXH@Z", 0x1000), Public("_g", 0x1000), Public("_data", 0x1084, is_function=False)],
        thunks=[Thunk(0x1140, 5, 0x1000), Thunk(0x1145, 5, 0x1100), Thunk(0x1150, 6, 0x1000, "imported")],
        typedefs={"DWORD": "unsigned long"},
        types={"A": Structure(8, (Member("x", "int", 0), Member("next", "A*", 4)))},
    )
    fastlink = Pdb(GUID, publics=linked.publics, thunks=linked.thunks, is_fastlink=True, stream_4=b"old" * 30)
    all_of_them = (full, moved, linked, fastlink)
    return [*(pdb.to_bytes() for pdb in all_of_them), full.to_bytes(512), Pdb(GUID, has_dbi=False).to_bytes(512)]


def _pdb_files() -> Attack:
    seeds = pdb_seeds()
    path = scratch() / "app.pdb"

    def attack(rng: random.Random, shot: Shot) -> Iterator[str]:
        seed = rng.choice(seeds)
        data = _mutated_pdb(rng, seed, seeds)
        shot.note("PDB", seed, data)
        path.write_bytes(data)
        yield check_pdb(path, PdbIdentity("app.pdb", GUID, 1), 1 << 30) or ""
        said: list[str] = []
        try:
            table = PdbTable(PdbFile(path), said.append)
        except NotAPdb as reason:
            yield str(reason)
            return
        yield from _asked(table)
        table.pdb.close()
        assert all("\n" not in line for line in said)
        yield from said

    return attack


def _asked(table: PdbTable) -> Iterator[str]:
    """Ask a table all that the plugins ask."""
    yield f"{len(table) > 0} {table.pdb.kind.value} {table.missing}"
    for rva in _RVAS:
        for found in table.locate(rva):
            yield escape(
                f"{found.symbol} {found.source} {found.facts.signature()} {found.facts.others()} {found.is_inside}"
            )
        near = table.nearest(rva)
        yield escape(str(near and near[0]))
        for data in (table.frame_data(rva), table.frame_description(rva)):
            if data is not None:
                yield escape(annotation(data))
    for name in _NAMES:
        assert len(table.rvas_of(name)) < 5000


def _mutated_pdb(rng: random.Random, seed: bytes, seeds: list[bytes]) -> bytes:
    """Change a PDB at its head, in its directory, or in some of its blocks."""
    block = int.from_bytes(seed[32:36], "little")
    blocks = len(seed) // block
    data = seed
    for _ in range(rng.choice((1, 1, 2, 4))):
        number = rng.choice((0, blocks - 1, blocks - 2, *(rng.randrange(blocks) for _ in range(6))))
        part = data[number * block : (number + 1) * block]
        used = part.rstrip(b"\0")
        changed = mutate(rng, used[:64] if not number else used or part, rng.choice(seeds)[:4096], keeps_size=True)
        data = data[: number * block] + changed + data[number * block + len(changed) :]
    return data[: rng.randrange(len(data))] if rng.random() < 0.05 else data


def _omap() -> Attack:
    seed = struct.pack("<12I", 0x1000, 0x5000, 0x1040, 0, 0x1080, 0x2000, 0x1100, 0x7000, 0x2000, 0x1000, 0x3000, 0)
    records = b"".join(struct.pack("<IIIHH", at, 0x40, 2, 1, 0x0803) for at in range(0x1000, 0x1100, 0x40))

    def attack(rng: random.Random, shot: Shot) -> Iterator[str]:
        first, second = (mutate(rng, seed) if rng.random() < 0.7 else b"" for _ in range(2))
        shot.changes += [f"OMAP from {first.hex()}", f"OMAP to {second.hex()}"]
        omap = Omap(HeldStream(first), HeldStream(second))
        changed = mutate(rng, records, keeps_size=True)
        frames = PdbFrames(HeldStream(), HeldStream(changed), str, omap)
        for begin, size, *_ in struct.iter_unpack("<IIIHH", changed):
            omap.before(begin)
            omap.after(begin)
            assert len(list(omap.pieces(begin, size))) <= 256
            frames.find(begin)
        yield ""

    return attack


def _frame_data() -> Attack:
    frame = struct.pack("<IIIIIIHHI", 0x1000, 0x40, 8, 4, 0, 1, 3, 4, 1)
    fpo = struct.pack("<IIIHH", 0x1040, 0x80, 2, 1, 0x0803)

    def attack(rng: random.Random, shot: Shot) -> Iterator[str]:
        first, second = mutate(rng, frame * 3, frame), mutate(rng, fpo * 3, fpo)
        shot.changes += [f"frame data {first.hex()}", f"FPO {second.hex()}"]
        frames = PdbFrames(HeldStream(first), HeldStream(second), str)
        for rva in (0, 0x1000, 0x1044, 0x1100, 0xFFFFFFFF):
            for found in (frames.find(rva), frames.described(rva)):
                if found is not None:
                    yield escape(annotation(found))

    return attack


def _inline_sites() -> Attack:
    annotations = bytes.fromhex("0b2403 0606 0304 0408 0c0404 0504 0106 0c8081c00010000b25")
    site = struct.pack("<HHIII", 14 + len(annotations), 0x114D, 0, 0, 0x1000) + annotations

    def attack(rng: random.Random, shot: Shot) -> Iterator[str]:
        data, records = mutate(rng, annotations), mutate(rng, site * 3, site)
        shot.changes += [f"annotations {data.hex()}", f"records {records.hex()}"]
        for offset in (0, 4, 0x40, 1 << 31):
            yield str(line_at(data, offset))
            yield str(len(read_sites(records).at(offset)))

    return attack


FAMILIES = [
    Family("PDB files", _pdb_files, 3),
    Family("OMAP", _omap, 2),
    Family("frame data", _frame_data, 2),
    Family("inline sites", _inline_sites, 2),
]
