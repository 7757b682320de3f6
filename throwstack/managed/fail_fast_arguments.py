# SPDX-License-Identifier: Apache-2.0
"""What managed code gave to Environment.FailFast: a message, and an exception if it gave one.

Both are on the stack as two adjacent words: the string, and the exception or null. Up to .NET 8 the runtime's own
function for it keeps them where the garbage collector finds them (SystemNative::GenericFailFast, seen with .NET Core
2.1, 3.1 and .NET 8). From .NET 9 on that function is managed code, and has them among its arguments (seen with .NET
10). Nothing else says what the message was: the record has a code alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from throwstack.core.memory import MemoryUnreadable
from throwstack.core.text import escape
from throwstack.managed.exception_objects import ExceptionObjects
from throwstack.managed.heap_objects import MAX_STRING, HeapObjects
from throwstack.managed.managed_exception import ManagedException
from throwstack.managed.metadata_error import MetadataError
from throwstack.managed.runtime_memory import BudgetSpent, StructureError

_MAX_STACK = 0x2000
"""How many bytes of a stack are searched: the function makes the record, or is one of the next outer ones."""
_STRING = "System.String"


@dataclass(frozen=True, slots=True)
class FailFastArguments:
    """The message (escaped, of limited length), and the exception object that was given with it; None for null."""

    message: str
    exception: ManagedException | None = None


def fail_fast_arguments(
    objects: HeapObjects, exceptions: ExceptionObjects, low: int, high: int
) -> FailFastArguments | None:
    """Return what FailFast was given, from the stack addresses `low` to `high`; None if it is not found there."""
    memory = objects.memory
    try:
        for (at, text), (next_at, given) in pairwise(memory.words_of_stack(low, min(high, low + _MAX_STACK))):
            if next_at - at != memory.size or not memory.is_pointer(text) or not _is_string(objects, text):
                continue
            if given and not exceptions.is_sound(given):
                continue
            message = escape(objects.string(text) or "", MAX_STRING)
            return FailFastArguments(message, exceptions.read(given) if given else None)
    except (MemoryUnreadable, BudgetSpent):
        pass
    return None


def _is_string(objects: HeapObjects, address: int) -> bool:
    try:
        objects.memory.spend()
        table = objects.method_table(address)
        if not objects.memory.is_pointer(table) or not objects.tables.is_genuine(table):
            return False
        objects.string(address)
        return objects.names(table)[0][1] == _STRING
    except BudgetSpent:
        raise
    except (MemoryUnreadable, StructureError, MetadataError, IndexError):
        return False
