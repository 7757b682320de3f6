# SPDX-License-Identifier: Apache-2.0
"""How long the reading of one PDB may take, for all that is asked of it together.

Every single look-up has bounds on what it counts. But a PDB that was made to waste time can bring each of them to its
bound, and a dump asks thousands of times. So the time is added up for each PDB, and one that took too much is given up,
with a message. Such a PDB takes some seconds a look-up; a real one takes microseconds to milliseconds.

The values of variables have a limit of their own (`values_time`), so that names outlast them. There are many frames at
one address, as of a recursion without end, and the values of each frame are others: nothing of them can be kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from math import inf
from types import TracebackType

from throwstack.core.errors import ThrowstackError

LIMIT = 120.0
"""Seconds. A module with 1.15 million functions takes 3 of them, and more on a busy machine or from a slow disk."""
FRAME_LIMIT = 4.0
"""Seconds that the values of one frame may take. Those of a real one take milliseconds."""


class ValuesGivenUp(ThrowstackError):
    """The values of a frame, or of all frames of a PDB, took too long; the message says so."""


class TimeLimit:
    """Adds up the time inside `with` blocks, which may be nested. Once it is spent, no block can be entered."""

    __slots__ = ("_began", "_depth", "_error", "_limit", "_limit_each", "_spent", "_what")

    def __init__(
        self,
        error: Callable[[str], ThrowstackError],
        limit: float = LIMIT,
        limit_each: float = inf,
        what: str = "reading it",
    ) -> None:
        """`error` makes what is raised of a reason in words, in which `what` names what took so long.

        That is after `limit` seconds in all blocks together, or after `limit_each` seconds in one block.
        """
        self._error = error
        self._limit = limit
        self._limit_each = limit_each
        self._what = what
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
        for spent, limit in ((self._spent + running, self._limit), (running, self._limit_each)):
            if spent > limit:
                message = f"given up: {self._what} took more than {limit:.0f} s"
                raise self._error(message)

    def check_inside(self) -> None:
        """Do as `check` inside a block, and nothing outside: what others read is not what took the time."""
        if self._depth:
            self.check()


def values_time() -> TimeLimit:
    """Return the limit of the time in which the values of the variables of one PDB are made, frame by frame."""
    return TimeLimit(ValuesGivenUp, LIMIT, FRAME_LIMIT, "making the values of variables")


NO_LIMIT = TimeLimit(ThrowstackError, inf)
"""For streams that are no PDB's."""
