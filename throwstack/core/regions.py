# SPDX-License-Identifier: Apache-2.0
"""The regions of a process's memory: what kind of memory each is, and whether it can hold code.

Code is not only in images. A JIT compiler puts it into private memory or into a section without a file, and a hook
library puts trampolines there. The regions say where such code can be.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol


class RegionKind(Enum):
    """What kind of memory a region is."""

    PRIVATE = "private memory"
    MAPPED = "a mapped section"
    IMAGE = "an image"


@dataclass(frozen=True, slots=True)
class Region:
    """A region of a process's addresses, `start` <= address < `end`.

    `is_executable` says whether the processor can run code at the address for which the region was looked up. The
    protection of single pages can differ from that of the region: a JIT compiler may reserve memory as read-write, and
    make the pages executable when it has written them.
    """

    start: int
    end: int
    kind: RegionKind
    is_executable: bool


class Regions(Protocol):
    """The regions of one process."""

    def find(self, address: int) -> Region | None:
        """Return the region that holds `address`; None if none is known to do so."""
        ...
