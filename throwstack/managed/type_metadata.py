# SPDX-License-Identifier: Apache-2.0
"""The metadata of a MethodTable: which image describes the type, and in which row; the type's name and its fields.

A MethodTable names its Module and has the number of its row in that image's TypeDef table. Neither is believed as such
where the layout is a guess. The methods of the type's first MethodDescChunk have tokens, and these tokens must belong
to that row: a wrong image, or a wrong reading of the number, does not pass (the type's fingerprint). For example, the
instantiation of a generic type over another assembly's struct names the loader's module, which has other types in that
row; the right Module is then in a slot after the MethodTable's fixed part.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from throwstack.core.memory import MemoryUnreadable
from throwstack.managed.metadata import Metadata
from throwstack.managed.metadata_error import MetadataError
from throwstack.managed.metadata_tables import Table
from throwstack.managed.method_attributes import reflection_name
from throwstack.managed.method_tables import MethodTables
from throwstack.managed.module_images import ModuleImages
from throwstack.managed.runtime_layout import ChunkForm, RuntimeLayout
from throwstack.managed.runtime_memory import BudgetSpent, RuntimeMemory, StructureError

_MAX_FIELDS, _MAX_METHODS = 128, 512
_METHOD_LIST = 5
"""The column of TypeDef with the first of a type's methods."""
_OVERRIDE_END = 0x140
"""Up to where in a MethodTable the slot with another Module is looked for."""
_TOKEN_BITS = 24
_CLASS_SIZE = 0x80


@dataclass(frozen=True, slots=True)
class TypeRow:
    """A type in metadata: the image's metadata and the row of TypeDef."""

    metadata: Metadata
    rid: int

    @property
    def name(self) -> str:
        """Return the type's name as reflection writes it, `Shop.Orders+Line`; raises MetadataError."""
        return reflection_name(self.metadata, self.rid)


@dataclass(frozen=True, slots=True)
class FieldPlace:
    """An instance field: its offset in bytes from the object's address, and its element type (ECMA-335, II.23.1.16)."""

    offset: int
    element_type: int


class TypeMetadata:
    """Names and fields of the types of one process."""

    __slots__ = ("_fields", "_forms", "_layout", "_memory", "_modules", "_names", "_rows", "_tables")

    def __init__(
        self, memory: RuntimeMemory, layout: RuntimeLayout, tables: MethodTables, modules: ModuleImages
    ) -> None:
        """All four are of the same process."""
        self._memory = memory
        self._layout = layout
        self._tables = tables
        self._modules = modules
        self._forms = list(layout.chunks)
        self._rows: dict[int, TypeRow | str] = {}
        self._names: dict[int, str] = {}
        self._fields: dict[int, dict[str, FieldPlace]] = {}

    def row(self, method_table: int) -> TypeRow:
        """Return the row of the type. Raises StructureError with the reason why it is not known."""
        known = self._rows.get(method_table)
        if known is None:
            try:
                known = self._find(method_table)
            except BudgetSpent:
                raise
            except (StructureError, MemoryUnreadable, MetadataError) as error:
                known = str(error)
            self._rows[method_table] = known
        if isinstance(known, str):
            raise StructureError(known)
        return known

    def name(self, method_table: int) -> str:
        """Return the type's name. Raises StructureError, MetadataError with the reason why it is not known."""
        known = self._names.get(method_table)
        if known is None:
            known = self._names[method_table] = self.row(method_table).name
        return known

    def learnt(self) -> list[str]:
        """Return how methods share their tokens, and how many types have metadata, in words."""
        known = sum(isinstance(row, TypeRow) for row in self._rows.values())
        return [f"methods: {self._forms[0]}; {known} of {len(self._rows)} types have metadata"]

    def chunk_forms(self) -> tuple[ChunkForm, ...]:
        """Return the forms that a MethodDescChunk may have, the one that was right so far first."""
        return tuple(self._forms)

    def method(self, form: ChunkForm, chunk: int, method_desc: int, row: TypeRow) -> int | None:
        """Return the RID of the method at `method_desc` in `chunk`; None if it does not belong to the type `row`.

        Raises MemoryUnreadable.
        """
        memory = self._memory.memory
        at = chunk + form.range_at
        upper = memory.u8(at) if form.range_size == 1 else memory.u16(at)
        mask = (1 << form.bits) - 1
        rid = (upper & (1 << _TOKEN_BITS - form.bits) - 1) << form.bits | memory.u16(method_desc) & mask
        try:
            if row.metadata.owner_of_method(rid) != row.rid:
                return None
        except MetadataError:
            return None
        # With upper bits of 0 a small token reads the same in every form, and shows nothing.
        if upper and form != self._forms[0]:
            self._forms.remove(form)
            self._forms.insert(0, form)
        return rid

    def _find(self, method_table: int) -> TypeRow:
        self._memory.spend()
        unproven, reason = None, f"no image is known for the type at {method_table:#x}"
        if self._layout.contract is not None:
            try:
                return self._by_contract(method_table)
            except BudgetSpent:
                raise
            except StructureError as error:
                reason = str(error)
        is_hidden = False
        sample = list(self._sample(method_table))
        for module, base in self._places(method_table):
            try:
                metadata = self._modules.metadata(base)
            except MetadataError as error:
                reason, is_hidden = str(error), True
                continue
            for rid in self._rids(method_table, metadata):
                row = TypeRow(metadata, rid)
                if any(self.method(*place, row) is not None for place in sample):
                    self._modules.confirm(module, base)
                    return row
                if not sample and unproven is None and not self._layout.needs_proof:
                    unproven = row
        # An image that cannot be read may be the right one: what another one says in that row is then no guess even.
        if unproven is None or is_hidden:
            raise StructureError(reason)
        return unproven

    def _by_contract(self, method_table: int) -> TypeRow:
        """Return the row that the contract leads to. Raises StructureError: it says less (.NET 9), or is wrong here.

        Raises MetadataError if the image that it leads to cannot be read: no other image has the type.
        """
        module = self._memory.word(method_table + self._layout.module)
        metadata = self._modules.metadata(self._modules.base_of_contract(module))
        rid = self._memory.memory.u32(method_table + self._layout.flags2) >> 8
        if not 1 <= rid <= metadata.count(Table.TYPE_DEF):
            message = f"the type at {method_table:#x} has no row in its image's metadata"
            raise StructureError(message)
        return TypeRow(metadata, rid)

    def _places(self, method_table: int) -> Iterator[tuple[int, int]]:
        """Yield (Module, base of an image) for each Module that the MethodTable may name."""
        seen = set()
        for module in self._module_candidates(method_table):
            if module not in seen:
                seen.add(module)
                for base in self._modules.candidates(module):
                    yield module, base

    def _module_candidates(self, method_table: int) -> Iterator[int]:
        layout, memory = self._layout, self._memory
        yield from memory.targets(method_table + layout.module)
        for at in range(layout.eeclass + layout.pointer_size, _OVERRIDE_END, layout.pointer_size):
            for target in memory.targets(method_table + at):
                if self._modules.is_known_module(target):
                    yield target

    def _rids(self, method_table: int, metadata: Metadata) -> Iterator[int]:
        """Yield the readings of the MethodTable's RID that the metadata have a row for."""
        word = self._memory.memory.u32(method_table + self._layout.flags2)
        narrow, wide = word >> 16, word >> 8
        readings = self._tokens_in_class(method_table) if self._layout.has_token_in_class else [narrow, wide]
        for rid in (wide,) if self._layout.has_wide_token else dict.fromkeys(readings):
            if 1 <= rid <= metadata.count(Table.TYPE_DEF):
                yield rid

    def _tokens_in_class(self, method_table: int) -> list[int]:
        """Return the RIDs of the words of the type's EEClass that are TypeDef tokens."""
        eeclass = self._tables.eeclass(method_table) or 0
        data = self._memory.memory.read_available(eeclass, _CLASS_SIZE)
        words = struct.unpack_from(f"<{len(data) // 4}I", data)
        return [word & 0xFFFFFF for word in words if word >> _TOKEN_BITS == Table.TYPE_DEF]

    def _sample(self, method_table: int) -> Iterator[tuple[ChunkForm, int, int]]:
        """Yield (form, chunk, first MethodDesc) for each chunk to which the type's EEClass may point."""
        memory = self._memory
        for chunk in self._tables.class_targets(method_table, self._layout.class_chunks):
            if not any(self._tables.is_same_class(target, method_table) for target in memory.targets(chunk)):
                continue
            for form in self.chunk_forms():
                first = chunk + form.size
                if memory.memory.read_available(first + 2, 1) == b"\0" and memory.memory.is_readable(first, 4):
                    yield form, chunk, first

    def has_method(self, method_table: int, name: str) -> bool:
        """Say whether the type itself has a method of this name. Raises StructureError, MetadataError."""
        row = self.row(method_table)
        metadata = row.metadata
        first = metadata.tables.cell(Table.TYPE_DEF, row.rid, _METHOD_LIST)
        is_last = row.rid == metadata.count(Table.TYPE_DEF)
        end = metadata.count(Table.METHOD_DEF) + 1
        if not is_last:
            end = metadata.tables.cell(Table.TYPE_DEF, row.rid + 1, _METHOD_LIST)
        return any(metadata.method_name(rid) == name for rid in range(first, min(end, first + _MAX_METHODS)))

    def fields(self, method_table: int) -> dict[str, FieldPlace]:
        """Return the type's own instance fields by name. Raises StructureError, MetadataError if none can be read.

        A FieldDesc is {MethodTable, u32 with the token's RID in 24 bits and bit 24 for static, u32 with the offset in
        27 bits and the type in 5}. The offset counts from after the object's MethodTable word. In images that NGEN of
        .NET Core 2.x or .NET Framework compiled, the RID may have 17 bits, with a hash of the name in the seven above.
        """
        if method_table not in self._fields:
            self._fields[method_table] = self._read_fields(method_table)
        return self._fields[method_table]

    def _read_fields(self, method_table: int) -> dict[str, FieldPlace]:
        row = self.row(method_table)
        for first in self._tables.class_targets(method_table, self._layout.class_fields):
            found = self._fields_from(method_table, row, first)
            if found:
                return found
        message = f"the fields of the type at {method_table:#x} cannot be read"
        raise StructureError(message)

    def _fields_from(self, method_table: int, row: TypeRow, first: int) -> dict[str, FieldPlace]:
        memory, size = self._memory, self._layout.pointer_size
        found: dict[str, FieldPlace] = {}
        stride = size + 8
        for at in range(first, first + _MAX_FIELDS * stride, stride):
            if not any(self._tables.is_same_class(target, method_table) for target in memory.targets(at)):
                break
            try:
                named, placed = memory.memory.u32(at + size), memory.memory.u32(at + size + 4)
                rid = named & 0xFFFFFF
                if rid > row.metadata.count(Table.FIELD):
                    rid &= 0x1FFFF
                if row.metadata.owner_of_field(rid) != row.rid:
                    break
                if not named >> 24 & 1:
                    place = FieldPlace(size + (placed & 0x7FFFFFF), placed >> 27)
                    found[row.metadata.field_name(rid)] = place
            except (MemoryUnreadable, MetadataError):
                continue
        return found
