# SPDX-License-Identifier: Apache-2.0
"""Reads the type and the name of an object of the object manager, from the headers in memory before the object.

The type is found in two ways. Up to Vista, OBJECT_HEADER.Type points to the OBJECT_TYPE. Since Windows 7, TypeIndex is
an index into ObTypeIndexTable. Since Windows 10, that index is stored xored with the second byte of the header's
address and with ObHeaderCookie.

The name is in an OBJECT_HEADER_NAME_INFO. Up to Vista, NameInfoOffset says how many bytes before the header it is.
Since Windows 7, it exists if bit 1 of InfoMask is set. If bit 0 is also set, an OBJECT_HEADER_CREATOR_INFO is between
it and the header.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from throwstack.core.memory import MemoryUnreadable
from throwstack.core.text import decode_wide, escape
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.memory.offsets import offset, size, take

_MAX_NAME = 256
_MAX_TYPE_NAME = 64
_CREATOR_INFO, _NAME_INFO = 1, 2


@dataclass(frozen=True, slots=True)
class _Offsets:
    body: int | None = offset("_OBJECT_HEADER.Body", optional=True)
    type: int | None = offset("_OBJECT_HEADER.Type", optional=True)
    type_index: int | None = offset("_OBJECT_HEADER.TypeIndex", optional=True)
    type_name: int | None = offset("_OBJECT_TYPE.Name", optional=True)
    name_info: int | None = offset("_OBJECT_HEADER.NameInfoOffset", optional=True)
    info_mask: int | None = offset("_OBJECT_HEADER.InfoMask", optional=True)
    name_in_info: int | None = offset("_OBJECT_HEADER_NAME_INFO.Name", optional=True)
    name_info_size: int | None = size("_OBJECT_HEADER_NAME_INFO", optional=True)
    creator_info_size: int | None = size("_OBJECT_HEADER_CREATOR_INFO", optional=True)
    length: int | None = offset("_UNICODE_STRING.Length", optional=True)
    buffer: int | None = offset("_UNICODE_STRING.Buffer", optional=True)


class ObjectHeaders:
    """Reads the names of the kernel objects of a machine."""

    def __init__(self, machine: Machine) -> None:
        """Look up the offsets of the headers in the symbols of `machine`."""
        self._machine = machine
        self._offsets = take(_Offsets, machine.layout)
        self._type_names = cache(self._read_type_name)
        self._index_table = machine.symbol("ObTypeIndexTable")
        self._cookie_at = machine.symbol("ObHeaderCookie")

    def name(self, address: int, expected_type: str) -> str:
        """Return the name of the object at `address`, escaped; "" if it has no name.

        Not every dispatcher object has an object header: an event may be part of a driver's own structure, for example.
        So the header is used only if the type in it is `expected_type`.
        """
        body, name_in_info = self._offsets.body, self._offsets.name_in_info
        if body is None or not expected_type:
            return ""
        header = address - body
        try:
            if self._type_of(header) != expected_type:
                return ""
            info = self._name_info(header)
            return "" if info is None or name_in_info is None else self._string(info + name_in_info)
        except MemoryUnreadable:
            return ""

    def type_name(self, address: int) -> str:
        """Return the type of the object at `address`, escaped; "" if it cannot be found out."""
        body = self._offsets.body
        try:
            return "" if body is None else self._type_of(address - body)
        except MemoryUnreadable:
            return ""

    def _type_of(self, header: int) -> str:
        machine, memory, offsets = self._machine, self._machine.memory, self._offsets
        if offsets.type is not None:
            return self._type_names(machine.pointer(memory, header + offsets.type))
        if offsets.type_index is None or self._index_table is None:
            return ""
        index = memory.u8(header + offsets.type_index)
        if self._cookie_at is not None:
            index ^= (header >> 8) & 0xFF ^ memory.u8(self._cookie_at)
        return self._type_names(machine.pointer(memory, self._index_table + index * machine.pointer_size))

    def _read_type_name(self, object_type: int) -> str:
        type_name = self._offsets.type_name
        if not object_type or type_name is None:
            return ""
        try:
            return self._string(object_type + type_name, _MAX_TYPE_NAME)
        except MemoryUnreadable:
            return ""

    def _name_info(self, header: int) -> int | None:
        memory, offsets = self._machine.memory, self._offsets
        if offsets.name_info is not None:
            distance = memory.u8(header + offsets.name_info)
            return header - distance if distance else None
        if offsets.info_mask is None or offsets.name_info_size is None or offsets.creator_info_size is None:
            return None
        mask = memory.u8(header + offsets.info_mask)
        if not mask & _NAME_INFO:
            return None
        return header - offsets.name_info_size - (offsets.creator_info_size if mask & _CREATOR_INFO else 0)

    def _string(self, address: int, limit: int = _MAX_NAME) -> str:
        """Return the UNICODE_STRING at `address`, escaped, and shortened to `limit` characters."""
        machine, memory, offsets = self._machine, self._machine.memory, self._offsets
        if offsets.length is None or offsets.buffer is None:
            return ""
        length = memory.u16(address + offsets.length)
        buffer = machine.pointer(memory, address + offsets.buffer)
        if not length or not buffer:
            return ""
        return escape(decode_wide(memory.read(buffer, min(length, 2 * (limit + 1)))), limit)
