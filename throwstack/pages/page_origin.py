# SPDX-License-Identifier: Apache-2.0
"""Where the bytes of a page come from, or why the page is absent."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class PageOrigin(Enum):
    """Where a page was found, or why it is absent."""

    VALID = "valid"
    """Mapped by the page tables (pages of 4 KiB and large ones)."""
    TRANSITION = "transition"
    """In memory, although removed from the process's working set."""
    PROTOTYPE = "prototype"
    """In memory as a page of a section; found through the section's prototype PTE."""
    ZERO = "demand-zero"
    """Committed and never accessed: the process would read zeros."""
    PAGE_FILE = "page file"
    """Read from a page file that was given with the dump."""
    STORE = "compressed store"
    """Windows 10 and later: decompressed from the memory of the memory compression process."""
    FILE = "image file"
    """Not in the dump: taken from the image's file and relocated. No other origin is a substitute."""

    NOT_COMMITTED = "not committed"
    """The process has no memory at this address."""
    PAGED_OUT = "in a page file that was not given"
    COMPRESSED = "in the compressed store, unreadable"
    """In the compressed store, but the store's layout is unknown, or its structures are damaged or not in the dump."""
    IN_FILE = "only in the file that is mapped there"
    """Not in memory and in no page file; it would have to be read from the mapped file, which was not given."""
    NOT_IN_DUMP = "its frame is not in the dump"
    """The tables give a physical address that the dump does not hold, or no longer holds because it is truncated."""
    TABLE_NOT_IN_DUMP = "its page table is not in the dump"
    UNKNOWN = "its page-table entry cannot be resolved"

    @property
    def is_present(self) -> bool:
        """Say whether the bytes of the page are known."""
        return self in _PRESENT

    @property
    def is_substitute(self) -> bool:
        """Say whether the bytes are from the image's file and not from the dump."""
        return self is PageOrigin.FILE


_PRESENT = frozenset(
    {
        PageOrigin.VALID,
        PageOrigin.TRANSITION,
        PageOrigin.PROTOTYPE,
        PageOrigin.ZERO,
        PageOrigin.PAGE_FILE,
        PageOrigin.STORE,
        PageOrigin.FILE,
    }
)


@dataclass(frozen=True, slots=True)
class PageLocation:
    """Where a page is, so that its bytes can be read.

    If `page_file` is None, `frame` is the page's frame number in physical memory. Otherwise `page_file` is the number
    of a page file, or the number that stands for the compressed store, and `frame` is the page's index in it. `frame`
    has no meaning for a page that is absent or all zeros.
    """

    origin: PageOrigin
    frame: int = 0
    page_file: int | None = None
