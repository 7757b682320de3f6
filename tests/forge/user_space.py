# SPDX-License-Identifier: Apache-2.0
"""A process's own half: regions laid into pages, what the writer adds laid over them, and the PTE of each page."""

from __future__ import annotations

import bisect
from dataclasses import dataclass, replace
from itertools import pairwise

from tests.forge.compressed_store import STORE_FILE, store_places
from tests.forge.describe import Protection, Region, Residency
from tests.forge.kernel_memory import KernelMemory
from tests.forge.paging import AddressSpace
from tests.forge.physical import PAGE
from tests.forge.pte import PteFormat
from tests.forge.sections import Section

SHARED_DATA = 0x7FFE0000
"""Where every process sees KUSER_SHARED_DATA."""
_IN_SECTION = {Residency.PROTOTYPE, Residency.PROTOTYPE_BY_VAD, Residency.IN_FILE}

_FIRST_SLOT = 0x10
"""Where in the page file the first page is."""


@dataclass(frozen=True)
class Vad:
    """What a VAD says of a range; `end` is exclusive, `section` None for private memory."""

    start: int
    end: int
    protection: Protection
    committed: int
    is_image: bool = False
    section: Section | None = None
    is_committed: bool = False
    """Private memory committed as a whole when it was allocated, so that a page without an entry is one of zeros."""


class SectionCache:
    """The machine's sections: an image that is at one base in several processes is there once."""

    def __init__(self, kernel: KernelMemory, ptes: PteFormat) -> None:
        self.kernel = kernel
        self.ptes = ptes
        self._shared: dict[tuple[int, int, str | None, bool], Section] = {}
        self._all: list[Section] = []
        self.page_file: dict[int, bytes] = {}
        """Contents of page file 0, by page."""
        self.store: dict[int, bytes] = {}
        """What the compressed store has to keep, by the page's place in its page file."""
        self._places = store_places()

    def page_out(self, page: bytes, protection: Protection) -> int:
        """Put a page into page file 0; return its entry."""
        slot = _FIRST_SLOT + len(self.page_file)
        self.page_file[slot] = page.ljust(PAGE, b"\0")
        return self.ptes.in_page_file(slot, protection)

    def keep(self, page: bytes, protection: Protection) -> int:
        """Put a page into the compressed store; return its entry."""
        if self.ptes.size == 4:
            message = "Windows 10 has no page tables without PAE for a compressed store"
            raise ValueError(message)
        place = next(self._places)
        self.store[place] = page
        return self.ptes.in_page_file(place, protection, STORE_FILE)

    def section(self, region: Region, share: bool) -> Section:
        """Return the section that backs a region."""
        key = (id(region.data), region.base, region.file, region.is_image)
        if share and key in self._shared:
            return self._shared[key]
        made = Section(self.kernel, self.ptes, region)
        self._all.append(made)
        if share:
            self._shared[key] = made
        return made

    def finish(self) -> None:
        """Write all prototype PTEs."""
        for section in self._all:
            section.finish()


class UserSpace:
    """The memory of one process while it is being laid out. Addresses may be written in regions and claimed ranges."""

    def __init__(self, regions: list[Region], sections: SectionCache, space: AddressSpace) -> None:
        self._sections = sections
        self._space = space
        # Copies: what is claimed changes a region's residency.
        self._regions = sorted(map(replace, regions), key=lambda region: region.base)
        self._starts = [region.base for region in self._regions]
        self._written: dict[int, bytearray] = {}
        for region, after in pairwise(self._regions):
            if _end(region) > after.base:
                message = f"regions at {region.base:#x} and {after.base:#x} overlap"
                raise ValueError(message)
        for region in self._regions:
            if region.base % PAGE or not 0 <= region.base < _end(region) <= space.kernel_start:
                message = f"region at {region.base:#x} is not a range of whole pages in the user half"
                raise ValueError(message)

    def region_at(self, address: int) -> Region | None:
        """Return the region with an address among its pages (not those it only reserves)."""
        at = bisect.bisect_right(self._starts, address) - 1
        if at < 0 or address >= self._regions[at].base + _pages(self._regions[at]) * PAGE:
            return None
        return self._regions[at]

    def claim(self, address: int, size: int, residency: Residency) -> None:
        """Make the pages of a range, as private memory, where no region has them; set the residency of all."""
        start = address // PAGE * PAGE
        if start <= SHARED_DATA < address + size:
            message = f"{address:#x}: the shared data's page is not the process's"
            raise ValueError(message)
        missing: list[int] = []
        for page in range(start, address + size, PAGE):
            region = self.region_at(page)
            if region is None:
                missing.append(page)
            elif residency is not Residency.VALID:
                region.residency = {**region.residency, (page - region.base) // PAGE: residency}
        while missing:
            count = next((i for i, page in enumerate(missing) if page != missing[0] + i * PAGE), len(missing))
            states = {} if residency is Residency.VALID else dict.fromkeys(range(count), residency)
            self._insert(Region(missing[0], bytes(count * PAGE), residency=states))
            missing = missing[count:]

    def _insert(self, region: Region) -> None:
        at = bisect.bisect_left(self._starts, region.base)
        if (at and _end(self._regions[at - 1]) > region.base) or (
            at < len(self._regions) and _end(region) > self._regions[at].base
        ):
            message = f"no room for {len(region.data):#x} bytes at {region.base:#x}"
            raise ValueError(message)
        self._regions.insert(at, region)
        self._starts.insert(at, region.base)

    def free_range(self, size: int, start: int) -> int:
        """Return the first address from `start` on, at a 64 KB boundary, with room for that many bytes."""
        for region in self._regions:
            if region.base >= start + size:
                break
            if _end(region) > start:
                start = -(-_end(region) // 0x10000) * 0x10000
        return start

    def write(self, address: int, data: bytes) -> None:
        """Write bytes over what the regions hold."""
        while data:
            offset = address % PAGE
            part = data[: PAGE - offset]
            self._page(address)[offset : offset + len(part)] = part
            address, data = address + len(part), data[len(part) :]

    def read(self, address: int, size: int) -> bytes:
        """Return bytes as written so far."""
        data = bytearray()
        while len(data) < size:
            offset = (address + len(data)) % PAGE
            data += self._page(address + len(data))[offset : offset + size - len(data)]
        return bytes(data)

    def _page(self, address: int) -> bytearray:
        number = address // PAGE
        page = self._written.get(number)
        if page is None:
            region = self.region_at(address)
            if region is None:
                message = f"nothing at {address:#x} to write to"
                raise ValueError(message)
            offset = number * PAGE - region.base
            page = self._written[number] = bytearray(region.data[offset : offset + PAGE].ljust(PAGE, b"\0"))
        return page

    def finish(self, shared_data_frame: int) -> list[Vad]:
        """Enter all pages into the page tables; return what the VADs have to say."""
        vads = [self._lay(region) for region in self._regions]
        if self.region_at(SHARED_DATA) is None:
            vads.append(Vad(SHARED_DATA, SHARED_DATA + PAGE, Protection.READ, 1))
        self._space.set_entry(SHARED_DATA, self._sections.ptes.valid(shared_data_frame, Protection.READ))
        return sorted(vads, key=lambda vad: vad.start)

    def page_out_tables(self) -> None:
        """Put the page tables that lead to no page in memory into the page file, once all entries are made."""
        self._space.page_out_tables(lambda table: self._sections.page_out(table, Protection.READ_WRITE))

    def _lay(self, region: Region) -> Vad:
        pages = _pages(region)
        written = any(number in self._written for number in range(region.base // PAGE, region.base // PAGE + pages))
        section = None
        if region.file is not None or region.is_image or _IN_SECTION & set(region.residency.values()):
            section = self._sections.section(region, share=region.file is not None and not written)
        data = memoryview(region.data)
        states = region.residency
        for index in range(pages):
            residency = states.get(index, Residency.VALID)
            if residency is Residency.ABSENT:
                continue
            private = self._written.get(region.base // PAGE + index) if written else None
            page = data[index * PAGE : (index + 1) * PAGE] if private is None else private
            entry = self._entry(region, section, index, residency, page)
            self._space.set_entry(region.base + index * PAGE, entry)
        committed = pages if section is None else 0
        is_committed = section is None and not region.reserve and Residency.ABSENT not in states.values()
        return Vad(region.base, _end(region), region.protection, committed, region.is_image, section, is_committed)

    def _entry(  # noqa: C901, PLR0911 - one for each state of a page
        self, region: Region, section: Section | None, index: int, residency: Residency, page: bytearray | memoryview
    ) -> int:
        ptes, protection = self._sections.ptes, region.protection
        match residency:
            case Residency.DEMAND_ZERO:
                return ptes.demand_zero(protection)
            case Residency.PAGED_OUT:
                return ptes.paged_out(protection)
            case Residency.IN_PAGE_FILE:
                return self._sections.page_out(bytes(page), protection)
            case Residency.IN_STORE:
                return self._sections.keep(bytes(page).ljust(PAGE, b"\0"), protection)
            case Residency.UNTOUCHED if section is None:
                return 0
            case Residency.IN_FILE if section is not None:
                return ptes.prototype(section.prototype(index))
        memory = self._sections.kernel.physical
        frame = memory.add(page) if section is None else section.frame(index, residency, page)
        match residency:
            case Residency.TRANSITION:
                return ptes.transition(frame, protection)
            case Residency.PROTOTYPE if section is not None:
                return ptes.prototype(section.prototype(index))
            case Residency.PROTOTYPE_BY_VAD:
                return ptes.look_up(protection)
            case Residency.UNTOUCHED:
                return 0
        return ptes.valid(frame, protection)


def _pages(region: Region) -> int:
    return -(-len(region.data) // PAGE)


def _end(region: Region) -> int:
    return region.base + -(-(len(region.data) + region.reserve) // PAGE) * PAGE
