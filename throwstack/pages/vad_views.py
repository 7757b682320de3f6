# SPDX-License-Identifier: Apache-2.0
"""The address ranges of a process's VADs: what kind of memory each is, and where its prototype PTEs are."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from throwstack.core.memory import PAGE_SIZE


@dataclass(frozen=True, slots=True)
class PrototypeRun:
    """A row of `count` prototype PTEs in kernel memory, from `address` on.

    The first of them is for page `first` of the VAD's address range; the pages are counted from 0.
    """

    first: int
    count: int
    address: int


@dataclass(frozen=True, slots=True)
class VadView:
    """The address range of one VAD, `start` <= address < `end`.

    `is_committed` is the VAD's flag for the whole range; even if it is set, a page-table entry can decommit a single
    page. `prototypes` are the rows of prototype PTEs. There are none for private memory, nor for parts of a mapped file
    for which Windows has not made prototype PTEs yet. `is_executable` says whether the protection with which the range
    was allocated allows code to run; a page-table entry can allow it for a single page. `protection` is that protection
    as the kernel keeps it: a number of 5 bits, MM_READONLY and so on; None if it is not known.
    """

    start: int
    end: int
    is_private: bool
    is_committed: bool
    is_image: bool
    prototypes: tuple[PrototypeRun, ...] = ()
    is_executable: bool = False
    protection: int | None = None

    def prototype(self, address: int, entry_size: int) -> int | None:
        """Return the address of the prototype PTE of the page that holds `address`, or None if there is none."""
        page = (address - self.start) // PAGE_SIZE
        for run in self.prototypes:
            if run.first <= page < run.first + run.count:
                return run.address + (page - run.first) * entry_size
        return None


class VadViews:
    """The address ranges of one process's VADs, looked up by address."""

    __slots__ = ("_starts", "_views")

    def __init__(self, views: Iterable[VadView]) -> None:
        """`views` may be in any order."""
        self._views = sorted(views, key=lambda view: view.start)
        self._starts = [view.start for view in self._views]

    def __iter__(self) -> Iterator[VadView]:
        """Yield the ranges in address order."""
        return iter(self._views)

    def __len__(self) -> int:
        """Return the number of ranges."""
        return len(self._views)

    def find(self, address: int) -> VadView | None:
        """Return the range that holds `address`, or None."""
        index = bisect_right(self._starts, address) - 1
        if index < 0 or address >= self._views[index].end:
            return None
        return self._views[index]
