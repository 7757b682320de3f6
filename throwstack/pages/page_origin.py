# SPDX-License-Identifier: Apache-2.0
"""Where the bytes of a page come from, or why there are none."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class PageOrigin(Enum):
    """The route by which a page was found, or the reason why it is not there."""

    VALID = "valid"
    """Mapped by the page tables (pages of 4 KiB and large ones)."""
    TRANSITION = "transition"
    """Trimmed from the working set, still in memory."""
    PROTOTYPE = "prototype"
    """In memory, found through the section's prototype PTE."""
    ZERO = "demand-zero"
    """Committed and never touched: all zeros for the process."""
    PAGE_FILE = "page file"
    """Read from a page file that was given with the dump."""
    STORE = "compressed store"
    """Windows 10: decompressed from the memory of the memory compression process."""
    FILE = "image file"
    """Not in the dump: taken from the file of the image, relocated. A substitute, as the only one of these."""

    NOT_COMMITTED = "not committed"
    """The process has no memory there."""
    PAGED_OUT = "in a page file that was not given"
    COMPRESSED = "in the compressed store, unreadable"
    """The same, but the store's layout is not known, or it is damaged or not in the dump."""
    IN_FILE = "only in the file that is mapped there"
    """Neither in memory nor in a page file, and the file was not given."""
    NOT_IN_DUMP = "its frame is not in the dump"
    """The tables give a physical address that the dump leaves out or that lies behind a truncated dump's end."""
    TABLE_NOT_IN_DUMP = "its page table is not in the dump"
    UNKNOWN = "its page-table entry cannot be resolved"

    @property
    def is_present(self) -> bool:
        """Say whether there are bytes."""
        return self in _PRESENT

    @property
    def is_substitute(self) -> bool:
        """Say whether the bytes are what the page must hold by its file rather than what was seen in memory."""
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
    """Where a page is: its frame, or for one in page file `page_file` its number there.

    The compressed store has the number of a page file, too.
    """

    origin: PageOrigin
    frame: int = 0
    page_file: int | None = None
