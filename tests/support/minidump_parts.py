# SPDX-License-Identifier: Apache-2.0
"""Takes a minidump apart, byte by byte, as minidumpapiset.h says it is laid out."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from pathlib import Path

from throwstack.core.memory import PAGE_SIZE
from throwstack.core.registers import Arch
from throwstack.minidump.dumped import DumpedProcess, DumpedSystem

STREAMS = {
    3: "threads",
    4: "modules",
    5: "memory",
    6: "exception",
    7: "system",
    9: "memory64",
    11: "comment",
    12: "handles",
    14: "unloaded",
    15: "misc",
    16: "memory-info",
    17: "thread-info",
    24: "thread-names",
}


class Parts:
    """The streams of a minidump by name."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        signature, version, count, directory, _, self.time, self.flags = struct.unpack_from("<4sIIIIIQ", data)
        assert (signature, version & 0xFFFF) == (b"MDMP", 0xA793)
        self.streams: dict[str, bytes] = {}
        for index in range(count):
            kind, size, rva = struct.unpack_from("<III", data, directory + 12 * index)
            assert rva + size <= len(data)
            assert STREAMS[kind] not in self.streams
            self.streams[STREAMS[kind]] = data[rva : rva + size]

    @classmethod
    def of(cls, file: io.BytesIO | Path) -> Parts:
        return cls(file.getvalue() if isinstance(file, io.BytesIO) else file.read_bytes())

    def part(self, size: int, rva: int) -> bytes:
        assert rva + size <= len(self.data)
        return self.data[rva : rva + size]

    def string(self, rva: int) -> str:
        (size,) = struct.unpack_from("<I", self.data, rva)
        assert self.data[rva + 4 + size : rva + 6 + size] == b"\0\0"
        return self.part(size, rva + 4).decode("utf-16-le")

    @property
    def comment(self) -> str:
        return self.streams["comment"].decode("utf-16-le").rstrip("\0")

    @property
    def memory(self) -> dict[int, bytes]:
        """All memory that the dump has, by the address of each range."""
        found: dict[int, bytes] = {}
        if "memory" in self.streams:
            stream = self.streams["memory"]
            (count,) = struct.unpack_from("<I", stream)
            for start, size, rva in struct.iter_unpack("<QII", stream[4:]):
                found[start] = self.part(size, rva)
            assert len(found) == count
        if "memory64" in self.streams:
            stream = self.streams["memory64"]
            count, at = struct.unpack_from("<QQ", stream)
            for start, size in struct.iter_unpack("<QQ", stream[16:]):
                found[start] = self.part(size, at)
                at += size
            assert len(found) == count
        return found

    @property
    def threads(self) -> list[tuple[int, ...]]:
        """Of each thread: id, suspend count, class, priority, TEB, stack (address, size, rva), context (size, rva)."""
        stream = self.streams["threads"]
        found = list(struct.iter_unpack("<IIIIQQIIII", stream[4:]))
        assert len(found) == struct.unpack_from("<I", stream)[0]
        return found

    @property
    def regions(self) -> list[tuple[int, ...]]:
        """Of each region: base, base and protection of the allocation, size, state, protection, type."""
        stream = self.streams["memory-info"]
        head, entry, count = struct.unpack_from("<IIQ", stream)
        assert (head, entry, len(stream)) == (16, 48, 16 + 48 * count)
        return [(a, b, c, d, e, f, g) for a, b, c, _, d, e, f, g, _ in struct.iter_unpack("<QQIIQIIII", stream[16:])]


class Pages:
    """A process of a few pages, all of whose page tables map one page each."""

    def __init__(self, pages: Mapping[int, bytes]) -> None:
        self._pages = pages

    def page(self, address: int) -> bytes | None:
        found = self._pages.get(address)
        return None if found is None else found.ljust(PAGE_SIZE, b"\0")


def process(arch: Arch = Arch.X64, pages: Mapping[int, bytes] | None = None, **fields: object) -> DumpedProcess:
    """Return a process with PID 4660 and these pages."""
    given = {"system": DumpedSystem(arch), **fields}
    return DumpedProcess(4660, page=Pages(pages or {}).page, **given)
