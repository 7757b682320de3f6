# SPDX-License-Identifier: Apache-2.0
"""What a process's VADs say of its address ranges: private or mapped, committed or not, by which prototype PTEs."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from throwstack.core.memory import PAGE_SIZE


@dataclass(frozen=True, slots=True)
class PrototypeRun:
    """A run of prototype PTEs: the first of them is for page `first` of the view (counted from its start)."""

    first: int
    count: int
    address: int


@dataclass(frozen=True, slots=True)
class VadView:
    """The range of a VAD, `start` <= address < `end`.

    `is_committed`: the whole range is, page by page unless an entry says otherwise. `prototypes` is empty for private
    memory, and has gaps where a file's part was not brought in yet.
    """

    start: int
    end: int
    is_private: bool
    is_committed: bool
    is_image: bool
    prototypes: tuple[PrototypeRun, ...] = ()

    def prototype(self, address: int, entry_size: int) -> int | None:
        """Return the address of the prototype PTE for the page that holds `address`, or None."""
        page = (address - self.start) // PAGE_SIZE
        for run in self.prototypes:
            if run.first <= page < run.first + run.count:
                return run.address + (page - run.first) * entry_size
        return None


class VadViews:
    """The views of one process, looked up by address."""

    __slots__ = ("_starts", "_views")

    def __init__(self, views: Iterable[VadView]) -> None:
        """Take views in any order."""
        self._views = sorted(views, key=lambda view: view.start)
        self._starts = [view.start for view in self._views]

    def __iter__(self) -> Iterator[VadView]:
        """Yield the views in address order."""
        return iter(self._views)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._views)

    def find(self, address: int) -> VadView | None:
        """Return the view that holds `address`, or None."""
        index = bisect_right(self._starts, address) - 1
        if index < 0 or address >= self._views[index].end:
            return None
        return self._views[index]
