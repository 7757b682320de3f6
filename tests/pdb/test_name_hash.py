# SPDX-License-Identifier: Apache-2.0
"""Symbols by name, in a hash table of a PDB."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.held_stream import HeldStream
from tests.support.pdb_hashes import name_table
from throwstack.pdb.name_hash import NameHash

NAMES = [(f"function{index}", 100 * index) for index in range(3000)]
TABLE = name_table(NAMES)


def test_each_name_is_found():
    hashed = NameHash(HeldStream(b"head" + TABLE), 4, is_fastlink=False)
    assert all(offset in hashed.offsets(name) for name, offset in NAMES)


def test_a_name_takes_few_reads():
    stream = HeldStream(TABLE)
    list(NameHash(stream, 0, is_fastlink=False).offsets("function123"))
    assert sum(size for _, size in stream.reads) < 1000


@pytest.mark.parametrize("table", [b"", TABLE[:15], b"\0" * 1000, TABLE[:600]])
def test_a_table_that_is_cut_has_no_names(table):
    assert list(NameHash(HeldStream(table), 0, is_fastlink=False).offsets("function1")) == []


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), max_size=8))
def test_damage_raises_nothing(changes):
    table = bytearray(name_table(NAMES[:8]))
    for at, value in changes:
        table[at % len(table)] = value
    for name, _ in NAMES[:8]:
        assert len(list(NameHash(HeldStream(bytes(table)), 0, is_fastlink=False).offsets(name))) < 1 << 14
