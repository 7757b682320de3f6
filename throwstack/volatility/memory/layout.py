# SPDX-License-Identifier: Apache-2.0
"""Looks up offsets and sizes of Windows' structures in an ISF table, so that structures can be read as plain bytes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from volatility3.framework import constants, exceptions, interfaces
from volatility3.framework.symbols import intermed

from throwstack.core.memory import Memory
from throwstack.locations import isf_directory
from throwstack.pages.page_table_entries import Bits

_WOW64_TABLE = "throwstack-wow64"


@dataclass(frozen=True, slots=True)
class Member:
    """A member that is a number: its offset and size in bytes, and for a bit field its first bit and its width."""

    offset: int
    size: int
    shift: int = 0
    width: int = 0

    def read(self, memory: Memory, address: int) -> int:
        """Return the unsigned value of the member in the structure at `address`; raises `MemoryUnreadable`."""
        value = int.from_bytes(memory.read(address + self.offset, self.size), "little")
        return (value >> self.shift) & ((1 << self.width) - 1) if self.width else value


class Layout:
    """Looks up offsets and sizes in one symbol table of a Volatility context."""

    def __init__(self, context: interfaces.context.ContextInterface, table: str) -> None:
        """Keep the Volatility `context` and the name of one of its symbol tables."""
        self._context = context
        self._table = table
        self.find = cache(self._find)

    def offset(self, path: str) -> int:
        """Return the offset of a member such as `_ETHREAD.Tcb.Teb`; raises LookupError if the table lacks it."""
        offset = self.find(path)
        if offset is None:
            message = f"the symbol table has no {path}"
            raise LookupError(message)
        return offset

    def bits(self, path: str) -> tuple[int, Bits] | None:
        """Return (offset of the word, bits in it) of a bit field, `_MMVAD_SHORT.u.VadFlags.MemCommit`, or None."""
        member = self.member(path)
        return (member.offset, Bits(member.shift, member.width)) if member is not None and member.width else None

    def size(self, type_name: str) -> int | None:
        """Return the size of a type in bytes, or None if the table does not have it."""
        if not self._context.symbol_space.has_type(self._table + constants.BANG + type_name):
            return None
        size: int = self._type(type_name).size
        return size

    def _type(self, type_name: str) -> interfaces.objects.Template:
        return self._context.symbol_space.get_type(self._table + constants.BANG + type_name)

    def member(self, path: str) -> Member | None:
        """Return a member that is a number, a pointer or a bit field, or None if the table lacks it."""
        found = self._resolve(path)
        if found is None:
            return None
        offset, template = found
        start, end = template.vol.get("start_bit"), template.vol.get("end_bit")
        if start is None or end is None:
            return Member(offset, template.size)
        return Member(offset, template.size, start, end - start)

    def _find(self, path: str) -> int | None:
        found = self._resolve(path)
        return None if found is None else found[0]

    def _resolve(self, path: str) -> tuple[int, interfaces.objects.Template] | None:
        type_name, *members = path.split(".")
        total = 0
        try:
            template = self._type(type_name)
            for index, member in enumerate(members):
                if index:
                    template = self._context.symbol_space.get_type(template.vol.type_name)
                total += template.relative_child_offset(member)
                template = template.child_template(member)
        except (exceptions.SymbolError, KeyError, AttributeError, IndexError):
            return None
        return total, template


def wow64_layout(context: interfaces.context.ContextInterface, config_path: str) -> Layout:
    """Return the layout of the 32-bit structures of a WoW64 process, which no 64-bit kernel's table contains.

    `config_path` is where Volatility keeps the table's configuration. The table is opened by its path, so that a table
    of the same name in a directory given with `-s` does not replace it. Raises LookupError if the installation lacks
    it.
    """
    name = context.symbol_space.free_table_name(_WOW64_TABLE)
    url = (isf_directory() / "windows" / f"{_WOW64_TABLE}.json").as_uri()
    context.symbol_space.append(intermed.IntermediateSymbolTable(context, config_path, name, isf_url=url))
    return Layout(context, name)
