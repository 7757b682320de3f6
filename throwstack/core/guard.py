# SPDX-License-Identifier: Apache-2.0
"""The one guard around what is examined: whatever goes wrong there becomes a reason, and the loop goes on.

A dump comes from a compromised machine or a failing disk, and no list of its faults is complete. So every loop over
processes, threads or rows examines its item inside a `Guard`, and hands on what came of it outside: an exception that
leaves a generator would end the loop that the generator is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from itertools import islice
from types import TracebackType
from typing import TypeVar

from throwstack.core.memory import MemoryUnreadable
from throwstack.core.text import escape

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Say = Callable[[str], object]

UNEXPECTED = "unexpected"
"""How the reason of a fault that no code foresaw begins."""
_MAX_REASON = 200


class Guard:
    """A context manager that turns an exception inside it into a sentence for `say`.

    Everything is turned that is an `Exception`, MemoryError and RecursionError too. What ends the program itself
    (KeyboardInterrupt, SystemExit) and what ends a generator (GeneratorExit) goes on.
    """

    __slots__ = ("_foreseen", "_say")

    def __init__(self, say: Say, foreseen: tuple[type[Exception], ...] = (MemoryUnreadable,)) -> None:
        """Tell `say` why. Exceptions that are `foreseen` bring their own words, and are no defect to be logged."""
        self._say = say
        self._foreseen = foreseen

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        if isinstance(error, self._foreseen):
            self._say(escape(str(error), _MAX_REASON))
            return True
        reason = reason_of(error)
        log.debug("%s", reason, exc_info=(type(error), error, traceback))
        self._say(reason)
        return True

    def each(self, items: Iterator[Item]) -> Iterator[Item]:
        """Yield `items` until there are no more or the next one cannot be had; `say` then learns why."""
        while True:
            found: list[Item] = []
            with self:
                found = list(islice(items, 1))
            if not found:
                return
            yield found[0]


def reason_of(error: Exception) -> str:
    """Return an exception that nobody foresaw in words that are fit to be shown."""
    text = str(error)
    return escape(f"{UNEXPECTED} {type(error).__name__}" + (f": {text}" if text else ""), _MAX_REASON)
