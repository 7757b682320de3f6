# SPDX-License-Identifier: Apache-2.0
"""The guards (`throwstack.core.guard`) for code that reads a dump through Volatility.

These guards expect addresses that Volatility cannot read, as well as unreadable memory.
"""

from __future__ import annotations

from volatility3.framework import exceptions

from throwstack.core.guard import Guard, Say
from throwstack.core.memory import MemoryUnreadable

_FORESEEN = (MemoryUnreadable, exceptions.InvalidAddressException)
"""Exceptions whose messages already say that something is not in the dump."""
_OF_OBJECTS = (
    *_FORESEEN,
    *(exceptions.SymbolError, AttributeError, IndexError),  # the symbols lack a type or a member
    *(ValueError, RuntimeError),  # a string is no Unicode; a tree is too deep
)


def guarded(say: Say) -> Guard:
    """Return a guard for code that examines a part of a dump.

    If that part cannot be read, the guard calls `say` with the reason.
    """
    return Guard(say, _FORESEEN)


def guarded_objects(say: Say) -> Guard:
    """Return a guard for code that does nothing but use Volatility's objects.

    Besides the exceptions for unreadable memory that `guarded` expects, this guard expects those that such objects
    raise for other faults of a dump or of its symbols. If the code raises one of them, the guard calls `say` with the
    reason.
    """
    return Guard(say, _OF_OBJECTS)
