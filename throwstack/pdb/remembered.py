# SPDX-License-Identifier: Apache-2.0
"""Answers about a PDB that are kept because they are asked for again, up to a limit of bytes.

A number of answers would be no limit: a name in a PDB may have 4 KB, and an address may be in 256 inlined functions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

Key = TypeVar("Key")
Answer = TypeVar("Answer")

_OVERHEAD = 200
"""About what a key, a small answer and their entry take."""


class Remembered(Generic[Key, Answer]):
    """Answers by key. If they become too large together, all are forgotten."""

    __slots__ = ("_known", "_limit", "_measure", "_size")

    def __init__(self, limit: int, measure: Callable[[Answer], int]) -> None:
        """`limit` is in bytes. `measure` says about how many an answer has."""
        self._limit = limit
        self._measure = measure
        self._known: dict[Key, Answer] = {}
        self._size = 0

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: Key, make: Callable[[Key], Answer]) -> Answer:
        """Return the answer for `key`, which `make` makes if it is not known."""
        known = self._known.get(key)
        if known is None:
            known = make(key)
            size = self._measure(known) + _OVERHEAD
            if self._size + size > self._limit:
                self._known.clear()
                self._size = 0
            self._known[key] = known
            self._size += size
        return known
