# SPDX-License-Identifier: Apache-2.0
"""Real PDBs, damaged in the ways that files get damaged, and read: what comes of it, in which time and memory.

Each damaged file is read in a process of its own with limits on memory and time, because what is looked for might take
either.
"""

from __future__ import annotations

import os
import random
import resource
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.mutate import EDGES
from tests.real_pdbs.process_memory import peak_kilobytes, restart_peak
from tests.real_pdbs.purepdb_facts import PdbFacts
from throwstack.pdb.msf import NotAPdb
from throwstack.pdb.pdb_file import PdbFile
from throwstack.pdb.pdb_table import PdbTable

KINDS = ("bytes", "cut", "zeros", "words", "directory")
SECONDS = 20
MEGABYTES = 100
_ADDRESS_SPACE = 6 << 30
_ASKED = 60
_SUPERBLOCK = 56


@dataclass(frozen=True, slots=True)
class Reading:
    """What came of reading a damaged file: `answered`, `refused`, or what must not be; its seconds and megabytes."""

    pdb: str
    kind: str
    seed: int
    end: str
    seconds: float
    megabytes: float

    @property
    def is_good(self) -> bool:
        """Say whether the reader lived, in time and in bounds."""
        return self.end in ("answered", "refused") and self.seconds < SECONDS and self.megabytes < MEGABYTES


def damaged(data: bytes, kind: str, seed: int) -> bytes:
    """Return the file with damage of one kind: changed bytes, cut off, blocks of zeros, changed words."""
    chance = random.Random(f"{kind} {seed}")
    changed = bytearray(data)
    block = int.from_bytes(data[32:36], "little")
    if kind == "cut":
        return data[: chance.randrange(1000, len(data))]
    if kind == "bytes":
        for _ in range(40):
            changed[chance.randrange(len(data))] = chance.randrange(256)
    elif kind == "zeros":
        for _ in range(6):
            start = chance.randrange(len(data)) // block * block
            changed[start : start + block] = bytes(len(changed[start : start + block]))
    else:
        first, last = (0, len(data) - 4)
        if kind == "directory":  # the last blocks, mostly; the heads of the streams are where the linker began
            first = chance.choice((32, len(data) - 4 * block))
            last = _SUPERBLOCK - 4 if first == 32 else last
        for _ in range(12 if kind == "words" else 3):
            at = chance.randrange(first, last) & ~3
            changed[at : at + 4] = (chance.choice(EDGES) & 0xFFFFFFFF).to_bytes(4, "little")
    return bytes(changed)


def read_damaged(pdb: Path, kind: str, seed: int) -> Reading:
    """Damage a copy of `pdb`, and read it in a child process."""
    rvas = [place.rva for place in PdbFacts(pdb).sample(_ASKED, seed)]
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "damaged.pdb"
        file.write_bytes(damaged(pdb.read_bytes(), kind, seed))
        begin, end = os.pipe()
        started = time.monotonic()
        child = os.fork()
        if not child:
            os.close(begin)
            _answer(file, rvas, end)
        os.close(end)
        with os.fdopen(begin, "rb") as pipe:
            told = pipe.read().decode("utf-8", "replace")
        _, status = os.waitpid(child, 0)
    seconds = time.monotonic() - started
    if status or " " not in told:
        return Reading(pdb.name, kind, seed, f"died with status {status:#x}: {told}", seconds, 0)
    kilobytes, _, what = told.partition(" ")
    return Reading(pdb.name, kind, seed, what, seconds, int(kilobytes) / 1024)


def _answer(file: Path, rvas: Sequence[int], out: int) -> None:
    """Read the file in this process, which is the child, and end it. What came of it is written to `out`."""
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    before = restart_peak()
    try:
        what = _read(file, rvas)
    except BaseException:  # noqa: BLE001 - whatever comes out is what is looked for
        what = traceback.format_exc()
    os.write(out, f"{peak_kilobytes() - before} {what}".encode()[:60_000])
    os._exit(0)


def _read(file: Path, rvas: Sequence[int]) -> str:
    """Ask a table all that the plugins ask. Return whether it answered."""
    said: list[str] = []
    try:
        pdb = PdbFile(file)
    except NotAPdb:
        return "refused"
    table = PdbTable(pdb, said.append)
    for rva in rvas:
        for found in table.locate(rva):
            if found.facts is not None:
                found.facts.signature()
                found.facts.others()
            table.rvas_of(found.symbol)
        table.nearest(rva)
        table.frame_data(rva)
        table.frame_description(rva)
    pdb.close()
    return "refused" if said else "answered"
