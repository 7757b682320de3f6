# SPDX-License-Identifier: Apache-2.0
"""The rows of metadata tables: widths of columns, places of tables, look-ups in sorted tables."""

from __future__ import annotations

import struct

import pytest

from throwstack.core.memory import memory_of
from throwstack.managed.metadata_error import MetadataError
from throwstack.managed.metadata_tables import MetadataTables, Table, decode_coded

BASE = 0x20000
ROW_SIZES = dict(
    enumerate(
        bytes.fromhex(
            "0a 06 0e 02 06 02 0e 02 06 04 06 06 06 04 06 08 06 02 04 02 06 04 02 06 06 06 02 02 08 06 08 04"
            "16 04 0c 14 06 0e 08 0e 0c 04 08 04 04"
        )
    )
)
"""The bytes of a row of each table where all indexes have 2 bytes, counted from ECMA-335, II.22."""


def stream(rows: dict[int, bytes], counts: dict[int, int], heaps: int = 0) -> bytes:
    head = struct.pack("<IBBBBQQ", 0, 2, 0, heaps, 1, sum(1 << table for table in counts), 0)
    head += b"".join(struct.pack("<I", counts[table]) for table in sorted(counts))
    return head + (b"\0\0\0\0" if heaps & 0x40 else b"") + b"".join(rows[table] for table in sorted(rows))


def opened(data: bytes) -> MetadataTables:
    return MetadataTables(memory_of({BASE: data}), BASE, len(data))


@pytest.mark.parametrize("heaps", [0, 0x40])
def test_each_table_has_its_place_and_its_columns(heaps: int) -> None:
    """Each row has the number of its table in every byte, and tables of portable PDBs follow."""
    rows = {table: bytes([table]) * 2 * size for table, size in ROW_SIZES.items()} | {0x30: bytes(8)}
    tables = opened(stream(rows, {table: 2 if table < 0x30 else 1 for table in rows}, heaps))
    for table, size in ROW_SIZES.items():
        row = tables.row(table, 2)
        assert {byte for value in row for byte in value.to_bytes(4, "little") if byte} <= {table}, Table(table)
        assert sum(2 if value < 0x10000 else 4 for value in row) in (size, size - 4 if not table else size)


def test_the_columns_of_a_row() -> None:
    rows = {0x02: struct.pack("<IHHHHH", 0x100001, 0x11, 0x22, 0x33, 0x44, 0x55)}
    tables = opened(stream(rows, {0x02: 1}))
    assert tables.row(Table.TYPE_DEF, 1) == (0x100001, 0x11, 0x22, 0x33, 0x44, 0x55)
    assert tables.cell(Table.TYPE_DEF, 1, 5) == 0x55


def test_the_last_row_that_is_not_above_a_value() -> None:
    rows = {0x29: b"".join(struct.pack("<HH", inner, 1) for inner in (3, 5, 5, 9))}
    tables = opened(stream(rows, {0x29: 4}))
    found = [tables.last_not_above(Table.NESTED_CLASS, 0, value) for value in (2, 3, 5, 8, 9, 100)]
    assert found == [0, 1, 3, 3, 4, 4]


def test_a_coded_index_selects_its_table() -> None:
    assert decode_coded("TypeDefOrRef", 5 << 2 | 1) == (Table.TYPE_REF, 5)
    assert decode_coded("CustomAttributeType", 7 << 3 | 3) == (Table.MEMBER_REF, 7)
    for kind, value in (("TypeDefOrRef", 3), ("CustomAttributeType", 0), ("HasCustomAttribute", 31)):
        with pytest.raises(MetadataError):
            decode_coded(kind, value)


@pytest.mark.parametrize("count", [2, 1 << 20, (1 << 32) - 1])
def test_tables_that_do_not_fit_into_their_stream_are_refused(count: int) -> None:
    with pytest.raises(MetadataError):
        opened(stream({0x1A: b"\0\0"}, {0x1A: count}))


def test_rows_on_absent_pages_are_a_reason() -> None:
    data = stream({0x1A: bytes(0x4000)}, {0x1A: 0x2000})
    tables = MetadataTables(memory_of({BASE: data[:0x1000]}), BASE, len(data))
    assert tables.row(Table.MODULE_REF, 1) == (0,)
    with pytest.raises(MetadataError, match="row 8192 of metadata table 0x1a is not readable"):
        tables.row(Table.MODULE_REF, 0x2000)
