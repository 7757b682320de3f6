# SPDX-License-Identifier: Apache-2.0
"""Words in tables, also in those that were made to slow the search down."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from throwstack.pdb.word_search import find_word


class Counted(bytes):
    """A table that counts how often its bytes are searched."""

    searches = 0

    def find(self, *arguments):
        type(self).searches += 1
        return super().find(*arguments)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 2), max_size=200), st.integers(0, 2), st.sampled_from([4, 8, 12]), st.integers(0, 80))
def test_the_first_entry_with_the_word_is_found(table, byte, size, at):
    """Of three bytes only, so that the word's bytes are also in the middle of others."""
    word = byte * 0x01010101
    data = bytes(table)
    wanted = (place for place in range(0, len(data) - 3, size) if place >= at)
    first = next((place for place in wanted if data[place : place + 4] == word.to_bytes(4, "little")), -1)
    assert find_word(data, word, at, size) == first


@pytest.mark.parametrize("size", [4, 12])
def test_a_table_of_false_finds_takes_no_step_for_each(size):
    entry = struct.pack("<I", 0x44112233) + bytes(size - 4)
    Counted.searches = 0
    table = Counted(entry * 50_000 + struct.pack("<I", 0x11223344))
    assert find_word(table, 0x11223344, 0, size) == 50_000 * size
    assert Counted.searches <= 64
