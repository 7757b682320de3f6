# SPDX-License-Identifier: Apache-2.0
"""Finds the JIT-compiled method at an address by what the runtime keeps beside the code. This module is for x64.

The runtime puts a pointer before each method's code, which leads to the method's header (RealCodeHeader in
dotnet/runtime, src/coreclr/vm/codeman.h). The header ends with the method's RUNTIME_FUNCTIONs:

    code - 8   RealCodeHeader*
    header     0x00 debug info   0x08 EH info   0x10 GC info   0x18 MethodDesc   0x20 u32 count   0x24 RUNTIME_FUNCTIONs

The first entry is the method's body. The others are its funclets: the code of catch, finally and filter blocks, which
is called as functions of their own. The RVAs count from the begin of the code heap (its page, or 0x20 bytes after it in
.NET Core 2.1 and 3.1). Unwind information follows the code, after the read-only data of the method. .NET Core 2.1,
3.1, .NET 8 and .NET 10 have the same layout.

Without the runtime's symbols, no list of methods is found. So the words before an address are looked at one after the
other, back to the begin of its region, until one leads to a header whose entries cover the address.
"""

from __future__ import annotations

import itertools
import struct
from bisect import bisect_right, insort
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from throwstack.core.memory import PAGE_SIZE, Memory, MemoryUnreadable
from throwstack.core.regions import Regions
from throwstack.core.stop import Stop
from throwstack.images.function_table import RuntimeFunction
from throwstack.unwind.code_outside import OutsideFunction
from throwstack.unwind.x64.unwind_info import decode

SOURCE = "clr"
"""The source's name, in notes of frames."""
MAX_STEP_BACK = 128 << 10
"""The most bytes before an address that are searched for the begin of its method."""
_MAX_WORDS = 1 << 22
_MAX_HEADERS = 1 << 18
"""The most words that are looked at for all addresses of a process, and the most that are followed to a header."""
_MAX_KEPT = 1 << 14
_WORD = struct.Struct("<Q")
_HEADER = struct.Struct("<QQQQI")
_ENTRY = struct.Struct("<III")
_MAX_ENTRIES, _ENTRIES_A_HEADER = 1024, 8
"""The most entries of a method, and how many of them cost as much as a look at a header."""
_BASE_UNIT = 0x10
_MAX_DATA = 1 << 16
"""The most bytes from the end of a method's code to the last of its unwind information."""
_LOWEST, _END = 0x10000, 1 << 47


class KnownMethod(Protocol):
    """What this module uses of a method that the runtime's memory describes."""

    @property
    def name(self) -> str:
        """The method's name with namespace and type; "" if it cannot be read."""


class MethodLookup(Protocol):
    """Knows the methods of one process by the address of their MethodDesc."""

    def at(self, method_desc: int) -> KnownMethod | None:
        """Return the method whose MethodDesc is at this address, None if no genuine one is there."""


@dataclass(frozen=True, slots=True)
class JitMethod:
    """A JIT-compiled method: its code is at `start` <= address < `end`, its MethodDesc at `method_desc`.

    On x64, `entries` are its RUNTIME_FUNCTIONs, whose RVAs count from `base`; the first is the body, the others are
    funclets. On x86 there are none; `gc_info` is the address of its GC info.
    """

    start: int
    end: int
    method_desc: int
    gc_info: int = 0
    base: int = 0
    entries: tuple[RuntimeFunction, ...] = ()

    def entry_at(self, address: int) -> RuntimeFunction | None:
        """Return the entry that covers `address`, None if there is none."""
        rva = address - self.base
        return next((entry for entry in self.entries if entry.begin <= rva < entry.end), None)

    def is_funclet(self, address: int) -> bool:
        """Say whether `address` is in a funclet: in the code of a catch, finally or filter block."""
        return bool(self.entries) and self.entry_at(address) is not self.entries[0]


class JitSearch:
    """Words of code before an address, with a limit on all of them together; and the methods that were found."""

    __slots__ = ("_headers", "_known", "_left", "_memory", "_regions", "_tried", "_unread")

    def __init__(self, memory: Memory, regions: Regions | None) -> None:
        """`regions` are those of the process, None if they are not known."""
        self._memory = memory
        self._regions = regions
        self._left = _MAX_WORDS
        self._headers = _MAX_HEADERS
        self._known: list[JitMethod] = []
        self._tried: set[int] = set()
        self._unread: dict[int, int] = {}

    def unread(self, address: int) -> int | None:
        """Return an absent address that was met in the search for the method at `address`; None if there was none."""
        return self._unread.get(address)

    def note_unread(self, address: int, place: int) -> None:
        """Note that the search for the method at `address` met absent memory at `place`, if the process has any there.

        Any number may look like a pointer to a header: so what is in no region of the process is not noted.
        """
        if address in self._unread or self._regions is None:
            return
        if self._regions.find(place) is not None:
            if len(self._unread) >= _MAX_KEPT:
                self._unread.clear()
            self._unread[address] = place

    def known(self, address: int) -> JitMethod | None:
        """Return the method at `address`, if it was found before."""
        at = bisect_right(self._known, address, key=_start) - 1
        return self._known[at] if at >= 0 and address < self._known[at].end else None

    def may_search(self, address: int) -> bool:
        """Say whether to search for the method at `address`: not twice, and only where code can be."""
        if address in self._tried or self._left <= 0 or self._headers <= 0 or address < _LOWEST:
            return False
        region = None if self._regions is None else self._regions.find(address)
        return region is None or region.is_executable

    def may_follow(self, entries: int = 0) -> bool:
        """Count one more word that is followed to a header, or the header's `entries`, and say whether it may be."""
        self._headers -= entries // _ENTRIES_A_HEADER if entries else 1
        return self._headers >= 0

    def keep(self, address: int, found: JitMethod | None) -> JitMethod | None:
        """Note what was found at `address`, and return it."""
        if len(self._tried) >= _MAX_KEPT:
            self._tried.clear()
        self._tried.add(address)
        if found is not None:
            if len(self._known) >= _MAX_KEPT:
                self._known.clear()
            insort(self._known, found, key=_start)
        return found

    def back(self, address: int, word: struct.Struct) -> Iterator[tuple[int, int]]:
        """Yield each word before `address`, with its address, the nearest first, back to the begin of the region."""
        size = word.size
        region = None if self._regions is None else self._regions.find(address)
        lowest = max(address - MAX_STEP_BACK, _LOWEST, 0 if region is None else region.start)
        end = address & -size
        while end > lowest and self._left > 0:
            page = (end - 1) & -PAGE_SIZE
            data = self._memory.page(page)
            if data is None:
                self.note_unread(address, page)
                return
            first = max(lowest, page)
            count = (end - first) // size
            self._left -= count
            at = end
            for (value,) in reversed([*word.iter_unpack(data[end - page - count * size : end - page])]):
                at -= size
                yield at, value
            end = page


def _start(method: JitMethod) -> int:
    return method.start


class JitCodeOfProcess:
    """What the JIT-compiled code of a process needs on each architecture. Nothing is read before the first look-up."""

    __slots__ = ("_memory", "_methods", "_search")

    def __init__(self, memory: Memory, methods: MethodLookup | None = None, regions: Regions | None = None) -> None:
        """`methods` know the process's methods by their MethodDesc; without them, functions have no names.

        `regions` are the regions of the process, None if they are not known.
        """
        self._memory = memory
        self._methods = methods
        self._search = JitSearch(memory, regions)

    def why_unknown(self, address: int) -> str:
        """Return what hides the method at `address`, for which none was found; "" if nothing is known to."""
        place = self._search.unread(address)
        return "" if place is None else f"what may tell of it, at {place:#x}, is not in the dump"

    def _name(self, method: JitMethod) -> str:
        """Return the name of a method, "" if it is not known."""
        known = None if self._methods is None else self._methods.at(method.method_desc)
        return "" if known is None else known.name


class JitCode(JitCodeOfProcess):
    """The JIT-compiled code of one x64 process, a `FunctionSource`. Nothing is read before the first look-up."""

    __slots__ = ()

    def function_at(self, address: int) -> OutsideFunction | None:
        """Return the method or funclet at `address`, with its unwind data; None if no JIT-compiled code is there."""
        method = self.method_at(address)
        if method is None:
            return None
        return OutsideFunction(SOURCE, self._name(method), method.base, method.entry_at(address), start=method.start)

    def method_at(self, address: int) -> JitMethod | None:
        """Return the JIT-compiled method whose code is at `address`, None if none is found."""
        known = self._search.known(address)
        if known is not None or not self._search.may_search(address):
            return known
        found = None
        for at, header in self._search.back(address, _WORD):
            if header & 7 or not _LOWEST <= header < _END:
                continue
            if not self._search.may_follow():
                break
            method = self._method(at + 8, header, address)
            if method is not None and method.entry_at(address) is not None:
                found = method
                break
        return self._search.keep(address, found)

    def _method(self, start: int, header: int, address: int) -> JitMethod | None:
        """Return the method whose code begins at `start` and whose header is at `header`; None if this is no header.

        `address` is the one that is looked up.
        """
        try:
            _, _, gc_info, method_desc, count = _HEADER.unpack(self._memory.read(header, _HEADER.size))
            if not 1 <= count <= _MAX_ENTRIES or method_desc & 7 or not _LOWEST <= method_desc < _END:
                return None
            first = RuntimeFunction(*_ENTRY.unpack(self._memory.read(header + _HEADER.size, _ENTRY.size)))
            base = start - first.begin
            if base % _BASE_UNIT or not gc_info or not first.is_plausible or not self._search.may_follow(count):
                return None
            data = self._memory.read(header + _HEADER.size, count * _ENTRY.size)
            entries = _in_order([RuntimeFunction(*entry) for entry in _ENTRY.iter_unpack(data)])
            if not first.end <= first.unwind <= entries[-1].end + _MAX_DATA:
                return None
            if first.unwind & 3 or isinstance(decode(self._memory, base + first.unwind), Stop):
                return None
        except MemoryUnreadable as error:
            self._search.note_unread(address, error.address)
            return None
        return JitMethod(start, base + entries[-1].end, method_desc, gc_info, base, entries)


def _in_order(entries: list[RuntimeFunction]) -> tuple[RuntimeFunction, ...]:
    """Return the entries that follow each other, from the first one on.

    The runtime of .NET 8 reserves two entries for a `DynamicMethod`, and fills in the first one.
    """
    for index, (before, entry) in enumerate(itertools.pairwise(entries), 1):
        if not entry.is_plausible or entry.begin < before.end or entry.unwind & 3 or entry.unwind < before.unwind:
            return tuple(entries[:index])
    return tuple(entries)
