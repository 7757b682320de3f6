# SPDX-License-Identifier: Apache-2.0
"""Finds a 32-bit word in a table of a PDB, in time that grows with the table's size alone.

A search of bytes is the fastest, and mostly finds the word at its place in an entry. But it also finds the word's bytes
in the middle of others. A table can be made of such false finds: of the word 11223344, each entry is 44112233. Then the
search of bytes would stop at each entry, and the words themselves are compared instead.
"""

from __future__ import annotations

from array import array
from sys import byteorder

_MAX_FALSE = 64


def find_word(table: bytes, word: int, at: int = 0, size: int = 4) -> int:
    """Return the offset of the first entry from offset `at` on that begins with `word`, or -1.

    The entries have `size` bytes, a multiple of 4.
    """
    wanted = word.to_bytes(4, "little")
    for _ in range(_MAX_FALSE):
        at = table.find(wanted, at)
        if at < 0 or at % size == 0:
            return at
        at += 1
    first = -(-at // size) * size
    words = array("I", table[first : first + (len(table) - first) // 4 * 4])[:: size // 4] if first < len(table) else ()
    if words and byteorder == "big":
        words.byteswap()
    try:
        return first + size * words.index(word)
    except ValueError:
        return -1
