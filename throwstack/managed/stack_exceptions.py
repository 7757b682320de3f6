# SPDX-License-Identifier: Apache-2.0
"""Exception objects to which the words of a stack point: what is left where the runtime's Thread cannot be read.

While an exception is in flight, frames of the runtime and of the program have the object's address. Objects that were
handled long ago are on the stack too. An exception that no program made, such as a NullReferenceException, need not be.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from throwstack.core.memory import MemoryUnreadable
from throwstack.images.image import ImageMap
from throwstack.managed.exception_objects import ExceptionObjects
from throwstack.managed.managed_exception import ManagedException
from throwstack.managed.runtime_memory import BudgetSpent, RuntimeMemory

_MAX_STACK, _MAX_FOUND = 1 << 20, 16


@dataclass(frozen=True, slots=True)
class OnStack:
    """An exception object to which a word of a stack points. `place` is the address of the word nearest to the top."""

    place: int
    exception: ManagedException


def exceptions_on_stack(
    memory: RuntimeMemory, images: ImageMap, exceptions: ExceptionObjects, low: int, high: int
) -> Iterator[OnStack]:
    """Yield the exception objects to which words from `low` to `high` point, nearest to `low` first, at most 16.

    At most 1 MB of the stack is searched, and nothing after the budget is spent. The words count against it as well:
    a process has many stacks, and each exception on them asks.
    """
    seen: set[int] = set()
    found = 0
    try:
        for place, value in memory.words_of_stack(low, min(high, low + _MAX_STACK)):
            if low <= value < high or not memory.is_new(value, seen):
                continue
            if memory.is_pointer(value) and images.find(value) is None and exceptions.is_sound(value):
                yield OnStack(place, exceptions.read(value))
                found += 1
                if found >= _MAX_FOUND:
                    return
    except (MemoryUnreadable, BudgetSpent):
        return
