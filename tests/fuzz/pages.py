# SPDX-License-Identifier: Apache-2.0
"""Mutants of a scene: changed, removed, redirected and privately copied physical pages."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from tests.forge.physical import PAGE
from tests.fuzz.atlas import Owners, Piece
from tests.fuzz.mutate import Edit, edit
from tests.fuzz.scenes import _SPARE, Scene
from tests.fuzz.schemes import Schemes

_SHOWN = 24
_SCHEMES = 0.03
"""The share of mutants that begin with an attack of many bytes."""
_FRAME = 0x000FFFFF_FFFFF000
_RARE = {"kernel memory": 0.4, "kernel data": 0.3, "wait objects": 0.5, "process memory": 0.6, "handle tables": 0.2}
"""How often a category is taken, where it is less often than the others."""


@dataclass(frozen=True)
class Change:
    """Something that was changed: where, and how."""

    piece: Piece
    physical: int
    before: bytes
    after: bytes
    how: str

    def __str__(self) -> str:
        piece = self.piece
        whose = "the kernel's" if piece.pid is None else f"PID {piece.pid}"
        at = piece.address + self.physical % PAGE - piece.physical % PAGE
        what = f"{_hex(self.before)} -> {_hex(self.after)}" if self.after != self.before else ""
        return f"{piece.category} ({whose}) at {at:#x}, physical {self.physical:#x}: {self.how} {what}".rstrip()


@dataclass
class Mutant:
    """The changed pages, what was changed, and which processes see any of it (None: all)."""

    pages: dict[int, bytes | None] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    touched: Owners = frozenset()
    copies: dict[tuple[int, int], int] = field(default_factory=dict)
    """Frames of pages of one process: private copies by PID and virtual page, others by PID and a number below 1."""

    @property
    def category(self) -> str:
        """The category of the first change."""
        return self.changes[0].piece.category if self.changes else "nothing"


class Maker:
    """Makes one mutant after another, each from its own random numbers."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._atlas = scene.atlas
        self._categories = list(scene.atlas.pieces)
        self._schemes = Schemes(scene.atlas)
        self._weights = [_RARE.get(category, 1.0) for category in self._categories]
        self._entries = [
            int.from_bytes(self._read(piece.physical, piece.size), "little")
            for piece in scene.atlas.pieces["page tables"][:4096]
        ]

    def make(self, rng: random.Random) -> Mutant:
        """Return a mutant in which something is changed."""
        for _ in range(20):
            mutant = self._make(rng)
            if mutant.changes:
                break
        return mutant

    def _make(self, rng: random.Random) -> Mutant:
        mutant = Mutant()
        if self._schemes and rng.random() < _SCHEMES:
            self._schemes.run(
                rng,
                lambda piece, physical, data, how: self._write(mutant, piece, physical, data, how),
                lambda pid, data: self._new_page(mutant, (pid, -len(mutant.copies)), data),
            )
            if rng.random() < 0.5:
                return mutant
        category = rng.choices(self._categories, self._weights)[0]
        for index in range(1 + min(int(rng.expovariate(0.9)), 5)):
            if index and rng.random() < 0.25:
                category = rng.choices(self._categories, self._weights)[0]
            self._change(rng, mutant, rng.choice(self._atlas.pieces[category]))
        return mutant

    def _read(self, physical: int, size: int, pages: dict[int, bytes | None] | None = None) -> bytes:
        number = physical // PAGE
        page = pages[number] if pages and number in pages else self._scene.memory._pages.get(number)
        return (page or bytes(PAGE))[physical % PAGE : physical % PAGE + size]

    def _change(self, rng: random.Random, mutant: Mutant, piece: Piece) -> None:
        physical = piece.physical
        if piece.is_user:
            physical = self._place(rng, mutant, piece)
        choice = rng.random()
        if choice < 0.04:
            self._see(mutant, physical & -PAGE, PAGE)
            mutant.pages[physical // PAGE] = None
            mutant.changes.append(Change(piece, physical, b"", b"", "page removed"))
            return
        if piece.is_user and choice < 0.07:
            self._write(mutant, piece, piece.entry, bytes(self._atlas.entry_size), "page-table entry cleared")
            return
        if piece.is_user and choice < 0.1:
            entry = rng.choice(self._entries)
            data = entry.to_bytes(self._atlas.entry_size, "little")
            self._write(mutant, piece, piece.entry, data, "page-table entry of another page")
            return
        data = self._read(physical, piece.size, mutant.pages)
        if choice < 0.13 and piece.is_user:
            word = rng.choice(self._pool(piece)) & (1 << 64) - 1
            start = physical & -PAGE
            width = self._scene.session.kernel_layer.bits_per_register // 8
            word &= (1 << 8 * width) - 1
            self._write(mutant, piece, start, word.to_bytes(width, "little") * (PAGE // width), "page full of a word")
            return
        donor = rng.choice(self._atlas.pieces[piece.category])
        made: Edit = edit(rng, data, self._pool(piece), self._read(donor.physical, donor.size))
        self._write(mutant, piece, physical + made.at, made.data, made.how)

    def _pool(self, piece: Piece) -> list[int]:
        if piece.category == "page tables":
            return self._entries
        return self._atlas.values[piece.pid] or self._entries

    def _place(self, rng: random.Random, mutant: Mutant, piece: Piece) -> int:
        """Return where to change a user's page: where it is, or in a private copy, made where several share it."""
        assert piece.pid is not None
        key = piece.pid, piece.address // PAGE
        frame = mutant.copies.get(key)
        if frame is None:
            owners = self._atlas.owners(piece.physical, 1)
            if (owners is not None and len(owners) < 2) or rng.random() < 0.4:
                return piece.physical
            frame = self._new_page(mutant, key, self._read(piece.physical & -PAGE, PAGE, mutant.pages))
            size = self._atlas.entry_size
            entry = int.from_bytes(self._read(piece.entry, size, mutant.pages), "little")
            entry = entry & ~_FRAME & (1 << 8 * size) - 1 | frame * PAGE
            self._write(mutant, piece, piece.entry, entry.to_bytes(size, "little"), "private copy of the page")
        return frame * PAGE + piece.physical % PAGE

    def _new_page(self, mutant: Mutant, key: tuple[int, int], data: bytes) -> int:
        """Bring a page of one process into being; return its frame."""
        frame = mutant.copies[key] = _SPARE + len(mutant.copies)
        mutant.pages[frame] = data
        return frame

    def _write(self, mutant: Mutant, piece: Piece, physical: int, data: bytes, how: str) -> None:
        number, at = physical // PAGE, physical % PAGE
        page = bytearray(self._read(number * PAGE, PAGE, mutant.pages))
        data = data[: PAGE - at]
        before = bytes(page[at : at + len(data)])
        if before == data and how != "private copy of the page":
            return
        self._see(mutant, physical, len(data))
        page[at : at + len(data)] = data
        mutant.pages[number] = bytes(page)
        mutant.changes.append(Change(piece, physical, before, data, how))

    def _see(self, mutant: Mutant, physical: int, size: int) -> None:
        """Note who sees a change."""
        copied = next((pid for (pid, _), frame in mutant.copies.items() if frame == physical // PAGE), None)
        owners = frozenset({copied}) if copied is not None else self._atlas.owners(physical, size)
        mutant.touched = None if owners is None or mutant.touched is None else mutant.touched | owners


def _hex(data: bytes) -> str:
    return data[:_SHOWN].hex() + (f"… ({len(data)} bytes)" if len(data) > _SHOWN else "")
