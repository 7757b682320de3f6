# SPDX-License-Identifier: Apache-2.0
"""Decodes page-table entries whose valid bit is clear: the processor ignores them, but Windows gives them a meaning.

All Windows versions agree on this: if bit 10 is set, the entry is in prototype format; else if bit 11 is set, the page
is in transition; else the entry is in software format (page file or demand zero). The other bits differ between paging
modes and Windows versions. They are the members of _MMPTE_HARDWARE, _MMPTE_TRANSITION, _MMPTE_PROTOTYPE and
_MMPTE_SOFTWARE. Their positions come from the kernel's symbols and are passed to `PteFormats`.

The L1TF attack (2018) reads the cache line at the frame number of an entry that is not valid. Patched kernels therefore
set high bits in such entries (the mask `MiState.Hardware.InvalidPteMask`), so that the frame number is beyond all
physical memory. With the mask 1 << 45, the transition entry 0x12345880 is stored as 0x200012345880. If the entry itself
has bits of the mask set, Windows stores it unchanged and sets the swizzle bit (bit 4) to say so. So if the swizzle bit
of an entry is clear, the bits of the mask are cleared before the entry is decoded.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

_PROTOTYPE = 1 << 10
_TRANSITION = 1 << 11
_ACCESS = 7
"""Bits of a protection value that allow any access. If all are clear, the page has no access or is decommitted."""
EXECUTE = 2
"""The bit of a protection value, in entries and in VADs, that allows code to run (MM_EXECUTE, MM_EXECUTE_READ, …)."""


@dataclass(frozen=True, slots=True)
class Bits:
    """A bit field: the number of its lowest bit, and its width in bits."""

    first: int
    width: int

    def of(self, entry: int) -> int:
        """Return the field's value in `entry`."""
        return entry >> self.first & (1 << self.width) - 1

    def is_full(self, entry: int) -> bool:
        """Say whether all bits of the field are set."""
        return self.of(entry) == (1 << self.width) - 1


class EntryKind(Enum):
    """The kinds of page-table entries whose valid bit is clear."""

    EMPTY = "empty"
    TRANSITION = "transition"
    PROTOTYPE = "prototype"
    """`DecodedEntry.value` is the address of the prototype PTE."""
    SEE_VAD = "see the VAD"
    """The entry does not say where the prototype PTE is; the VAD that covers the page does."""
    PAGE_FILE = "page file"
    ZERO = "zero"
    NO_ACCESS = "no access"
    """Decommitted, or committed with no access allowed and never accessed."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class DecodedEntry:
    """A decoded page-table entry.

    By `kind`, `value` is a frame number (in transition), the address of a prototype PTE, or a page's index in the page
    file whose number is `page_file`. For other kinds it is 0.
    """

    kind: EntryKind
    value: int = 0
    page_file: int = 0


@dataclass(frozen=True, slots=True)
class PteFormats:
    """The bit fields of the page-table entries of one machine. `size` is the size of an entry in bytes.

    `proto_address` is the field with the address of a prototype PTE. It is None on x86 without PAE: an entry of four
    bytes is too small for the whole address, so the address is found through the VAD. `swizzle` is None if the Windows
    version has no such bit. `invalid_mask` is None if the kernel's InvalidPteMask could not be read.
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
        """Return `entry` without the bits of `invalid_mask`; None if the mask is unknown and may be set in `entry`."""
        if self.swizzle is None or self.invalid_mask == 0:
            return entry
        if self.swizzle.of(entry):
            return entry
        return None if self.invalid_mask is None else entry & ~self.invalid_mask

    def is_executable(self, raw: int) -> bool | None:
        """Say whether the protection in the entry `raw`, whose valid bit is clear, allows code to run.

        None for an empty entry or one in prototype format, which keep no protection: that in the VAD is meant.
        """
        return None if not raw or raw & _PROTOTYPE else bool(self.protection.of(raw) & EXECUTE)

    def decode(self, raw: int) -> DecodedEntry:
        """Return the meaning of the entry `raw`, whose valid bit is clear."""
        if not raw:
            return DecodedEntry(EntryKind.EMPTY)
        entry = self.unswizzled(raw)
        if raw & _PROTOTYPE:
            return self._prototype(raw, entry)
        if raw & _TRANSITION:
            # An unknown mask stays in. That is safe: the frame is then beyond all memory, not a wrong one.
            return DecodedEntry(EntryKind.TRANSITION, self.transition_frame.of(raw if entry is None else entry))
        return DecodedEntry(EntryKind.UNKNOWN) if entry is None else self._software(entry)

    def _software(self, entry: int) -> DecodedEntry:
        page = self.page_file_page.of(entry)
        if page:
            # Page 0 of a page file is its header. So 0 means that the page is in no page file.
            return DecodedEntry(EntryKind.PAGE_FILE, page, self.page_file_number.of(entry))
        return DecodedEntry(EntryKind.ZERO if self.protection.of(entry) & _ACCESS else EntryKind.NO_ACCESS)

    def _prototype(self, raw: int, entry: int | None) -> DecodedEntry:
        # "See the VAD" is marked by setting all bits of the page file's offset. Bits of the mask are among them, so the
        # marker is looked for in `raw`.
        if self.proto_address is None or entry is None or self.page_file_page.is_full(raw):
            return DecodedEntry(EntryKind.SEE_VAD)
        address = self.proto_address.of(entry)
        if self.proto_address.width == 48 and address >> 47:
            address |= 0xFFFF << 48
        return DecodedEntry(EntryKind.PROTOTYPE, address)
