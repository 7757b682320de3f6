# SPDX-License-Identifier: Apache-2.0
"""How long the reading of one PDB may take, for all that is asked of it together.

Every single look-up has bounds on what it counts. But a PDB that was made to waste time can bring each of them to its
bound, and a dump asks thousands of times. So the time is added up for each PDB, and one that took too much is given up,
with a message. Such a PDB takes some seconds a look-up; a real one takes microseconds to milliseconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from math import inf
from types import TracebackType

from throwstack.core.errors import ThrowstackError

LIMIT = 120.0
"""Seconds. A module with 1.15 million functions takes 3 of them, and more on a busy machine or from a slow disk."""


class TimeLimit:
    """Adds up the time inside `with` blocks, which may be nested. Once it is spent, no block can be entered."""

    __slots__ = ("_began", "_depth", "_error", "_limit", "_spent")

    def __init__(self, error: Callable[[str], ThrowstackError], limit: float = LIMIT) -> None:
        """`error` makes what is raised after `limit` seconds of a reason in words."""
        self._error = error
        self._limit = limit
        self._spent = self._began = 0.0
        self._depth = 0

    def __enter__(self) -> None:
        if not self._depth:
            self.check()
            self._began = time.monotonic()
        self._depth += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._depth -= 1
        if not self._depth:
            self._spent += time.monotonic() - self._began

    def check(self) -> None:
        """Raise the error if the time is spent. Loops over what a PDB says call this."""
        running = time.monotonic() - self._began if self._depth else 0.0
        if self._spent + running > self._limit:
            message = f"given up: reading it took more than {self._limit:.0f} s"
            raise self._error(message)


NO_LIMIT = TimeLimit(ThrowstackError, inf)
"""For streams that are no PDB's."""
