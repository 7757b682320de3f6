# SPDX-License-Identifier: Apache-2.0
"""A structure of the runtime as a row of letters, one for each word: what kind of thing it holds, and not what it is.

Example: `M..Oh#` is a structure of six words: a pointer to a MethodTable, two zeros, a pointer to an object, a pointer
to a handle of an object, a small number. So a structure can be compared with that of a known version, without its data.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from throwstack.core.memory import MemoryUnreadable
from throwstack.images.image import Image, ImageMap
from throwstack.managed.method_tables import MethodTables
from throwstack.managed.runtime_memory import LOWEST, BudgetSpent, RuntimeMemory

LEGEND = {
    ".": "zero",
    "#": "a number below 65,536",
    "i": "the thread's id",
    "T": "the address of the thread's TEB",
    "R": "an address in the runtime's image",
    "I": "an address in another image",
    "M": "a pointer to a MethodTable",
    "O": "a pointer to an object",
    "h": "a pointer to a handle of an object",
    "p": "another pointer to memory that is there",
    "x": "anything else",
    "?": "not readable",
    "-": "not looked at: the budget is spent",
}
_ROW = 32


@dataclass(frozen=True, slots=True)
class WordMap:
    """A structure, and a letter of `LEGEND` for each of its words."""

    structure: str
    letters: str

    def rows(self) -> Iterator[str]:
        """Yield the letters in rows of 32 words."""
        for at in range(0, len(self.letters), _ROW):
            yield self.letters[at : at + _ROW]


@dataclass(frozen=True, slots=True)
class StructureMaps:
    """Makes the maps of structures of one process."""

    memory: RuntimeMemory
    tables: MethodTables
    images: ImageMap
    runtime: Image

    def of(self, structure: str, address: int, size: int, tid: int, teb: int) -> WordMap:
        """Return the map of the `size` bytes at `address`; `tid` and `teb` are of the thread that it belongs to."""
        step = self.memory.size
        return WordMap(
            structure, "".join(self._letter(place, tid, teb) for place in range(address, address + size, step))
        )

    def _letter(self, place: int, tid: int, teb: int) -> str:
        try:
            value = self.memory.word(place)
            if value in {0, teb} or value & 0xFFFFFFFF == tid:
                return "." if value == 0 else "T" if value == teb else "i"
            return "#" if value < LOWEST else self._of_address(value)
        except MemoryUnreadable:
            return "?"
        except BudgetSpent:
            return "-"

    def _of_address(self, value: int) -> str:
        image = self.images.find(value)
        if self.tables.is_genuine(value):
            return "M"
        if image is not None:
            return "R" if image is self.runtime else "I"
        if not self.memory.is_pointer(value):
            return "x"
        return "O" if self._is_object(value) else "h" if self._leads_to_object(value) else "p"

    def _is_object(self, address: int) -> bool:
        try:
            return self.tables.is_genuine(self.memory.word(address) & -self.memory.size)
        except MemoryUnreadable:
            return False

    def _leads_to_object(self, cell: int) -> bool:
        try:
            target = self.memory.word(cell)
        except MemoryUnreadable:
            return False
        return self.memory.is_pointer(target) and self._is_object(target)
