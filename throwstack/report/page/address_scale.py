# SPDX-License-Identifier: Apache-2.0
"""Which height of a picture an address of a stack has, to scale.

A frame with a large array can be a thousand times as large as the others together: to scale, these could not be seen.
So the largest stretches may be shortened, three at most, and the picture shows where (`breaks`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

_SHORTENED = 3
_REST = 0.1
"""The share of the height that those have which are not shortened."""
_TO_SCALE = 0.9
"""What is shortened by less than this counts as not shortened."""
_LARGEST = 1.5
"""How much larger the largest may be than the others together."""
_UNUSED = 0.15
"""What the unused part of the stack has at most, as a share of the used one."""


@dataclass(frozen=True, slots=True)
class ScaleBreak:
    """A stretch of addresses that is shortened: where its middle is, and how many bytes it has."""

    y: float
    size: int


class AddressScale:
    """Maps addresses to heights between 0 and `height`, the lowest address first."""

    def __init__(self, edges: Iterable[int], height: float, *, unused_below: int = 0) -> None:
        """Divide `height` among the stretches between `edges`, the addresses at which something begins or ends.

        What is below `unused_below` has nothing in it, and gets `_UNUSED` of the rest at most.
        """
        self._edges = sorted(set(edges))
        pairs = list(zip(self._edges, self._edges[1:], strict=False))
        sizes = [high - low for low, high in pairs]
        used = [size for size, (_, high) in zip(sizes, pairs, strict=True) if high > unused_below]
        most = _most(used)
        rest = sum(min(size, most) for size in used)
        shown = [
            min(size, most if high > unused_below else rest * _UNUSED)
            for size, (_, high) in zip(sizes, pairs, strict=True)
        ]
        total = sum(shown) or 1
        self._ys = [0.0]
        breaks = []
        for size, part in zip(sizes, shown, strict=True):
            top = self._ys[-1]
            self._ys.append(top + height * part / total)
            if part < size * _TO_SCALE:
                breaks.append(ScaleBreak((top + self._ys[-1]) / 2, size))
        self.breaks = tuple(breaks)

    def y(self, address: int) -> float:
        """Return the height of an address; one outside the scale has that of the nearest end."""
        index = bisect_right(self._edges, address) - 1
        if index < 0:
            return 0.0
        if index >= len(self._edges) - 1:
            return self._ys[-1]
        low, high = self._edges[index], self._edges[index + 1]
        return self._ys[index] + (self._ys[index + 1] - self._ys[index]) * (address - low) / (high - low)


def _most(sizes: list[int]) -> float:
    """Return the size to which larger stretches are shortened, so that all others can be seen.

    The three largest leave `_REST` of the height to the others, and the largest has three fifths of it at most.
    """
    largest = sorted(sizes, reverse=True)
    if not largest:
        return 0
    most: float = largest[0]
    rest = sum(largest[_SHORTENED:])
    if rest:
        most = _level(largest[:_SHORTENED], rest * (1 - _REST) / _REST)
    others = sum(min(size, most) for size in largest[1:])
    return min(most, others * _LARGEST) if others else most


def _level(sizes: list[int], room: float) -> float:
    """Return the size to which each of `sizes`, the largest first, is shortened so that they fit into `room`."""
    for index in range(len(sizes) - 1, -1, -1):
        if sizes[index] * (index + 1) >= room:
            return room / (index + 1)
        room -= sizes[index]
    return sizes[0]
