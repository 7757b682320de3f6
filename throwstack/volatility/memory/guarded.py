# SPDX-License-Identifier: Apache-2.0
"""The guard (`throwstack.core.guard`) around Volatility's objects, whose invalid addresses are foreseen."""

from __future__ import annotations

from volatility3.framework import exceptions

from throwstack.core.guard import Guard, Say
from throwstack.core.memory import MemoryUnreadable

_FORESEEN = (MemoryUnreadable, exceptions.InvalidAddressException)
"""What says by itself that something is not in the dump."""
_OF_OBJECTS = (
    *_FORESEEN,
    *(exceptions.SymbolError, AttributeError, IndexError),  # a type or member that the symbols lack
    *(ValueError, RuntimeError),  # a string that is no Unicode; a tree that is too deep
)


def guarded(say: Say) -> Guard:
    """Return a guard that tells `say` why the part of the dump that is examined inside it cannot be."""
    return Guard(say, _FORESEEN)


def guarded_objects(say: Say) -> Guard:
    """Return a guard around Volatility's objects and nothing else: they have words of their own for what is amiss."""
    return Guard(say, _OF_OBJECTS)
