# SPDX-License-Identifier: Apache-2.0
"""Memory that is attacked: pages of a process laid out by the project's own test builders, with changes over them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tests.fuzz.mutate import edit
from throwstack.core.memory import PAGE_SIZE, Memory, PageSource

_SHOWN = 24


@dataclass
class Shot:
    """A mutant of the engine: what it changed, in words, made when they are asked for."""

    changes: list[str] = field(default_factory=list)

    def note(self, what: str, before: bytes, after: bytes) -> None:
        """Note a change of bytes: the first and the last that differ, and what was there."""
        same = next((at for at, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), None)
        start = min(len(before), len(after)) if same is None else same
        old, new = (data[start : start + _SHOWN].hex() for data in (before, after))
        self.changes.append(f"{what}: {len(before)} -> {len(after)} bytes, from {start:#x} on {old} -> {new}")


class Changed:
    """A page source with some pages changed or gone."""

    def __init__(self, pages: dict[int, bytes], changes: dict[int, bytes | None]) -> None:
        self._pages = pages
        self._changes = changes

    def page(self, address: int) -> bytes | None:
        """Return a page."""
        return self._changes[address] if address in self._changes else self._pages.get(address)


class Ground:
    """Pages by address, and the ranges in them that are worth an attack."""

    def __init__(self, segments: Iterable[tuple[int, bytes]]) -> None:
        self.pages: dict[int, bytes] = {}
        for address, data in segments:
            end = address + len(data)
            for start in range(address & -PAGE_SIZE, end, PAGE_SIZE):
                page = bytearray(self.pages.get(start, bytes(PAGE_SIZE)))
                low, high = max(start, address), min(start + PAGE_SIZE, end)
                page[low - start : high - start] = data[low - address : high - address]
                self.pages[start] = bytes(page)
        self.hot: list[tuple[int, int]] = []
        self.values: list[int] = []

    @classmethod
    def of(cls, source: PageSource, addresses: Iterable[int]) -> Ground:
        """Return the ground of those pages of a source that are there."""
        made = cls(())
        made.pages = {at: page for at in addresses if (page := source.page(at)) is not None}
        return made

    def aim(self, address: int, size: int) -> None:
        """Note a range worth an attack, as far as its pages are there."""
        self.hot += self.pieces(address, size)

    def pieces(self, address: int, size: int) -> list[tuple[int, int]]:
        """Return a range as pieces of one page each, as far as the pages are there."""
        found = []
        while size > 0:
            part = min(size, PAGE_SIZE - address % PAGE_SIZE)
            if address & -PAGE_SIZE in self.pages:
                found.append((address, part))
            address, size = address + part, size - part
        return found

    def mutate(self, rng: random.Random, shot: Shot, hot: Sequence[tuple[int, int]] = ()) -> Memory:
        """Return the memory with a few changes."""
        changes: dict[int, bytes | None] = {}
        targets = hot or self.hot or [(at, PAGE_SIZE) for at in self.pages]
        for _ in range(1 + min(int(rng.expovariate(0.8)), 6)):
            address, size = rng.choice(targets)
            start = address & -PAGE_SIZE
            page = changes.get(start, self.pages[start])
            if page is None:
                continue
            if rng.random() < 0.04:
                changes[start] = None
                shot.changes.append(f"page {start:#x} removed")
                continue
            offset = address - start
            donor = rng.choice(targets)
            made = edit(rng, page[offset : offset + size], self.values, self._bytes(donor))
            at = offset + made.at
            shot.changes.append(
                f"{start + at:#x}: {page[at : at + min(len(made.data), _SHOWN)].hex()} -> {made.data[:_SHOWN].hex()} "
                f"({made.how})"
            )
            changes[start] = page[:at] + made.data + page[at + len(made.data) :]
        return Memory(Changed(self.pages, changes))

    def _bytes(self, where: tuple[int, int]) -> bytes:
        address, size = where
        page = self.pages[address & -PAGE_SIZE]
        return page[address % PAGE_SIZE : address % PAGE_SIZE + size]
