# SPDX-License-Identifier: Apache-2.0
"""Chooses which frames of a deep recursion a walk keeps.

A function that calls itself without end fills its stack of 1 MB with 5,000 to 20,000 frames, and all of them are alike.
What a reader needs are the innermost frames, where the stack overflowed, and the outermost ones, which say who began.
So a walk keeps the first 512 and the last 512 frames. Of the others it keeps those that are not alike: frames that were
interrupted (the thread handled an exception in the middle of the recursion), and frames of places in code that the walk
has not seen before, as long as these are few. The rest is counted.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from throwstack.core.budgets import Meter
from throwstack.core.frames import Frame, LeftOut, Walk

FIRST = 512
"""How many of the innermost frames are kept."""
_LAST = 512
_UNLIKE = 512
_PLACES = 8
MOST_FRAMES = 1 << 16
"""The most frames that one walk goes through. A stack of 1 MB with frames of 16 bytes has as many."""


class KeptFrames:
    """The frames of one walk, innermost first, as they are kept.

    Most walks have few frames, and go on quicker if they append the first `FIRST` of them to `first` themselves.
    """

    __slots__ = ("_count", "_known", "_last", "_passed", "_places", "first")

    def __init__(self) -> None:
        """Begin with no frames."""
        self.first: list[Frame] = []
        self._last: deque[Frame] = deque()
        self._known: set[int] = set()
        self._places: dict[int, None] = {}
        self._passed: Frame | None = None
        self._count = 0

    def add(self, frame: Frame) -> None:
        """Add the next frame of the walk."""
        if len(self.first) < FIRST:
            self.first.append(frame)
            return
        self._last.append(frame)
        if len(self._last) > _LAST:
            self._pass(self._last.popleft())

    def frames(self) -> tuple[Frame, ...]:
        """Return the kept frames. The one before a gap says what was left out."""
        self._close()
        return (*self.first, *self._last)

    def _pass(self, frame: Frame) -> None:
        if not self._known:
            self._known.update(first.ip for first in self.first)
        is_alike = frame.ip in self._known and not frame.is_interrupted
        if not is_alike and len(self.first) < FIRST + _UNLIKE:
            self._known.add(frame.ip)
            self._close()
            self.first.append(frame)
            return
        if not self._count:
            self._passed = frame
        self._count += 1
        if len(self._places) < _PLACES:
            self._places[frame.ip] = None

    def _close(self) -> None:
        if self._passed is not None:
            left_out = LeftOut(self._count, tuple(self._places), self._passed.child_sp)
            self.first[-1] = replace(self.first[-1], left_out=left_out)
        self._passed, self._count = None, 0
        self._places.clear()


class Depth:
    """How deep the walks over the stacks of one process may go."""

    __slots__ = ("_is_shared", "_meter", "_most")

    def __init__(self, most: int, meter: Meter | None = None) -> None:
        """`most` limits the frames of one walk. `meter` counts the frames that walks have left out.

        Without a meter, each walk counts as that of another thread.
        """
        self._most = most
        self._meter = Meter() if meter is None else meter
        self._is_shared = meter is not None

    @property
    def limit(self) -> int:
        """Return how many frames the next walk may go through."""
        return min(self._most, FIRST + _LAST + self._meter.left(self._meter.budgets.recursion))

    def spend(self, walk: Walk) -> None:
        """Count the frames that `walk` has left out."""
        if not self._is_shared:
            self._meter.begin_thread()
        if walk.left_out:
            self._meter.take(self._meter.budgets.recursion, walk.left_out)
