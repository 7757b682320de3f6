# SPDX-License-Identifier: Apache-2.0
"""Finds the words of the stack that can be return addresses, lowest first."""

from __future__ import annotations

from collections.abc import Iterator

from throwstack.core.frames import StackBounds
from throwstack.core.memory import Memory, MemoryUnreadable
from throwstack.unwind.x86.return_address import ReturnAddresses

_SCANNED_WORDS = 512


def scan_return_addresses(
    memory: Memory, calls: ReturnAddresses, start: int, bounds: StackBounds
) -> Iterator[tuple[int, int]]:
    """Yield (slot, word) for each of the 512 words from `start` on that is an address after a call, lowest first."""
    start = (start + 3) & ~3
    for slot in range(start, min(start + 4 * _SCANNED_WORDS, bounds.base - 3), 4):
        try:
            word = memory.u32(slot)
        except MemoryUnreadable:
            return
        if calls.calls_before(word):
            yield slot, word
