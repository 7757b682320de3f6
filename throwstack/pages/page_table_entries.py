# SPDX-License-Identifier: Apache-2.0
"""Windows' own formats of page-table entries whose valid bit is clear.

The bit positions are those of the kernel's _MMPTE_HARDWARE, _MMPTE_TRANSITION, _MMPTE_PROTOTYPE and _MMPTE_SOFTWARE;
they differ between paging modes and Windows versions and are given by whoever has the kernel's symbols. The common
ground, on which all versions agree: bit 10 says prototype, else bit 11 says transition, else the entry is in software
format (page file or demand zero).

Since the L1TF patches of 2018 an entry that is not valid may carry `MiState.Hardware.InvalidPteMask`, bits above all
physical memory: they are there when the entry's swizzle bit is clear, and have to be taken out first.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

_PROTOTYPE = 1 << 10
_TRANSITION = 1 << 11
_ACCESS = 7
"""The bits of a protection that allow something; without them it is no access or a decommitted page."""


@dataclass(frozen=True, slots=True)
class Bits:
    """A bit field: number of its first bit, and its width."""

    first: int
    width: int

    def of(self, entry: int) -> int:
        """Return the field's value in `entry`."""
        return entry >> self.first & (1 << self.width) - 1

    def is_full(self, entry: int) -> bool:
        """Say whether all bits of the field are set."""
        return self.of(entry) == (1 << self.width) - 1


class EntryKind(Enum):
    """What an entry that is not valid says."""

    EMPTY = "empty"
    TRANSITION = "transition"
    PROTOTYPE = "prototype"
    """`DecodedEntry.value` is the address of the prototype PTE."""
    SEE_VAD = "see the VAD"
    """The prototype PTE is the one that the VAD has for this page."""
    PAGE_FILE = "page file"
    ZERO = "zero"
    NO_ACCESS = "no access"
    """Decommitted, or committed without any access and never touched."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class DecodedEntry:
    """A decoded entry. `value`: frame number, address of a prototype PTE, or page number in a page file."""

    kind: EntryKind
    value: int = 0
    page_file: int = 0


@dataclass(frozen=True, slots=True)
class PteFormats:
    """The formats of one machine. `size` is that of an entry in bytes.

    `proto_address` is None where an entry of four bytes holds only a part of the address: the VAD has to be asked then.
    `swizzle` is None where the Windows version knows no such bit; `invalid_mask` is None where it could not be read.
    """

    size: int
    valid_frame: Bits
    transition_frame: Bits
    proto_address: Bits | None
    page_file_number: Bits
    page_file_page: Bits
    protection: Bits
    swizzle: Bits | None = None
    invalid_mask: int | None = 0

    def unswizzled(self, entry: int) -> int | None:
        """Return an entry that is not valid without the bits that were added to it; None if they are not known."""
        if self.swizzle is None or self.invalid_mask == 0:
            return entry
        if self.swizzle.of(entry):
            return entry
        return None if self.invalid_mask is None else entry & ~self.invalid_mask

    def decode(self, raw: int) -> DecodedEntry:
        """Say what `raw`, whose valid bit is clear, stands for."""
        if not raw:
            return DecodedEntry(EntryKind.EMPTY)
        entry = self.unswizzled(raw)
        if raw & _PROTOTYPE:
            return self._prototype(raw, entry)
        if raw & _TRANSITION:
            # A mask that is not known lies above all memory: the frame is in no dump, rather than a wrong one.
            return DecodedEntry(EntryKind.TRANSITION, self.transition_frame.of(raw if entry is None else entry))
        return DecodedEntry(EntryKind.UNKNOWN) if entry is None else self._software(entry)

    def _software(self, entry: int) -> DecodedEntry:
        page = self.page_file_page.of(entry)
        if page:
            # A page file's first page is its header: number 0 is no page's.
            return DecodedEntry(EntryKind.PAGE_FILE, page, self.page_file_number.of(entry))
        return DecodedEntry(EntryKind.ZERO if self.protection.of(entry) & _ACCESS else EntryKind.NO_ACCESS)

    def _prototype(self, raw: int, entry: int | None) -> DecodedEntry:
        # The marker "see the VAD" has all bits of a page file's offset set, those of a mask among them.
        if self.proto_address is None or entry is None or self.page_file_page.is_full(raw):
            return DecodedEntry(EntryKind.SEE_VAD)
        address = self.proto_address.of(entry)
        if self.proto_address.width == 48 and address >> 47:
            address |= 0xFFFF << 48
        return DecodedEntry(EntryKind.PROTOTYPE, address)
