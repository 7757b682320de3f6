# SPDX-License-Identifier: Apache-2.0
"""Finds the functions of an address space's images by address. Their unwind information is decoded once.

A function may have several entries (RUNTIME_FUNCTIONs). A chained entry (UNW_FLAG_CHAININFO) names the entry whose
prologue ran before its own; the last entry of such a chain is the primary one. An entry whose unwind RVA is odd is only
a reference to another entry.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from throwstack.core.memory import Memory, MemoryUnreadable
from throwstack.core.registers import Arch
from throwstack.core.stop import Stop, corrupt, unreadable
from throwstack.images.function_table import FunctionTable, RuntimeFunction
from throwstack.images.image import Image, ImageMap
from throwstack.unwind.code_outside import CodeOutside
from throwstack.unwind.x64.inverted_table import InvertedTable
from throwstack.unwind.x64.table_by_contents import table_by_contents
from throwstack.unwind.x64.unwind_info import UnwindInfo, decode

CHAIN_LIMIT = 32
"""Most entries of a chain that are followed; Windows itself follows as many."""
_MAX_BASES = 4096


@dataclass(frozen=True, slots=True)
class Part:
    """One entry (RUNTIME_FUNCTION) of a function, and its decoded unwind information."""

    entry: RuntimeFunction
    info: UnwindInfo

    def position(self, rva: int) -> int:
        """Return the unsigned 32-bit offset of `rva` from the begin of this entry, as Windows computes it.

        An unwind code of this entry is in effect at `rva` if the code's own offset is not greater than this one. `rva`
        may be in another entry of the function that is chained to this one and is at a lower address. The difference
        then wraps to a very large offset, so that all unwind codes of this entry are in effect, as they should be: its
        prologue ran before.
        """
        return (rva - self.entry.begin) & 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Function:
    """A function: the entry that covers an address, and the entries that it is chained to, the primary one last.

    `base` is the address at which the image is loaded. `note` says how the image's function table was found, if that
    was not by the image's headers.
    """

    base: int
    parts: tuple[Part, ...]
    note: str = ""

    @property
    def begin(self) -> int:
        """Return the RVA at which the whole function begins."""
        return self.parts[-1].entry.begin

    def has_frame_at(self, rva: int) -> bool:
        """Say whether any unwind code holds at `rva`: the prologue has already pushed or allocated something."""
        return any(code.offset <= part.position(rva) for part in self.parts for code in part.info.codes)


@dataclass(frozen=True, slots=True)
class _UnwindInfos:
    """The unwind information to which entries with a common base lead. What has been decoded is kept by its RVA."""

    memory: Memory
    base: int
    name: str
    note: str = ""
    infos: dict[int, UnwindInfo | Stop] = field(default_factory=dict)

    def resolve(self, entry: RuntimeFunction) -> Function | Stop:
        """Return the function to which `entry` belongs; a `Stop` if its unwind information is corrupt or absent."""
        try:
            return self._resolve(entry)
        except MemoryUnreadable as error:
            return unreadable(error.address, f"unwind data of {self.name}")

    def _resolve(self, entry: RuntimeFunction) -> Function | Stop:
        base = self.base
        parts: list[Part] = []
        for _ in range(CHAIN_LIMIT):
            if entry.unwind & 1:
                place = entry.unwind - 1
                entry = RuntimeFunction.read(self.memory, base + place)
                if not entry.is_plausible:
                    return corrupt(f"indirect entry that cannot be one at {base + place:#x}")
                continue
            info = self.infos.get(entry.unwind)
            if info is None:
                info = self.infos[entry.unwind] = decode(self.memory, base + entry.unwind)
            if isinstance(info, Stop):
                return info
            parts.append(Part(entry, info))
            if info.chained is None:
                return Function(base, tuple(parts), self.note)
            entry = info.chained
        return corrupt(f"chain of more than {CHAIN_LIMIT} entries at {base + entry.begin:#x}")


@dataclass(frozen=True, slots=True)
class _View:
    """An image's function table, and its unwind information."""

    table: FunctionTable | Stop | None
    infos: _UnwindInfos

    def find(self, rva: int) -> Function | Stop | None:
        if self.table is None or isinstance(self.table, Stop):
            return self.table
        entry = self.table.find(rva)
        return entry if entry is None or isinstance(entry, Stop) else self.infos.resolve(entry)


class Functions:
    """Finds functions of an address space's images, and functions outside of them that a source knows, by address."""

    __slots__ = ("_images", "_inverted", "_outside", "_outside_infos", "_views")

    def __init__(
        self, images: ImageMap, inverted: InvertedTable | None = None, outside: CodeOutside | None = None
    ) -> None:
        """`images` are the modules of the address space, and have its memory.

        `inverted` is the loader's list of function tables, used for images whose headers cannot be read. `outside` is
        what is known of code outside the images.
        """
        self._images = images
        self._inverted = inverted
        self._outside = outside or CodeOutside(images)
        self._views: dict[int, _View] = {}
        self._outside_infos: dict[tuple[int, str], _UnwindInfos] = {}

    def find(self, address: int) -> Function | Stop | None:
        """Return the function at `address`.

        None means that no entry covers `address`: it is in a leaf function, or outside the images and unknown. A `Stop`
        means that
        the entry cannot be determined, or that its unwind information is corrupt or cannot be read.
        """
        image = self._images.find(address)
        if image is None:
            return self._find_outside(address)
        view = self._views.get(image.base)
        if view is None:
            view = self._views[image.base] = self._open(image, self._images.memory)
        return view.find(address - image.base)

    def code(self, address: int, size: int) -> bytes:
        """Return `size` bytes of code at `address`, or fewer if a page is absent."""
        return self._images.memory.read_available(address, size)

    def _find_outside(self, address: int) -> Function | Stop | None:
        known = self._outside.function(address)
        if known is None or known.entry is None:
            return None
        note = "" if known.name else known.source
        key = known.base, note
        infos = self._outside_infos.get(key)
        if infos is None:
            if len(self._outside_infos) >= _MAX_BASES:
                self._outside_infos.clear()
            infos = self._outside_infos[key] = _UnwindInfos(self._images.memory, known.base, known.source, note)
        return infos.resolve(known.entry)

    def _open(self, image: Image, memory: Memory) -> _View:
        headers, name = image.headers, image.module.name
        infos = _UnwindInfos(memory, image.base, name)
        if headers is not None:
            is_x64 = headers.arch is Arch.X64
            return _View(image.function_table if is_x64 else corrupt(f"{name} is not an x64 image"), infos)
        listed = None if self._inverted is None else self._inverted.function_table(image.module)
        how = "by the loader's list"
        if listed is None:
            listed, how = table_by_contents(memory, image.module), "by its contents"
        if listed is not None:
            note = f"{name} has no readable headers: unwind data found {how}"
            return _View(FunctionTable(memory, *listed), replace(infos, note=note))
        return _View(unreadable(image.base, f"headers of {name}"), infos)
