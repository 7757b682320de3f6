# SPDX-License-Identifier: Apache-2.0
"""Attacks that take more than a few bytes: stacks of megabytes made of one page, one module loaded hundreds of times.

Each costs a hostile process almost nothing: entries of page directories that lead to the same table.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.forge.paging import TABLE, USER
from tests.forge.physical import PAGE
from tests.forge.structures import Structure
from tests.fuzz.atlas import Atlas, Piece
from tests.fuzz.recording import WrittenProcess

Write = Callable[[Piece, int, bytes, str], None]
"""Takes the piece that stands for a change, the physical address, the bytes, and words for it."""
NewPage = Callable[[int, bytes], int]
"""Takes a PID and a page's contents; returns the frame of a new page."""

_MOST_SLOTS = 8
_MOST_MODULES = 512


@dataclass(frozen=True)
class Slot:
    """An unused entry of a page directory: what addresses it covers, and where it is."""

    address: int
    size: int
    physical: int


class Schemes:
    """Makes these attacks on the processes of one machine."""

    def __init__(self, atlas: Atlas) -> None:
        self._atlas = atlas
        self._victims = [
            process
            for process in atlas.record.processes
            if any(block.name == "_TEB" for block in process.user) and self._slots(process)
        ]

    def __bool__(self) -> bool:
        """Say whether there is anything to attack."""
        return bool(self._victims)

    def run(self, rng: random.Random, write: Write, new_page: NewPage) -> None:
        """Attack a process."""
        process = rng.choice(self._victims)
        rng.choice((self._stack, self._modules))(rng, process, write, new_page)

    def _slots(self, process: WrittenProcess) -> list[Slot]:
        """Return the unused entries of the directories that lead to page tables, in the user's half."""
        space, size = process.space, self._atlas.entry_size
        level = len(space.mode.levels) - 2
        shift, entries = space.mode.levels[level]
        found = []
        for (depth, prefix), (number, table) in space._tables.items():
            for index in range(entries) if depth == level else ():
                address = (prefix * entries + index) << shift
                if address and address + (1 << shift) < space.kernel_start and not space._get(table, index):
                    place = (space.root if level == 0 else number * PAGE) + index * size
                    found.append(Slot(address, 1 << shift, place))
        return sorted(found, key=lambda slot: slot.address)

    def _entry(self, frame: int) -> bytes:
        return (frame * PAGE | TABLE | USER).to_bytes(self._atlas.entry_size, "little")

    def _piece(self, process: WrittenProcess, category: str, address: int, physical: int) -> Piece:
        return Piece(category, process.pid, False, address, physical, 8, physical)

    def _put(self, process: WrittenProcess, block: Structure, path: str, value: int, write: Write) -> None:
        """Change a member of a structure in the user's or the kernel's memory."""
        at, width = block.at(path), block.layout.pointer_size
        is_user = block in process.user
        found = self._atlas.frame(process.space if is_user else self._atlas.kernel.space, at)
        if found is not None:
            physical = found[0] * PAGE + at % PAGE
            piece = self._piece(process, "schemes", at, physical)
            write(piece, physical, (value & (1 << 8 * width) - 1).to_bytes(width, "little"), f"{block.name}.{path}")

    def _stack(self, rng: random.Random, process: WrittenProcess, write: Write, new_page: NewPage) -> None:
        """Give a thread a stack of megabytes, all of one page full of one word."""
        slots = self._slots(process)
        start = rng.randrange(len(slots))
        chosen = slots[start : start + rng.randrange(1, _MOST_SLOTS + 1)]
        width = self._atlas.kernel.layout.pointer_size
        word = rng.choice(self._atlas.values[process.pid]) + rng.randrange(0x40)
        word &= (1 << 8 * width) - 1
        data = new_page(process.pid, word.to_bytes(width, "little") * (PAGE // width))
        table = new_page(process.pid, self._entry(data) * (PAGE // self._atlas.entry_size))
        for slot in chosen:
            piece = self._piece(process, "schemes", slot.address, slot.physical)
            write(piece, slot.physical, self._entry(table), f"table whose pages are one, full of {word:#x}")
        teb = rng.choice([block for block in process.user if block.name == "_TEB"])
        base = chosen[-1].address + chosen[-1].size
        self._put(process, teb, "NtTib.StackBase", base, write)
        self._put(process, teb, "NtTib.StackLimit", chosen[0].address, write)
        for block in self._frames_of(process, teb):
            path = "Rsp" if block.has("Rsp") else "HardwareEsp"
            self._put(process, block, path, chosen[0].address + rng.choice((0, 0x10, 0x8000)), write)

    def _frames_of(self, process: WrittenProcess, teb: Structure) -> Iterator[Structure]:
        """Yield the trap frame of the thread with this TEB: it was written right after its ETHREAD."""
        wanted = False
        for block in process.kernel:
            if block.name == "_ETHREAD":
                width = block.layout.pointer_size
                wanted = int.from_bytes(self._atlas.kernel.read(block.at("Tcb.Teb"), width), "little") == teb.address
            elif block.name == "_KTRAP_FRAME" and wanted:
                yield block

    def _modules(self, rng: random.Random, process: WrittenProcess, write: Write, new_page: NewPage) -> None:
        """Load one module hundreds of times, at addresses that lead to the same pages."""
        entries = [block for block in process.user if block.name == "_LDR_DATA_TABLE_ENTRY"]
        slots = self._slots(process)
        if not entries or len(slots) < 2:
            return
        model = rng.choice(entries)
        width, layout = model.layout.pointer_size, model.layout
        content = bytearray(self._atlas.read(process.space, model.address, 0x100).ljust(0x100, b"\0"))
        at = layout.offset(model.name, "DllBase")
        base = int.from_bytes(content[at : at + width], "little")
        directory = self._entry_of(process, base)
        count = min(_MOST_MODULES, len(slots) - 1, rng.choice((4, 64, _MOST_MODULES)))
        if directory is None or not count:
            return
        room, *aliases = slots[: count + 1]
        links: list[bytes] = []
        for index, slot in enumerate(aliases):
            content[:width] = (room.address + 0x100 * (index + 1)).to_bytes(width, "little")
            content[at : at + width] = (slot.address + base % slot.size).to_bytes(width, "little")
            links.append(bytes(content))
            piece = self._piece(process, "schemes", slot.address, slot.physical)
            write(piece, slot.physical, directory, "entry of the directory that leads to a module")
        head = self._atlas.read(process.space, entries[-1].address, width)
        links[-1] = head + links[-1][width:]
        data = b"".join(links)
        pages = [
            new_page(process.pid, data[start : start + PAGE].ljust(PAGE, b"\0")) for start in range(0, len(data), PAGE)
        ]
        table = new_page(process.pid, b"".join(map(self._entry, pages)).ljust(PAGE, b"\0"))
        piece = self._piece(process, "schemes", room.address, room.physical)
        write(piece, room.physical, self._entry(table), f"{count} loader entries")
        self._put(process, entries[-1], "InLoadOrderLinks", room.address, write)

    def _entry_of(self, process: WrittenProcess, address: int) -> bytes | None:
        """Return the directory's entry for an address, or None where it has none."""
        space = process.space
        level = len(space.mode.levels) - 2
        shift, entries = space.mode.levels[level]
        found = space._tables.get((level, address >> shift >> (entries.bit_length() - 1)))
        if found is None:
            return None
        entry = space._get(found[1], address >> shift & entries - 1)
        return entry.to_bytes(self._atlas.entry_size, "little") if entry else None
