# SPDX-License-Identifier: Apache-2.0
"""Objects of the object manager: the type and the name that the headers before an object give it.

OBJECT_HEADER.Type points to the OBJECT_TYPE up to Vista; from Windows 7 on TypeIndex counts into ObTypeIndexTable, and
from 10 on it is mixed with a byte of the header's address and ObHeaderCookie. The OBJECT_HEADER_NAME_INFO lies before
the header: NameInfoOffset bytes up to Vista; from 7 on where InfoMask has bit 1, before the creator's info (bit 0).
"""

from __future__ import annotations

from functools import cache

from volatility3.framework import exceptions

from throwstack.core.memory import MemoryUnreadable
from throwstack.core.text import decode_wide, escape
from throwstack.volatility.memory.machine import Machine

_MAX_NAME = 256
_MAX_TYPE_NAME = 64
_CREATOR_INFO, _NAME_INFO = 1, 2


class ObjectHeaders:
    """Reads names of objects; the offsets are looked up once."""

    def __init__(self, machine: Machine) -> None:
        """Take offsets from the layout of `machine`."""
        self._machine = machine
        layout = machine.layout
        self._body = layout.find("_OBJECT_HEADER.Body")
        self._type = layout.find("_OBJECT_HEADER.Type")
        self._type_index = layout.find("_OBJECT_HEADER.TypeIndex")
        self._type_name = layout.find("_OBJECT_TYPE.Name")
        self._name_offset = layout.find("_OBJECT_HEADER.NameInfoOffset")
        self._info_mask = layout.find("_OBJECT_HEADER.InfoMask")
        self._name_in_info = layout.find("_OBJECT_HEADER_NAME_INFO.Name")
        self._sizes = {
            name: layout.size(name) if layout.has_type(name) else None
            for name in ("_OBJECT_HEADER_NAME_INFO", "_OBJECT_HEADER_CREATOR_INFO")
        }
        self._length = layout.find("_UNICODE_STRING.Length")
        self._buffer = layout.find("_UNICODE_STRING.Buffer")
        self._type_names = cache(self._read_type_name)
        self._index_table = self._symbol("ObTypeIndexTable")
        self._cookie_at = self._symbol("ObHeaderCookie")

    def name(self, address: int, expected_type: str) -> str:
        """Return the name of the object at `address`, escaped; "" if it has none.

        What lies before an object that is part of something else is no header: its type must be `expected_type`.
        """
        if self._body is None or not expected_type:
            return ""
        header = address - self._body
        try:
            if self._type_of(header) != expected_type:
                return ""
            info = self._name_info(header)
            return "" if info is None or self._name_in_info is None else self._string(info + self._name_in_info)
        except MemoryUnreadable:
            return ""

    def _type_of(self, header: int) -> str:
        machine, memory = self._machine, self._machine.memory
        if self._type is not None:
            return self._type_names(machine.pointer(memory, header + self._type))
        if self._type_index is None or self._index_table is None:
            return ""
        index = memory.u8(header + self._type_index)
        if self._cookie_at is not None:
            index ^= (header >> 8) & 0xFF ^ memory.u8(self._cookie_at)
        return self._type_names(machine.pointer(memory, self._index_table + index * machine.pointer_size))

    def _read_type_name(self, object_type: int) -> str:
        if not object_type or self._type_name is None:
            return ""
        try:
            return self._string(object_type + self._type_name, _MAX_TYPE_NAME)
        except MemoryUnreadable:
            return ""

    def _name_info(self, header: int) -> int | None:
        memory = self._machine.memory
        if self._name_offset is not None:
            offset = memory.u8(header + self._name_offset)
            return header - offset if offset else None
        size, creator = self._sizes["_OBJECT_HEADER_NAME_INFO"], self._sizes["_OBJECT_HEADER_CREATOR_INFO"]
        if self._info_mask is None or size is None or creator is None:
            return None
        mask = memory.u8(header + self._info_mask)
        if not mask & _NAME_INFO:
            return None
        return header - size - (creator if mask & _CREATOR_INFO else 0)

    def _string(self, address: int, limit: int = _MAX_NAME) -> str:
        """Return the UNICODE_STRING at `address`, escaped, cut where it is longer than `limit`."""
        machine, memory = self._machine, self._machine.memory
        if self._length is None or self._buffer is None:
            return ""
        length = memory.u16(address + self._length)
        buffer = machine.pointer(memory, address + self._buffer)
        if not length or not buffer:
            return ""
        return escape(decode_wide(memory.read(buffer, min(length, 2 * (limit + 1)))), limit)

    def _symbol(self, name: str) -> int | None:
        kernel = self._machine.kernel
        try:
            return self._machine.canonical(int(kernel.offset + kernel.get_symbol(name).address))
        except exceptions.SymbolError:
            return None
