# SPDX-License-Identifier: Apache-2.0
"""Words of a .NET runtime's memory, and what each may point to.

A pointer in a structure of the runtime has one of several forms, by version and by where the structure is:

- the address itself (all versions);
- an offset that counts from the word's own address (`RelativePointer`, .NET Core 2.x);
- a pointer to a cell that holds the address, marked by bit 0 (fixup cells of NGEN images, .NET Core 2.x and .NET
  Framework), or not marked in the word itself but by a flag elsewhere (a parent in another image).

Which form a word has does not have to be known: `RuntimeMemory.targets` yields every reading, and the caller takes the
one that points to what must be there.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from throwstack.core.budgets import BUDGETS, Meter
from throwstack.core.errors import ThrowstackError
from throwstack.core.memory import PAGE_SIZE, Memory, MemoryUnreadable

_USER_END = {4: 1 << 32, 8: 1 << 47}
"""Where the addresses of a process end, by the size of a pointer."""
LOWEST = 0x10000
"""Windows never maps the first 64 KiB."""
_WORDS_A_PLACE = 4
"""How many different words of a stack cost as much as a look at a place: each may lead to a page of its own."""


class StructureError(ThrowstackError):
    """The memory of the runtime does not hold what is looked for. The message says what, as a clause."""


class BudgetSpent(StructureError):
    """The budget for looking around in the runtime's memory is spent: what is not found may be there all the same."""


class RuntimeMemory:
    """The memory of a process with a .NET runtime. Looking around in it is counted, and ends when the budget is spent.

    `size` is the size of a pointer in bytes.
    """

    __slots__ = ("_meter", "_words", "mask", "memory", "size")

    def __init__(self, memory: Memory, size: int, meter: Meter | None = None) -> None:
        """`size` is 4 or 8. `meter` counts the places that are looked at (`Budgets.managed`)."""
        self.memory = memory
        self.size = size
        self._meter = Meter() if meter is None else meter
        self.mask = (1 << 8 * size) - 1
        self._words = "I" if size == 4 else "Q"

    def begin(self) -> None:
        """Begin to count for the next question, which has a budget of its own within the process's."""
        self._meter.begin_thread()

    @property
    def left(self) -> int:
        """Return how many places may still be looked at for this question."""
        return self._meter.left(BUDGETS.managed)

    def spend(self, places: int = 1) -> None:
        """Count `places` that are looked at; raises BudgetSpent if the budget is spent."""
        if self._meter.take(BUDGETS.managed, places) < places:
            message = self._meter.spent[-1]
            raise BudgetSpent(message)

    def word(self, address: int) -> int:
        """Return the word (of a pointer's size) at `address`; raises MemoryUnreadable."""
        return self.memory.u32(address) if self.size == 4 else self.memory.u64(address)

    def words(self, address: int, count: int) -> tuple[int, ...]:
        """Return the `count` words at `address`, or only those before the first absent page."""
        data = self.memory.read_available(address, count * self.size)
        whole = len(data) // self.size
        return struct.unpack_from(f"<{whole}{self._words}", data)

    def words_of_stack(self, low: int, high: int) -> Iterator[tuple[int, int]]:
        """Yield address and value of each word from `low` to `high`. Pages that are absent are passed over."""
        at = -(-low // self.size) * self.size
        while at < high:
            end = min((at & -PAGE_SIZE) + PAGE_SIZE, high)
            for index, value in enumerate(self.words(at, (end - at) // self.size)):
                yield at + index * self.size, value
            at = (at & -PAGE_SIZE) + PAGE_SIZE

    def is_new(self, word: int, seen: set[int]) -> bool:
        """Say whether a word of a stack is not in `seen` yet, and add it.

        Such words count, not just what they lead to: a process has many stacks. Raises BudgetSpent.
        """
        if word in seen:
            return False
        seen.add(word)
        if not len(seen) % _WORDS_A_PLACE:
            self.spend()
        return True

    def is_pointer(self, value: int) -> bool:
        """Say whether `value` can be the address of a structure: aligned, not in the first 64 KiB, and readable."""
        return value % self.size == 0 and value >= LOWEST and self.memory.page(value & -PAGE_SIZE) is not None

    def is_absent(self, value: int) -> bool:
        """Say whether `value` can be the address of a structure on a page that is not readable."""
        is_address = value % self.size == 0 and LOWEST <= value < _USER_END[self.size]
        return is_address and not self.is_pointer(value)

    def targets(self, address: int) -> Iterator[int]:
        """Yield the addresses of structures to which the word at `address` may point, by each form of pointer.

        Nothing is yielded if the word cannot be read. Raises BudgetSpent.
        """
        self.spend()
        try:
            value = self.word(address)
        except MemoryUnreadable:
            return
        if value == 0:
            return
        direct, relative = value, (address + value) & self.mask
        for target in (direct, relative):
            if self.is_pointer(target):
                yield target
        for cell in (direct & ~1, relative & ~1):
            if self.is_pointer(cell):
                try:
                    target = self.word(cell)
                except MemoryUnreadable:
                    continue
                if self.is_pointer(target):
                    yield target

    def leads_to(self, address: int, target: int) -> bool:
        """Say whether the word at `address` may point to `target`."""
        return target in self.targets(address)
