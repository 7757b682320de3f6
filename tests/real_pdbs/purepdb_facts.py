# SPDX-License-Identifier: Apache-2.0
"""Facts of a PDB for the comparison, from a reader that has nothing to do with ours (PyPI `purepdb`).

Which sections hold code, which names are at one place (the linker folds functions of equal code), and, where the image
was rearranged after linking, where a piece of code went.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from purepdb import PDB, PdbError

from tests.real_pdbs.peer_frames import Chain, PeerFailed, PeerFrame, bare_name
from throwstack.names.demangle import undecorate

X86 = 0x14C
_SIZE_OF_DBI_HEAD = 64
_NO_STREAM = 0xFFFF
_SECTIONS, _FORMER_SECTIONS, _REARRANGED = 5, 10, (3, 4)


@dataclass(frozen=True, slots=True)
class Place:
    """A sampled address: its RVA in the image, and the RVA before the image was rearranged (the same if it was not)."""

    rva: int
    before: int


class PdbFacts:
    """One PDB. `PeerFailed` is raised if purepdb refuses it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._pdb = PDB.open(str(path), copy=True)
            self._info = self._pdb.info()
            self.machine = self._pdb.dbi.machine
            former = self._pdb.original_sections if self.is_rearranged else []
            sections = former or self._pdb.sections
        except (PdbError, ValueError, IndexError) as error:
            message = f"purepdb: {error}"
            raise PeerFailed(message) from error
        self.sections = [(section.name, section.virtual_address, section.virtual_size) for section in sections]
        self._code = [
            (self.sections[piece.segment - 1][1] + piece.offset, piece.size)
            for piece in self._pdb.section_contributions()
            if 0 < piece.segment <= len(sections) and sections[piece.segment - 1].executable and piece.size > 0
        ]

    @property
    def is_rearranged(self) -> bool:
        """Say whether the image was rearranged after linking (OMAP)."""
        return bool(self._pdb.omap)

    @property
    def guid(self) -> str:
        """GUID as 32 hex digits, as our tests write it."""
        raw = self._info.guid
        return (raw[3::-1] + raw[5:3:-1] + raw[7:5:-1] + raw[8:]).hex().upper()

    @property
    def age(self) -> int:
        """Age in the info stream."""
        return self._info.age

    def sample(self, count: int, seed: int) -> list[Place]:
        """Return `count` addresses in code of object files, each byte as probable as any other; the same each time.

        What is between them is left out: filling, and the room that incremental linking keeps free.
        """
        if not self._code:
            message = "no code"
            raise PeerFailed(message)
        chance = random.Random(seed)
        places: list[Place] = []
        for start, size in chance.choices(self._code, weights=[size for _, size in self._code], k=20 * count):
            before = start + chance.randrange(size)
            rva = self._pdb.omap.lookup(before) if self._pdb.omap else before
            if rva is not None and 0 < rva < 1 << 31:
                places.append(Place(rva, before))
            if len(places) == count:
                break
        return places

    @cached_property
    def _functions(self) -> tuple[list[tuple[int, int]], list[frozenset[str]]]:
        at: dict[tuple[int, int], set[str]] = {}
        for procedure in (*self._pdb.module_procs(), *self._pdb.thunks()):
            at.setdefault((procedure.segment, procedure.offset), set()).add(bare_name(undecorate(procedure.name)))
        for public in self._pdb.public_symbols():
            name = undecorate(public.name)
            if name == public.name and self.machine == X86:
                name = plain(name)
            at.setdefault((public.segment, public.offset), set()).add(bare_name(name))
        keys = sorted(at)
        return keys, [frozenset(at[key]) for key in keys]

    def procedures(self, count: int) -> list[tuple[str, int]]:
        """Return name and RVA of so many procedure records, the same ones each time.

        Records of functions that the linker left out are not among them: their address is in no code.
        """
        known = ((one.name, self.sections[one.segment - 1][1] + one.offset) for one in self._pdb.module_procs())
        placed = [(name, rva) for name, rva in known if any(start <= rva < start + size for start, size in self._code)]
        return random.Random(count).sample(placed, count)

    def names_at(self, before: int) -> frozenset[str]:
        """Return all names of the function that starts at or before an RVA of the image as it was linked."""
        segment, offset = self._place(before)
        keys, names = self._functions
        index = bisect_right(keys, (segment, offset)) - 1
        return names[index] if index >= 0 and keys[index][0] == segment else frozenset()

    @cached_property
    def _jumps(self) -> list[tuple[int, int, int, str]]:
        """Section, start, end and name of each thunk, and of each trampoline of incremental linking."""
        found = [
            (one.segment, one.offset, one.offset + one.length, bare_name(undecorate(one.name)))
            for one in self._pdb.thunks()
        ]
        trampolines = self._pdb.trampolines()
        first = min((one.offset for one in trampolines), default=0)
        found += [(one.segment, one.offset, one.offset + one.size, f"ILT+{one.offset - first}") for one in trampolines]
        return found

    def jump_at(self, before: int) -> Chain:
        """Return the thunk or trampoline at an RVA of the image as it was linked, which other readers leave out."""
        segment, offset = self._place(before)
        names = (name for at, start, end, name in self._jumps if at == segment and start <= offset < end)
        return tuple(PeerFrame(name, "", 0) for name in names)[:1]

    def _place(self, before: int) -> tuple[int, int]:
        """Return the section number, from 1, and the offset in it; (0, 0) if it is in none."""
        for number, (_, start, size) in enumerate(self.sections, 1):
            if start <= before < start + size:
                return number, before - start
        return 0, 0

    def as_linked(self) -> bytes:
        """Return the PDB as it was before the image was rearranged, for readers that know nothing of that."""
        msf = self._pdb.msf
        data = bytearray(self.path.read_bytes())
        if not self.is_rearranged:
            return bytes(data)
        slots = self._pdb.dbi.dbg_header
        start = msf.stream_size(3) - 2 * len(slots)
        former = slots[_FORMER_SECTIONS] if len(slots) > _FORMER_SECTIONS else _NO_STREAM
        changed = dict.fromkeys((*_REARRANGED, _FORMER_SECTIONS), _NO_STREAM)
        if former != _NO_STREAM:
            changed[_SECTIONS] = former
        size = msf.super.block_size
        for slot, stream in changed.items():
            if slot < len(slots):
                for at, byte in enumerate(stream.to_bytes(2, "little"), start + 2 * slot):
                    data[msf.stream_blocks[3][at // size] * size + at % size] = byte
        return bytes(data)


def plain(name: str) -> str:
    """Return a C name of x86 without its decoration: `_f@8`, `@f@8` and `_f` are `f`."""
    head, at, tail = name.rpartition("@")
    if at and head and tail.isdigit():
        name = head
    return name[1:] if name[:1] in ("_", "@") else name
