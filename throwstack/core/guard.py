# SPDX-License-Identifier: Apache-2.0
"""The guard around the examination of one item: it turns an exception into a stated reason, and the loop goes on.

A dump may come from a compromised machine or a failing disk, so not every fault in it can be foreseen. Therefore every
loop over processes, threads or rows examines each item inside a `Guard`, and yields the result outside of the guard.
That the `yield` is outside matters in generators: an exception that leaves a generator ends the generator, and all
later items would be lost.
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
"""The first word of the reason if the exception was not foreseen."""
_MAX_REASON = 200


class Guard:
    """A context manager that catches an exception and reports the reason to a function.

    Every `Exception` is caught, MemoryError and RecursionError too. The exceptions that end the program
    (KeyboardInterrupt, SystemExit) or a generator (GeneratorExit) pass through.
    """

    __slots__ = ("_foreseen", "_say")

    def __init__(self, say: Say, foreseen: tuple[type[Exception], ...] = (MemoryUnreadable,)) -> None:
        """`say` is called with the reason whenever an exception is caught.

        If the exception is of a class in `foreseen`, the reason is its message. Any other exception is a defect of
        throwstack: it is logged with its traceback, and the reason begins with `UNEXPECTED`.
        """
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
        """Yield the items of `items`. If getting the next item raises an exception, report the reason and end."""
        while True:
            found: list[Item] = []
            with self:
                found = list(islice(items, 1))
            if not found:
                return
            yield found[0]


def reason_of(error: Exception) -> str:
    """Return type and message of an exception that was not foreseen, escaped for display."""
    text = str(error)
    return escape(f"{UNEXPECTED} {type(error).__name__}" + (f": {text}" if text else ""), _MAX_REASON)
