# SPDX-License-Identifier: Apache-2.0
"""Functions of the images of an address space: found by address, their unwind information decoded once.

A function may have several entries. A chained one (UNW_FLAG_CHAININFO) continues at the entry whose prologue ran
before it, down to the primary one; an entry whose unwind RVA is odd stands for another entry as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass

from throwstack.images import Image, ImageMap
from throwstack.memory import Memory, MemoryUnreadable
from throwstack.registers import Arch
from throwstack.unwind.x64.runtime_functions import FunctionTable
from throwstack.unwind.x64.stop import Stop, corrupt, unreadable
from throwstack.unwind.x64.unwind_info import RuntimeFunction, UnwindInfo, decode

CHAIN_LIMIT = 32
"""How many entries Windows itself follows."""


@dataclass(frozen=True, slots=True)
class Part:
    """One entry of a function and its unwind information."""

    entry: RuntimeFunction
    info: UnwindInfo

    def position(self, rva: int) -> int:
        """Return the offset of `rva` from the entry's begin.

        Unsigned, as Windows computes it: code that lies before the entry it is chained to is far past its prologue.
        """
        return (rva - self.entry.begin) & 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Function:
    """The entry that covers an address and those it is chained to, the primary one last.

    `memory` is what its unwind data was read from, `origin` the path of the image file if that was not the dump.
    """

    base: int
    parts: tuple[Part, ...]
    memory: Memory
    origin: str = ""

    @property
    def begin(self) -> int:
        """Return the RVA at which the whole function begins."""
        return self.parts[-1].entry.begin

    def has_frame_at(self, rva: int) -> bool:
        """Say whether any unwind code holds at `rva`."""
        return any(code.offset <= part.position(rva) for part in self.parts for code in part.info.codes)


class Functions:
    """Look-up of functions by address."""

    __slots__ = ("_images", "_infos", "_tables")

    def __init__(self, images: ImageMap) -> None:
        """Look into `images`."""
        self._images = images
        self._tables: dict[int, FunctionTable | Stop | None] = {}
        self._infos: dict[tuple[int, int], UnwindInfo | Stop] = {}

    def find(self, address: int) -> Function | Stop | None:
        """Return the function at `address`.

        None says that no entry covers it (a leaf function, or code outside the images); a stop says that this, or
        the entry's unwind information, cannot be known.
        """
        image = self._images.find(address)
        if image is None:
            return None
        try:
            return self._find(image, address - image.base)
        except MemoryUnreadable as error:
            return unreadable(error.address, f"unwind data of {image.module.name}")

    def _find(self, image: Image, rva: int) -> Function | Stop | None:
        table = self._table(image)
        if table is None or isinstance(table, Stop):
            return table
        entry = table.find(rva)
        if entry is None or isinstance(entry, Stop):
            return entry
        return self._resolve(image.base, entry)

    def _table(self, image: Image) -> FunctionTable | Stop | None:
        if image.base not in self._tables:
            self._tables[image.base] = self._open_table(image)
        return self._tables[image.base]

    def _open_table(self, image: Image) -> FunctionTable | Stop | None:
        headers = image.headers
        if headers is None:
            return unreadable(image.base, f"headers of {image.module.name}")
        if headers.arch is not Arch.X64:
            return corrupt(f"{image.module.name} is not an x64 image")
        rva, size = headers.exception_directory
        return FunctionTable(self._images.memory, image.base + rva, size) if rva and size else None

    def _resolve(self, base: int, entry: RuntimeFunction) -> Function | Stop:
        memory = self._images.memory
        parts: list[Part] = []
        for _ in range(CHAIN_LIMIT):
            if entry.unwind & 1:
                entry = RuntimeFunction.read(memory, base + entry.unwind - 1)
                if not entry.is_plausible:
                    return corrupt(f"indirect entry that cannot be one at RVA {entry.unwind - 1:#x}")
                continue
            info = self._info(base, entry.unwind)
            if isinstance(info, Stop):
                return info
            parts.append(Part(entry, info))
            if info.chained is None:
                return Function(base, tuple(parts), memory)
            entry = info.chained
        return corrupt(f"chain of more than {CHAIN_LIMIT} entries at {base + entry.begin:#x}")

    def _info(self, base: int, rva: int) -> UnwindInfo | Stop:
        info = self._infos.get((base, rva))
        if info is None:
            info = self._infos[base, rva] = decode(self._images.memory, base + rva)
        return info
