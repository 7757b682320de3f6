# SPDX-License-Identifier: Apache-2.0
"""Lets any call of a function of throwstack's fail, as if it had raised at once, and sees which are guarded."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

import throwstack
from throwstack.core.guard import Guard

_SOURCES = throwstack.__path__[0]
_OF_THE_GUARD = {"<lambda>", "note", "say", "_miss", "describe", "identity", "_list_breaks_off"}
_GUARD = sys.modules[Guard.__module__].__file__


class Calls:
    """The calls of a run: how many were inside a guard, and the functions that were called outside any."""

    def __init__(self, failing: int | None, error: type[Exception]) -> None:
        self.count = 0
        self.outside: set[str] = set()
        self.failed = ""
        self._failing = failing
        self._error = error
        self._depth = 0

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        """Take a call, as `sys.settrace` hands it on."""
        code = frame.f_code
        if not code.co_filename.startswith(_SOURCES) or code.co_filename == _GUARD:
            return
        if frame.f_lasti > 0 or code.co_name in _OF_THE_GUARD:
            return  # a generator that goes on, or what a guard tells
        if not self._depth:
            if code.co_name.startswith("<"):
                return  # a comprehension, which some versions of Python call: the function around it is what counts
            self.outside.add(f"{code.co_filename[len(_SOURCES) + 1 :]}:{code.co_name}")
            return
        self.count += 1
        if self.count == self._failing:
            self.failed = f"{code.co_filename}:{code.co_name}"
            raise self._error

    def enter(self) -> None:
        self._depth += 1

    def exit(self) -> None:
        self._depth -= 1


@contextlib.contextmanager
def calls(failing: int | None = None, error: type[Exception] = MemoryError) -> Iterator[Calls]:
    """Count the calls that are made inside guards; the one numbered `failing` raises `error`."""
    found = Calls(failing, error)
    enter, leave = Guard.__enter__, Guard.__exit__

    def entering(guard: Guard) -> None:
        found.enter()
        enter(guard)

    def leaving(guard: Guard, *error: Any) -> bool:
        found.exit()
        return leave(guard, *error)

    Guard.__enter__, Guard.__exit__ = entering, leaving  # type: ignore[method-assign]
    saved = sys.gettrace()
    sys.settrace(found)
    try:
        yield found
    finally:
        sys.settrace(saved)
        Guard.__enter__, Guard.__exit__ = enter, leave  # type: ignore[method-assign]
