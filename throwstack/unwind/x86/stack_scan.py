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
    """Yield (stack address, word) for each word that is the address after a call instruction, lowest address first.

    The 512 words from `start` on are searched, up to the end of `bounds`, the thread's stack, or an unreadable word.
    `calls` finds the call instructions before an address.
    """
    start = (start + 3) & ~3
    for slot in range(start, min(start + 4 * _SCANNED_WORDS, bounds.base), 4):
        try:
            word = memory.u32(slot)
        except MemoryUnreadable:
            return
        if calls.is_return_address(word):
            yield slot, word
