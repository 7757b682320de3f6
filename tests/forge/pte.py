# SPDX-License-Identifier: Apache-2.0
"""What Windows writes into page-table entries: valid ones and the software formats of those that are not.

The formats are the kernel's _MMPTE_* types. They follow the paging mode, not the layout's types: a layout of a non-PAE
kernel may serve a PAE machine. "Modern" formats (from Windows 8.1 on) have moved some bits and carry a swizzle
bit, set here: it says that the frame number is written plainly.
"""

from __future__ import annotations

from tests.forge.describe import Paging, Protection
from tests.forge.layouts import Layout
from tests.forge.paging import (
    ACCESSED,
    COPY_ON_WRITE,
    DIRTY,
    NO_EXECUTE,
    PRESENT,
    PROTOTYPE,
    TRANSITION,
    USER,
    WRITE,
)

MM_PROTECTION = {
    Protection.READ: 1,
    Protection.EXECUTE_READ: 3,
    Protection.READ_WRITE: 4,
    Protection.EXECUTE_READ_WRITE: 6,
    Protection.EXECUTE_WRITE_COPY: 7,
}
"""The memory manager's five protection bits, as VADs and software PTEs hold them."""

PROTECT_TO_VALUE = [
    base | extra for extra in (0, 0x200, 0x100, 0x400) for base in (0x01, 0x02, 0x10, 0x20, 0x04, 0x08, 0x40, 0x80)
]
"""MmProtectToValue: PAGE_* by those bits; then the same without cache, as guard pages, and write-combined."""

_SWIZZLE = 1 << 4
_SUBSECTION_IN_POOL = 1 << 31


class PteFormat:
    """Encodes PTEs for one machine."""

    def __init__(
        self, paging: Paging, layout: Layout, proto_base: int, subsection_base: int, invalid_mask: int = 0
    ) -> None:
        self.paging = paging
        self.size = 4 if paging is Paging.X86 else 8
        self.proto_base = proto_base
        """Non-PAE x86: prototype PTEs are given relative to MmProtopte_Base, the start of the paged pool."""
        self.subsection_base = subsection_base
        """Non-PAE x86: subsections are given relative to MmSubsectionBase."""
        self._is_modern = self.size == 8 and layout.has("_MMPTE_PROTOTYPE", "SwizzleBit")
        self._invalid_mask = invalid_mask
        self._address_shift = 16 if paging is Paging.X64 else 32
        self._slot = 0x80000
        # By the types where they are the machine's: the number has moved in 2018.
        self._number_at = layout.field("_MMPTE_SOFTWARE", "PageFileLow").bit if layout.pte_size == self.size else 1

    def valid(self, frame: int, protection: Protection) -> int:
        """Return the entry of a page that a process may reach."""
        entry = frame << 12 | PRESENT | USER | ACCESSED
        if protection in {Protection.READ_WRITE, Protection.EXECUTE_READ_WRITE}:
            entry |= WRITE | DIRTY
        elif protection is Protection.EXECUTE_WRITE_COPY:
            entry |= COPY_ON_WRITE
        if self.size == 8 and protection in {Protection.READ, Protection.READ_WRITE}:
            entry |= NO_EXECUTE
        return entry

    def transition(self, frame: int, protection: Protection) -> int:
        """Return the entry of a page that is on the standby or modified list."""
        return self._invalid(frame << 12 | TRANSITION | MM_PROTECTION[protection] << 5)

    def _invalid(self, entry: int) -> int:
        """Return an entry that is not valid as it is stored: masked where that loses nothing, else marked as plain."""
        if not self._is_modern:
            return entry
        if self._invalid_mask and not entry & self._invalid_mask:
            return entry | self._invalid_mask
        return entry | _SWIZZLE

    def demand_zero(self, protection: Protection) -> int:
        """Return the entry of a committed page that was never touched."""
        return self._invalid(MM_PROTECTION[protection] << 5)

    def paged_out(self, protection: Protection) -> int:
        """Return the entry of a page in page file 0, after the end of the file that is written."""
        self._slot += 1
        return self.in_page_file(self._slot, protection)

    def in_page_file(self, slot: int, protection: Protection, number: int = 0) -> int:
        """Return the entry of a page in a page file, at a page of it."""
        place = slot << (12 if self.size == 4 else 32) | number << self._number_at
        return self._invalid(place | MM_PROTECTION[protection] << 5)

    def prototype(self, address: int) -> int:
        """Return the entry that points to a prototype PTE."""
        if self.size == 4:
            offset = address - self.proto_base
            if not 0 <= offset < 1 << 30 or offset & 3:
                message = f"no prototype PTE at {address:#x}: not within 1 GB of {self.proto_base:#x}"
                raise ValueError(message)
            return offset >> 1 & 0xFE | offset << 2 & 0xFFFFF800 | PROTOTYPE
        return self._invalid(address << self._address_shift & 0xFFFFFFFF_FFFFFFFF | PROTOTYPE)

    def look_up(self, protection: Protection) -> int:
        """Return the entry that sends the reader to the VAD: MI_PTE_LOOKUP_NEEDED for a page file's offset."""
        place = 0xFFFFF000 if self.size == 4 else 0xFFFFFFFF_00000000
        return place | PROTOTYPE | MM_PROTECTION[protection] << 5

    def subsection(self, address: int, protection: Protection) -> int:
        """Return the prototype PTE of a page that is in its file only."""
        flags = PROTOTYPE | MM_PROTECTION[protection] << 5
        if self.size == 4:
            offset = address - self.subsection_base
            if not 0 <= offset < 1 << 27 or offset & 7:
                message = f"no subsection at {address:#x}: not within 128 MB of {self.subsection_base:#x}"
                raise ValueError(message)
            return offset >> 2 & 0x1E | offset << 4 & 0x7FFFF800 | _SUBSECTION_IN_POOL | flags
        return self._invalid(address << self._address_shift & 0xFFFFFFFF_FFFFFFFF | flags)
