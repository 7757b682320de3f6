# SPDX-License-Identifier: Apache-2.0
"""From a function of an image that NGEN has compiled (a "native image") to its method's MethodDesc.

Native images are .NET Core 2.1's System.Private.CoreLib and .NET Framework's `*.ni.dll`. The runtime's structures for
modules, types and methods are in the image, ready-made. Follows dotnet/coreclr 2.1 and 3.1:

- src/inc/corcompile.h: the header (CORCOMPILE_HEADER), with the place of the Module at 0x40;
- src/vm/ceeload.h: the Module has a pointer to an NGenLayoutInfo, whose place in it differs by version. In it are, for
  hot, unprofiled and cold code: {begin, size} of the code, table of functions, count. Beside the first two tables of
  functions are tables of the MethodDescs' RVAs (0 for a funclet, whose method comes before it; bit 0 is a flag). A
  table beside the cold functions leads to the methods that they are parts of.

So the Module's words are looked at until one leads to a structure in which all of this is inside the image.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from throwstack.core.memory import Memory, MemoryUnreadable
from throwstack.managed.cli_header import CliHeader
from throwstack.managed.metadata_error import MetadataError
from throwstack.managed.precompiled_functions import PrecompiledFunctions, PrecompiledMethod
from throwstack.managed.work import Work, precompiled_work

_SIGNATURE = b"NGE\0"
_MODULE, _HEADER_SIZE = 0x40, 0x48
_MAX_MODULE = 0x1000
_INDIRECT = 1 << 31
_MAX_FUNCLETS = 1024
_COLD = 2
_LAYOUTS = {False: struct.Struct("<9Q3I4x2Q2Q2IQ"), True: struct.Struct("<9I3I2I2I2II")}
"""NGenLayoutInfo by `is_pe32`: three ranges, three tables of functions, their counts, two tables of MethodDescs, two
tables and counts of the runtime's own search, the map of cold code."""


@dataclass(frozen=True, slots=True)
class _Part:
    """Hot, unprofiled or cold code: begin <= RVA < end, its functions, and the address of the table beside them."""

    begin: int
    end: int
    functions: PrecompiledFunctions
    beside: int


class NgenImage:
    """The precompiled methods of one native image, x64 or x86."""

    __slots__ = ("_base", "_header", "_is_x86", "_memory", "_parts", "_work")

    def __init__(self, memory: Memory, header: CliHeader, work: Work | None = None) -> None:
        """`header` is that of an image that is laid out in `memory`. `work` counts the steps in its tables.

        Raises:
            MetadataError: the image is no native image, or what is needed of it is absent or damaged.
        """
        self._memory = memory
        self._header = header
        self._work = precompiled_work() if work is None else work
        self._base = header.base
        self._is_x86 = header.is_pe32
        try:
            self._parts = self._find()
        except MemoryUnreadable as error:
            message = f"the NGEN header of the image at {header.base:#x} is not readable at {error.address:#x}"
            raise MetadataError(message) from error

    def method_at(self, rva: int) -> PrecompiledMethod | None:
        """Return the method whose code is at `rva`, None if there is none.

        Raises:
            MetadataError: a part of the image that is needed is absent or damaged.
        """
        part = next((part for part in self._parts if part.begin <= rva < part.end), None)
        number = None if part is None else part.functions.find(rva)
        if part is None or number is None:
            return None
        try:
            is_cold = part is self._parts[_COLD]
            found = self._hot(part, number) if is_cold else (part, number)
            if found is None:
                return None
            return self._method(*found, is_body=found == (part, number))
        except MemoryUnreadable as error:
            message = f"the native image at {self._base:#x} is not readable at {error.address:#x}"
            raise MetadataError(message) from error

    def gc_info(self, rva: int) -> tuple[int, int] | None:
        """Return where the GC info of the x86 method at `rva` is, and how far `rva` is from the method's start.

        The cold part of a method counts as if it followed the hot one. None if there is none. Raises MetadataError.
        """
        part = next((part for part in self._parts if part.begin <= rva < part.end), None)
        number = None if part is None else part.functions.find(rva)
        if part is None or number is None or not self._is_x86:
            return None
        offset = rva - part.functions.begin(number)
        if part is not self._parts[_COLD]:
            return part.functions.unwind(number), offset
        hot = self._hot(part, number)
        try:
            size = self._memory.u32(part.beside + 4 * number)
        except MemoryUnreadable:
            return None
        return None if hot is None else (hot[0].functions.unwind(hot[1]), size + offset)

    def _method(self, part: _Part, number: int, *, is_body: bool) -> PrecompiledMethod | None:
        for first in range(number, max(number - _MAX_FUNCLETS, -1), -1):
            self._work.take()
            rva = self._memory.u32(part.beside + 4 * first) & ~1
            if rva:
                start, address = part.functions.begin(first), self._header.address(rva)
                return PrecompiledMethod(0, start, method_desc=address, is_body=is_body and first == number)
        return None

    def _hot(self, cold: _Part, number: int) -> tuple[_Part, int] | None:
        """Return the part and number of the function that a cold function belongs to."""
        rva = 0
        if self._is_x86:
            unwind = cold.functions.unwind(number)
            rva = unwind & ~_INDIRECT if unwind & _INDIRECT else 0
        else:
            for first in range(number, max(number - _MAX_FUNCLETS, -1), -1):
                self._work.take()
                rva = self._memory.u32(cold.beside + 8 * first)
                if rva:
                    break
        for part in self._parts[:_COLD] if rva else ():
            main = part.functions.number_of(self._base + rva)
            if main is not None:
                return part, main
        return None

    def _find(self) -> tuple[_Part, ...]:
        """Return the three parts of the image's code. Raises MetadataError, MemoryUnreadable."""
        rva, size = self._header.precompiled
        head = self._memory.read(self._header.address(rva), _HEADER_SIZE) if size >= _HEADER_SIZE else b""
        if not head.startswith(_SIGNATURE):
            message = f"the image at {self._base:#x} is no native image"
            raise MetadataError(message)
        module, length = struct.unpack_from("<II", head, _MODULE)
        address, width = self._header.address(module), 4 if self._is_x86 else 8
        words = self._memory.read_available(address, min(length, _MAX_MODULE) & -width)
        for at, word in enumerate(memoryview(words).cast("I" if self._is_x86 else "Q")):
            # .NET Core 2.1 has pointers that count from their own place.
            self._work.take()
            for target in (word, address + at * width + word & ((1 << 8 * width) - 1)):
                parts = self._layout(target)
                if parts is not None:
                    return parts
        message = f"the native image at {self._base:#x} has no list of its code"
        raise MetadataError(message)

    def _layout(self, address: int) -> tuple[_Part, ...] | None:
        """Return the parts that an NGenLayoutInfo at `address` gives; None if none can be there."""
        layout = _LAYOUTS[self._is_x86]
        if not self._is_inside(address, layout.size) or address & 3:
            return None
        try:
            values = layout.unpack(self._memory.read(address, layout.size))
        except MemoryUnreadable:
            return None
        ranges, tables, counts, beside = values[:6], values[6:9], values[9:12], (*values[12:14], values[18])
        entry, parts = 8 if self._is_x86 else 12, []
        for part in range(3):
            begin, size = ranges[2 * part : 2 * part + 2]
            if not counts[part]:
                parts.append(_Part(0, 0, PrecompiledFunctions(self._memory, self._base, 0), 0))
                continue
            places = [(begin, size), (tables[part], entry * counts[part]), (beside[part], 4 * counts[part])]
            if not size or not all(self._is_inside(*place) for place in places):
                return None
            functions = PrecompiledFunctions(self._memory, tables[part], counts[part], is_x86=self._is_x86)
            parts.append(_Part(begin - self._base, begin - self._base + size, functions, beside[part]))
        return tuple(parts) if self._is_sound(parts) else None

    def _is_inside(self, address: int, size: int) -> bool:
        return self._base < address and address + size <= self._base + self._header.image_size

    def _is_sound(self, parts: list[_Part]) -> bool:
        """Say whether there is code, and the first and the last function of each part are in it."""
        known = [part for part in parts if part.functions.count]
        try:
            return bool(known) and all(
                part.begin <= part.functions.begin(0) <= part.functions.begin(part.functions.count - 1) < part.end
                for part in known
            )
        except MetadataError:
            return False
