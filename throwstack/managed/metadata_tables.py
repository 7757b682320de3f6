# SPDX-License-Identifier: Apache-2.0
"""Reads the rows of the #~ stream: the tables of types, methods, fields and parameters of one image.

Follows ECMA-335, II.22 (what columns a table has) and II.24.2.6 (how wide they are). An index into a heap has 2 bytes
or 4, by a flag for each heap. An index into a table has 4 bytes if that table has more than 65,535 rows. A coded index
has the number of one of several tables in its low bits, and 4 bytes if a row number of any of them does not fit in 2
with these bits. Rows are read one at a time, because a look-up needs few of them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from throwstack.core.memory import Memory, MemoryUnreadable
from throwstack.managed.metadata_error import MetadataError
from throwstack.managed.work import Work, metadata_work

_HEADER = struct.Struct("<4xBBBxQQ")
_MAX_ROWS = 1 << 24
"""A token has 24 bits for the row."""
_EXTRA_DATA = 0x40
"""A flag of the stream's header: another u32 follows the row counts."""


class Table(IntEnum):
    """The tables, by their number in tokens."""

    MODULE = 0x00
    TYPE_REF = 0x01
    TYPE_DEF = 0x02
    FIELD_PTR = 0x03
    FIELD = 0x04
    METHOD_PTR = 0x05
    METHOD_DEF = 0x06
    PARAM_PTR = 0x07
    PARAM = 0x08
    INTERFACE_IMPL = 0x09
    MEMBER_REF = 0x0A
    CONSTANT = 0x0B
    CUSTOM_ATTRIBUTE = 0x0C
    FIELD_MARSHAL = 0x0D
    DECL_SECURITY = 0x0E
    CLASS_LAYOUT = 0x0F
    FIELD_LAYOUT = 0x10
    STAND_ALONE_SIG = 0x11
    EVENT_MAP = 0x12
    EVENT_PTR = 0x13
    EVENT = 0x14
    PROPERTY_MAP = 0x15
    PROPERTY_PTR = 0x16
    PROPERTY = 0x17
    METHOD_SEMANTICS = 0x18
    METHOD_IMPL = 0x19
    MODULE_REF = 0x1A
    TYPE_SPEC = 0x1B
    IMPL_MAP = 0x1C
    FIELD_RVA = 0x1D
    ENC_LOG = 0x1E
    ENC_MAP = 0x1F
    ASSEMBLY = 0x20
    ASSEMBLY_PROCESSOR = 0x21
    ASSEMBLY_OS = 0x22
    ASSEMBLY_REF = 0x23
    ASSEMBLY_REF_PROCESSOR = 0x24
    ASSEMBLY_REF_OS = 0x25
    FILE = 0x26
    EXPORTED_TYPE = 0x27
    MANIFEST_RESOURCE = 0x28
    NESTED_CLASS = 0x29
    GENERIC_PARAM = 0x2A
    METHOD_SPEC = 0x2B
    GENERIC_PARAM_CONSTRAINT = 0x2C


_CODED: dict[str, tuple[int, tuple[int, ...]]] = {
    "TypeDefOrRef": (2, (0x02, 0x01, 0x1B)),
    "HasConstant": (2, (0x04, 0x08, 0x17)),
    "HasCustomAttribute": (
        5,
        tuple(b"\x06\x04\x01\x02\x08\x09\x0a\x00\x0e\x17\x14\x11\x1a\x1b\x20\x23\x26\x27\x28\x2a\x2c\x2b"),
    ),
    "HasFieldMarshal": (1, (0x04, 0x08)),
    "HasDeclSecurity": (2, (0x02, 0x06, 0x20)),
    "MemberRefParent": (3, (0x02, 0x01, 0x1A, 0x06, 0x1B)),
    "HasSemantics": (1, (0x14, 0x17)),
    "MethodDefOrRef": (1, (0x06, 0x0A)),
    "MemberForwarded": (1, (0x04, 0x06)),
    "Implementation": (2, (0x26, 0x23, 0x27)),
    "CustomAttributeType": (3, (-1, -1, 0x06, 0x0A)),
    "ResolutionScope": (2, (0x00, 0x1A, 0x23, 0x01)),
    "TypeOrMethodDef": (1, (0x02, 0x06)),
}
"""Of each coded index: how many low bits select the table, and the tables whose rows it can have (-1: not used)."""

_COLUMNS: dict[int, str] = {
    0x00: "u16 string guid guid guid",
    0x01: "ResolutionScope string string",
    0x02: "u32 string string TypeDefOrRef row:04 row:06",
    0x03: "row:04",
    0x04: "u16 string blob",
    0x05: "row:06",
    0x06: "u32 u16 u16 string blob row:08",
    0x07: "row:08",
    0x08: "u16 u16 string",
    0x09: "row:02 TypeDefOrRef",
    0x0A: "MemberRefParent string blob",
    0x0B: "u16 HasConstant blob",
    0x0C: "HasCustomAttribute CustomAttributeType blob",
    0x0D: "HasFieldMarshal blob",
    0x0E: "u16 HasDeclSecurity blob",
    0x0F: "u16 u32 row:02",
    0x10: "u32 row:04",
    0x11: "blob",
    0x12: "row:02 row:14",
    0x13: "row:14",
    0x14: "u16 string TypeDefOrRef",
    0x15: "row:02 row:17",
    0x16: "row:17",
    0x17: "u16 string blob",
    0x18: "u16 row:06 HasSemantics",
    0x19: "row:02 MethodDefOrRef MethodDefOrRef",
    0x1A: "string",
    0x1B: "blob",
    0x1C: "u16 MemberForwarded string row:1A",
    0x1D: "u32 row:04",
    0x1E: "u32 u32",
    0x1F: "u32",
    0x20: "u32 u16 u16 u16 u16 u32 blob string string",
    0x21: "u32",
    0x22: "u32 u32 u32",
    0x23: "u16 u16 u16 u16 u32 blob string string blob",
    0x24: "u32 row:23",
    0x25: "u32 u32 u32 row:23",
    0x26: "u32 string blob",
    0x27: "u32 u32 string string Implementation",
    0x28: "u32 u32 string Implementation",
    0x29: "row:02 row:02",
    0x2A: "u16 u16 TypeOrMethodDef string",
    0x2B: "MethodDefOrRef blob",
    0x2C: "row:2A TypeDefOrRef",
}
"""The columns of each table, in the order of ECMA-335, II.22. `row:06` is the number of a row of table 6."""

_HEAP_FLAGS = {"string": 1, "guid": 2, "blob": 4}


def decode_coded(kind: str, value: int) -> tuple[int, int]:
    """Return table and row of the coded index `value` of the kind `kind`. Raises MetadataError for an unknown table."""
    bits, tables = _CODED[kind]
    number = value & ((1 << bits) - 1)
    if number >= len(tables) or tables[number] < 0:
        message = f"{value:#x} is no coded index of the kind {kind}"
        raise MetadataError(message)
    return tables[number], value >> bits


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a table is: address of the first row, count of rows, bytes of a row, and its columns (offset, width)."""

    address: int
    count: int
    size: int
    columns: tuple[tuple[int, int], ...]


class MetadataTables:
    """The tables of one image's metadata. Rows are numbered from 1, as in tokens."""

    __slots__ = ("_memory", "_places", "work")

    def __init__(self, memory: Memory, address: int, size: int, work: Work | None = None) -> None:
        """The #~ stream is in `memory` at `address` and has `size` bytes. `work` counts the rows that are read.

        Raises:
            MetadataError: the stream's header is absent or damaged, or its tables do not fit into the stream.
        """
        self._memory = memory
        self.work = metadata_work() if work is None else work
        self._places: dict[int, _Place] = {}
        try:
            self._locate(address, size)
        except MemoryUnreadable as error:
            message = f"the metadata tables are not readable at {error.address:#x}"
            raise MetadataError(message) from error

    def _locate(self, address: int, size: int) -> None:
        _, _, heaps, valid, _ = _HEADER.unpack(self._memory.read(address, _HEADER.size))
        numbers = [number for number in range(64) if valid >> number & 1]
        at = address + _HEADER.size
        counts = dict(
            zip(numbers, struct.unpack(f"<{len(numbers)}I", self._memory.read(at, 4 * len(numbers))), strict=True)
        )
        at += 4 * len(numbers) + (4 if heaps & _EXTRA_DATA else 0)
        if any(count >= _MAX_ROWS for count in counts.values()):
            message = f"the metadata tables at {address:#x} claim more rows than a token can name"
            raise MetadataError(message)
        for number in numbers:
            if number not in _COLUMNS:
                break  # tables of portable PDBs follow the others
            columns, width = [], 0
            for column in _COLUMNS[number].split():
                columns.append((width, _width(column, heaps, counts)))
                width += columns[-1][1]
            self._places[number] = _Place(at, counts[number], width, tuple(columns))
            at += width * counts[number]
        if at > address + size:
            message = f"the metadata tables at {address:#x} do not fit into their {size:,} bytes"
            raise MetadataError(message)

    def count(self, table: int) -> int:
        """Return how many rows `table` has, 0 if the image does not have it."""
        place = self._places.get(table)
        return 0 if place is None else place.count

    def row(self, table: int, rid: int) -> tuple[int, ...]:
        """Return the columns of row `rid` of `table`. Raises MetadataError if there is none or it is not readable."""
        place = self._place(table, rid)
        data = self._read(place.address + (rid - 1) * place.size, place.size, table, rid)
        return tuple(int.from_bytes(data[at : at + width], "little") for at, width in place.columns)

    def cell(self, table: int, rid: int, column: int) -> int:
        """Return one column of row `rid` of `table`, with the errors of `row`."""
        place = self._place(table, rid)
        at, width = place.columns[column]
        return int.from_bytes(self._read(place.address + (rid - 1) * place.size + at, width, table, rid), "little")

    def last_not_above(self, table: int, column: int, value: int) -> int:
        """Return the last row of `table` whose `column` is at most `value`, 0 if there is none.

        The table has to be sorted by the column. In one that is not, the result can be any row: look at it.
        """
        low, high = 0, self.count(table)
        while low < high:
            middle = (low + high + 1) // 2
            if self.cell(table, middle, column) <= value:
                low = middle
            else:
                high = middle - 1
        return low

    def _place(self, table: int, rid: int) -> _Place:
        place = self._places.get(table)
        if place is None or not 1 <= rid <= place.count:
            message = f"the metadata have no row {rid} in table {table:#04x}"
            raise MetadataError(message)
        return place

    def _read(self, address: int, size: int, table: int, rid: int) -> bytes:
        self.work.take()
        try:
            return self._memory.read(address, size)
        except MemoryUnreadable as error:
            message = f"row {rid} of metadata table {table:#04x} is not readable at {address:#x}"
            raise MetadataError(message) from error


def _width(column: str, heaps: int, counts: dict[int, int]) -> int:
    """Return how many bytes `column` has, in metadata with the heap flags `heaps` and the row counts `counts`."""
    if column in ("u16", "u32"):
        return 2 if column == "u16" else 4
    if column in _HEAP_FLAGS:
        return 4 if heaps & _HEAP_FLAGS[column] else 2
    if column.startswith("row:"):
        return 4 if counts.get(int(column[4:], 16), 0) > 0xFFFF else 2
    bits, tables = _CODED[column]
    return 4 if any(counts.get(table, 0) >= 1 << (16 - bits) for table in tables) else 2
