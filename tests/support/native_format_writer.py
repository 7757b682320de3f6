# SPDX-License-Identifier: Apache-2.0
"""Writes the "native format" of precompiled images: numbers, sparse arrays, hash tables.

Follows dotnet/runtime, docs/design/coreclr/botr/readytorun-format.md, "Native format". Trees are written in full: with
one leaf for each element where it is alone, and a shared node for trees that have none.
"""

from __future__ import annotations

import struct


def unsigned(number: int) -> bytes:
    """Return a number in the fewest bytes."""
    for size in range(1, 5):
        if number < 1 << 7 * size:
            return (number << size | (1 << size - 1) - 1).to_bytes(size, "little")
    return b"\x0f" + struct.pack("<I", number)


def signed(number: int) -> bytes:
    """Return a signed number in the fewest bytes."""
    for size in range(1, 5):
        if -(1 << 7 * size - 1) <= number < 1 << 7 * size - 1:
            value = (number & (1 << 7 * size) - 1) << size | (1 << size - 1) - 1
            return value.to_bytes(size, "little")
    return b"\x0f" + struct.pack("<i", number)


def array(elements: dict[int, bytes], count: int, *, entry_size: int = 2) -> bytes:
    """Return a sparse array of `count` numbers; its index of trees has entries of 1, 2 or 4 bytes."""
    head = unsigned(count << 2 | entry_size.bit_length() - 1)
    blocks = -(-count // 16)
    trees, offsets = b"", []
    nothing = None
    for block in range(blocks):
        here = {number & 15: data for number, data in elements.items() if number >> 4 == block}
        if not here and nothing is None:
            nothing = entry_size * blocks + len(trees)
            trees += unsigned(16 << 2)
        offsets.append(entry_size * blocks + len(trees) if here else nothing)
        trees += _tree(here, 8) if here else b""
    return head + b"".join((offset or 0).to_bytes(entry_size, "little") for offset in offsets) + trees


def _tree(elements: dict[int, bytes], bit: int) -> bytes:
    if not bit:
        return next(iter(elements.values()))
    if len(elements) == 1:
        number, data = next(iter(elements.items()))
        return unsigned(number << 2) + data
    low = {number: data for number, data in elements.items() if not number & bit}
    high = {number: data for number, data in elements.items() if number & bit}
    left = _tree(low, bit >> 1) if low else b""
    if not high:
        return unsigned(1) + left
    size = 1
    while len(unsigned((size + len(left)) << 2 | 3)) != size:
        size += 1
    return unsigned((size + len(left)) << 2 | 2 | bool(low)) + left + _tree(high, bit >> 1)


def hash_table(buckets: list[list[bytes]]) -> bytes:
    """Return a hash table with these entries, whose number of buckets is a power of 2. Distances have 2 bytes."""
    shift = len(buckets).bit_length() - 1
    index_size = 2 * (len(buckets) + 1)
    lists_size = 3 * sum(len(bucket) for bucket in buckets)
    index, lists, entries = [], b"", b""
    for bucket in buckets:
        index.append(index_size + len(lists))
        for number, entry in enumerate(bucket):
            at = index_size + len(lists) + 1
            distance = index_size + lists_size + len(entries) - at
            lists += bytes([number]) + (distance << 2 | 1).to_bytes(2, "little")
            entries += entry
    index.append(index_size + len(lists))
    return bytes([shift << 2 | 1]) + b"".join(struct.pack("<H", at) for at in index) + lists + entries
