# SPDX-License-Identifier: Apache-2.0
"""Lays structures out in memory by label, so that a test reads as the structures it describes.

`Layout` takes bytes, numbers and labels in order; a label stands for the address of whatever was placed under it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from throwstack.core.exception_record import ExceptionRecord
from throwstack.core.memory import Memory, memory_of
from throwstack.core.registers import Arch
from throwstack.images.image import ImageMap
from throwstack.images.modules import Module, ModuleMap

BASE = 0x10000000
"""Base of the module `thrower.dll` that holds what `Layout` places."""
SIZE = 0x100000


@dataclass(frozen=True)
class Ptr:
    """The address of a label, plus an offset, as a pointer."""

    label: str
    offset: int = 0


@dataclass(frozen=True)
class Ref:
    """A label as MSVC's C++ data refers to it: an address on x86, an RVA on x64; 4 bytes either way."""

    label: str


@dataclass
class Layout:
    """Memory under construction, from `BASE` on."""

    arch: Arch
    labels: dict[str, int] = field(default_factory=dict)
    _parts: list[tuple[int, object]] = field(default_factory=list)
    _next: int = BASE + 0x1000

    def place(self, label: str, *parts: object) -> int:
        """Place parts (bytes, int for a dword, Ptr, Ref) at the next 16-byte boundary; return their address."""
        self._next = (self._next + 15) & ~15
        address = self.labels[label] = self._next
        for part in parts:
            self._parts.append((self._next, part))
            self._next += self._size(part)
        return address

    def _size(self, part: object) -> int:
        if isinstance(part, bytes):
            return len(part)
        return self.arch.pointer_size if isinstance(part, Ptr) else 4

    def _bytes(self, part: object) -> bytes:
        match part:
            case bytes():
                return part
            case int():
                return struct.pack("<I", part & 0xFFFFFFFF)
            case Ptr(label, offset):
                value = self.labels[label] + offset if label else offset
                return value.to_bytes(self.arch.pointer_size, "little")
            case Ref(label):
                return struct.pack("<I", self.labels[label] - (BASE if self.arch is Arch.X64 else 0))
        raise TypeError(part)

    def memory(self, *without: str) -> Memory:
        """Return the memory; labels in `without` are absent (their pages hold nothing else: see `page`)."""
        gone = {self.labels[label] & ~0xFFF for label in without}
        return memory_of(
            (at, self._bytes(part)) for at, part in self._parts if at & ~0xFFF not in gone and self._size(part)
        )

    def page(self) -> None:
        """Go on at the next page."""
        self._next = (self._next + 0xFFF) & ~0xFFF

    def images(self, memory: Memory) -> ImageMap:
        """Return a map with the one module that everything lies in."""
        return ImageMap(memory, ModuleMap([Module("thrower.dll", r"c:\app\thrower.dll", BASE, SIZE)]))


def record(code: int, *parameters: int, address: int = 0x401000) -> ExceptionRecord:
    """Return a record with these parameters."""
    return ExceptionRecord(code, 1, address, 0, parameters, 0x12F000, len(parameters))


def throw(
    layout: Layout, *types: tuple[str, int], offset: int = 0, virtual: dict[int, tuple[int, int]] | None = None
) -> None:
    """Place ThrowInfo `info` for an object that can be caught as each of (decorated name, size), its own first.

    Bases lie `offset` bytes in; `virtual` gives, for a base by its index, the PMD's pdisp and vdisp.
    """
    for index, (name, _) in enumerate(types):
        layout.place(f"type{index}", Ptr("", 0), Ptr("", 0), name.encode("latin-1") + b"\0")
    for index, (name, size) in enumerate(types):
        simple = 0 if name.startswith((".?AV", ".?AU")) else 1
        table = (virtual or {}).get(index, (-1, 0))
        layout.place(f"catchable{index}", simple, Ref(f"type{index}"), offset if index else 0, *table, size, 0)
    layout.place("array", len(types), *(Ref(f"catchable{index}") for index in range(len(types))))
    layout.place("info", 0, 0, 0, Ref("array"))


def cpp_record(layout: Layout) -> ExceptionRecord:
    """Return what `_CxxThrowException` raises for the labels `object` and `info`."""
    base = (BASE,) if layout.arch is Arch.X64 else ()
    return record(0xE06D7363, 0x19930520, layout.labels["object"], layout.labels["info"], *base)
