# SPDX-License-Identifier: Apache-2.0
"""Lays out JIT-compiled code as .NET's runtime does: headers, code, funclets, unwind information.

The layout is that of dotnet/runtime, src/coreclr/vm/codeman.h (RealCodeHeader on x64, CodeHeader on x86).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from throwstack.core.regions import Region, RegionKind

HEAP, HEADERS, METHOD_DESCS = 0x20000000, 0x30000000, 0x31000000
HEAP_BASE = HEAP + 0x20
"""What RVAs of the heap count from, as in .NET Core 2.1 and 3.1."""


@dataclass
class JitHeap:
    """A code heap that grows at the end, with the methods' headers elsewhere. `starts` are the methods by name."""

    base: int = HEAP_BASE
    code: bytearray = field(default_factory=lambda: bytearray(0x100))
    headers: bytearray = field(default_factory=lambda: bytearray(0x10))
    starts: dict[str, int] = field(default_factory=dict)
    descs: dict[int, str] = field(default_factory=dict)
    """The methods' names by the addresses of their MethodDescs."""

    def method(self, name: str, parts: list[tuple[bytes, bytes]], *, data: bytes = b"", reserved: int = 0) -> int:
        """Add a method and return its start: (code, unwind information) of its body, then of its funclets.

        `data` is read-only data after the code. `reserved` more entries are counted in the header but not filled in.
        """
        desc = METHOD_DESCS + 0x20 * len(self.descs)
        self.descs[desc] = name
        header = HEADERS + len(self.headers)
        while len(self.code) % 16 != 8:
            self.code += b"\0"
        self.code += struct.pack("<Q", header)
        start = self.starts[name] = HEAP + len(self.code)
        begins = []
        for code, _ in parts:
            begins.append((HEAP + len(self.code), HEAP + len(self.code) + len(code)))
            self.code += code
        self.code += data
        entries = b""
        for (begin, end), (_, info) in zip(begins, parts, strict=True):
            while len(self.code) % 4:
                self.code += b"\0"
            entries += struct.pack("<III", *(at - self.base for at in (begin, end, HEAP + len(self.code))))
            self.code += info
        count = len(parts) + reserved
        self.headers += struct.pack("<QQQQI", 0, 0, HEADERS, desc, count) + entries + b"\x88" * 12 * reserved
        while len(self.headers) % 8:
            self.headers += b"\0"
        return start

    def segments(self) -> dict[int, bytes]:
        """Return the memory."""
        return {HEAP: bytes(self.code), HEADERS: bytes(self.headers)}


@dataclass(frozen=True)
class NamedMethod:
    """What the runtime's memory says of a method."""

    name: str


@dataclass
class MethodNames:
    """Methods by their MethodDesc."""

    names: dict[int, str]

    def at(self, method_desc: int) -> NamedMethod | None:
        """Return the method at this address."""
        name = self.names.get(method_desc)
        return None if name is None else NamedMethod(name)


class OneRegion:
    """The regions of a process that has one, of code or of data."""

    def __init__(self, start: int, end: int, *, is_executable: bool = True) -> None:
        self._region = Region(start, end, RegionKind.PRIVATE, is_executable)

    def find(self, address: int) -> Region | None:
        """Return the region at this address."""
        return self._region if self._region.start <= address < self._region.end else None
