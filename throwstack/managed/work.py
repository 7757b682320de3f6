# SPDX-License-Identifier: Apache-2.0
"""Limits on the work that one process's metadata and precompiled code may cost.

A few kilobytes can name the same bytes over and over: a hash table whose 100,000 entries lead to one long signature, a
type that is specified by forty types, each of them by forty others. What is read once is bounded by its size; how
often it is read is not. So the steps are counted for the process, and one image may take a part of them only: an image
that an attacker wrote does not cost the names of the others. Another process is not affected.
"""

from __future__ import annotations

from throwstack.managed.metadata_error import MetadataError

MAX_METADATA, MAX_PRECOMPILED = 1 << 22, 1 << 23
"""The most rows, strings and types of metadata, and the most steps in tables of precompiled code, for one process.

A description of a method takes some 150 of them, and all 37,000 methods of .NET 8's largest image 210,000 steps."""

_PARTS = 4
"""One image may take a fourth."""


class WorkSpent(MetadataError):
    """The work that is allowed for one process or image is spent: what is not found may be there all the same."""


class Work:
    """Counts steps of one kind of work, and ends it when there were too many."""

    __slots__ = ("_left", "_limit", "_what", "_whole")

    def __init__(self, limit: int, what: str, whole: Work | None = None) -> None:
        """At most `limit` steps may be taken; `what` names them, for the message. They count in `whole` too."""
        self._whole = whole
        self._limit = limit
        self._left = limit
        self._what = what

    def take(self, steps: int = 1) -> None:
        """Count `steps`; raises WorkSpent if there are no more."""
        self._left -= steps
        if self._left < 0:
            whose = "a process" if self._whole is None else "an image"
            message = f"the limit of {self._limit:,} {self._what} of {whose} is reached"
            raise WorkSpent(message)
        if self._whole is not None:
            self._whole.take(steps)

    def part(self) -> Work:
        """Return the work that one image may cost of this."""
        return Work(self._limit // _PARTS, self._what, self)

    @property
    def taken(self) -> int:
        """Return how many steps were taken, at most the limit."""
        return self._limit - max(self._left, 0)


def metadata_work() -> Work:
    """Return the work on metadata that a process may cost."""
    return Work(MAX_METADATA, "rows and names of metadata")


def precompiled_work() -> Work:
    """Return the work on precompiled code that a process may cost."""
    return Work(MAX_PRECOMPILED, "steps in tables of precompiled methods")
