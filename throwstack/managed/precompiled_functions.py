# SPDX-License-Identifier: Apache-2.0
"""A sorted table of the functions of precompiled code, looked up by RVA: which entry of the table covers it.

On x64, an entry is a RUNTIME_FUNCTION {begin, end, unwind information}. On x86, it is {begin, unwind information}, and
a function ends where the next one begins.
"""

from __future__ import annotations

from dataclasses import dataclass

from throwstack.core.memory import Memory, MemoryUnreadable
from throwstack.managed.metadata_error import MetadataError

_MAX_FUNCTIONS = 1 << 22


@dataclass(frozen=True, slots=True)
class PrecompiledMethod:
    """The method of a precompiled function.

    `rid` is its row in MethodDef, 0 if only its MethodDesc at `method_desc` is known; that is 0 if it is not known.
    `start` is the RVA at which the method's code begins (its hot part, if it has two). `is_instance` says that it is an
    instance of a generic method or type; `is_body`, that the function is no funclet and no cold part.
    """

    rid: int
    start: int
    method_desc: int = 0
    is_instance: bool = False
    is_body: bool = True


class PrecompiledFunctions:
    """A table of functions in memory. What is absent raises MetadataError."""

    __slots__ = ("_address", "_entry_size", "_memory", "count")

    def __init__(self, memory: Memory, address: int, count: int, *, is_x86: bool = False) -> None:
        """The table is in `memory` at `address` and has `count` entries."""
        self._memory = memory
        self._address = address
        self._entry_size = 8 if is_x86 else 12
        self.count = min(count, _MAX_FUNCTIONS)

    def begin(self, number: int) -> int:
        """Return the RVA at which function `number` begins."""
        return self._word(number, 0)

    def find(self, rva: int) -> int | None:
        """Return the number of the function that covers `rva`, None if there is none."""
        low, high = 0, self.count
        while low < high:
            middle = (low + high) // 2
            if self.begin(middle) <= rva:
                low = middle + 1
            else:
                high = middle
        if not low or (self._entry_size == 12 and rva >= self._word(low - 1, 4)):
            return None
        return low - 1

    def unwind(self, number: int) -> int:
        """Return the RVA of the unwind information of function `number`."""
        return self._word(number, self._entry_size - 4)

    def number_of(self, address: int) -> int | None:
        """Return the number of the entry at `address`, None if no entry of this table is there."""
        number, rest = divmod(address - self._address, self._entry_size)
        return number if not rest and 0 <= number < self.count else None

    def _word(self, number: int, offset: int) -> int:
        if not 0 <= number < self.count:
            message = f"there is no function {number:,} in the table at {self._address:#x}"
            raise MetadataError(message)
        try:
            return self._memory.u32(self._address + number * self._entry_size + offset)
        except MemoryUnreadable as error:
            message = f"the table of functions at {self._address:#x} is not readable at {error.address:#x}"
            raise MetadataError(message) from error
