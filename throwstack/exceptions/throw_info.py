# SPDX-License-Identifier: Apache-2.0
"""Reads ThrowInfo of Visual C++: the type of a thrown object, and the bases as which it can be caught.

The structures are those of ehdata.h (`_s_ThrowInfo`, `_CatchableTypeArray`, `_CatchableType`, `_PMD`, TypeDescriptor).
On x86 they hold addresses; on x64 they hold RVAs, relative to the image base that is the exception's fourth parameter.
The structures are in the read-only data of the module that threw.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from throwstack.core.memory import Memory, MemoryUnreadable
from throwstack.core.registers import Arch
from throwstack.core.text import escape
from throwstack.names.demangle import type_name

MAX_TYPES = 64
MAX_NAME = 1024
_TYPE_NAME_LIMIT = 512

_THROW_INFO = struct.Struct("<IIII")
_CATCHABLE_TYPE = struct.Struct("<IIiiiI")
_INT = struct.Struct("<i")
_STRINGS = tuple(
    (f"std::basic_string<{unit},std::char_traits<{unit}>,std::allocator<{unit}> >", name)
    for unit, name in (("char", "std::string"), ("wchar_t", "std::wstring"))
)


@dataclass(frozen=True, slots=True)
class CatchableType:
    """A type as which a thrown object can be caught: the object's own type, or a base.

    `raw_name` is the name in the TypeDescriptor (`.?AVexception@std@@`), and `name` is the readable form. `size` is the
    size of the type in bytes. The part of the object that has this type is `offset` bytes after the start of the
    object. A virtual base is at a different offset in each derived class: then a pointer to the virtual base table is
    at `table_offset` in the object, and the distance to be added is at byte `table_index` of the table. For other types
    `table_offset` is -1 and `table_index` is 0.
    """

    raw_name: str
    name: str
    size: int
    offset: int
    table_offset: int
    table_index: int

    def find(self, memory: Memory, arch: Arch, address: int) -> int:
        """Return the address of the part with this type in the object at `address`; raises `MemoryUnreadable`."""
        if self.table_offset < 0:
            return address + self.offset
        at = address + self.table_offset
        table = memory.pointer(at, arch.pointer_size)
        (displacement,) = _INT.unpack(memory.read(table + self.table_index, _INT.size))
        return at + int(displacement) + self.offset


@dataclass(frozen=True, slots=True)
class ThrowInfo:
    """The types as which a thrown object can be caught, the object's own type first.

    `note` says what could not be read; it is "" if everything could.
    """

    types: tuple[CatchableType, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class _Reader:
    memory: Memory
    arch: Arch
    base: int

    def follow(self, value: int) -> int:
        """Return the address that `value` stands for, which is read from a pointer field of the structures."""
        return value if self.arch is Arch.X86 else self.base + value


def read_throw_info(memory: Memory, arch: Arch, address: int, image_base: int) -> ThrowInfo:
    """Read the ThrowInfo at `address`. `image_base` is used on x64 only, where pointers are RVAs.

    Never raises an exception: `ThrowInfo.note` says what could not be read.
    """
    reader = _Reader(memory, arch, image_base)
    try:
        array = reader.follow(_THROW_INFO.unpack(memory.read(address, _THROW_INFO.size))[3])
        count = memory.u32(array)
    except MemoryUnreadable as error:
        return ThrowInfo((), f"the throw info is not in memory (0x{error.address:x})")
    note = "" if 0 < count <= MAX_TYPES else f"the throw info claims {count} types"
    types: list[CatchableType] = []
    for index in range(min(count, MAX_TYPES)):
        try:
            entry = reader.follow(memory.u32(array + 4 + 4 * index))
            found = _catchable_type(reader, entry)
        except MemoryUnreadable as error:
            return ThrowInfo(tuple(types), note or f"the throw info is in memory in part (0x{error.address:x})")
        if found is None:
            return ThrowInfo(tuple(types), note or "the throw info is corrupt")
        if found in types:
            note = note or "the throw info repeats a type"
            continue
        types.append(found)
    return ThrowInfo(tuple(types), note)


def _catchable_type(reader: _Reader, address: int) -> CatchableType | None:
    data = reader.memory.read(address, _CATCHABLE_TYPE.size)
    _, descriptor, offset, table_offset, table_index, size = _CATCHABLE_TYPE.unpack(data)
    raw = _type_name(reader, reader.follow(descriptor))
    if raw is None:
        return None
    readable = type_name(raw)
    for expanded, name in _STRINGS:
        readable = readable.replace(expanded, name)
    return CatchableType(
        escape(raw, _TYPE_NAME_LIMIT),
        escape(readable, _TYPE_NAME_LIMIT),
        size,
        offset,
        table_offset,
        table_index,
    )


def _type_name(reader: _Reader, descriptor: int) -> str | None:
    """Return the decorated name in the TypeDescriptor at `descriptor`, where it comes after two pointers.

    The result is None if the name is empty. It ends with `…` if the name is cut off.
    """
    data = reader.memory.read_available(descriptor + 2 * reader.arch.pointer_size, MAX_NAME + 1)
    if not data:
        raise MemoryUnreadable(descriptor + 2 * reader.arch.pointer_size)
    name, end, _ = data.partition(b"\0")
    if not name:
        return None
    return name.decode("latin-1") + ("" if end else "…")
