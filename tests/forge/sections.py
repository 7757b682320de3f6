# SPDX-License-Identifier: Apache-2.0
"""Sections: control area, segment, subsections, prototype PTEs and file object of what processes map and share."""

from __future__ import annotations

import contextlib

import pefile

from tests.forge.describe import Protection, Region, Residency
from tests.forge.kernel_memory import KernelMemory, Pool
from tests.forge.physical import PAGE
from tests.forge.pte import MM_PROTECTION, PteFormat
from tests.forge.structures import Structure

_EXECUTE, _WRITE = 0x20000000, 0x80000000


class Section:
    """What one mapped file (or piece of the page file) has in the kernel. Processes that map it share its pages."""

    def __init__(self, kernel: KernelMemory, ptes: PteFormat, region: Region) -> None:
        self._kernel = kernel
        self._ptes = ptes
        self._region = region
        self.pages = -(-len(region.data) // PAGE)
        self._frames: dict[int, int] = {}
        self._mapped: set[int] = set()
        self.prototypes = kernel.allocate(self.pages * ptes.size, Pool.PAGED, align=8)
        parts = _parts(region, self.pages)
        area, part = kernel.layout.size("_CONTROL_AREA"), kernel.layout.size("_SUBSECTION")
        self.control_area = kernel.allocate_struct("_CONTROL_AREA", tag=b"MmCi", extra=part * len(parts))
        self.subsections = [self.control_area + area + part * index for index in range(len(parts))]
        self._first_pages = [first for first, _, _ in parts]
        self.file_object = self._write_file_object() if region.file is not None else 0
        self._write_control_area(len(parts))
        for index, (first, sector, protection) in enumerate(parts):
            self._write_subsection(index, first, sector, protection)

    def prototype(self, index: int) -> int:
        """Return the address of a page's prototype PTE."""
        return self.prototypes + index * self._ptes.size

    def frame(self, index: int, residency: Residency, page: bytearray | memoryview) -> int:
        """Return the frame of a page, brought into memory on first use; `residency` is how a process reaches it."""
        if index not in self._frames:
            self._frames[index] = self._kernel.physical.add(page)
        if residency is Residency.VALID:
            self._mapped.add(index)
        return self._frames[index]

    def finish(self) -> None:
        """Write the prototype PTEs, when every process has said what it maps.

        A page that no process maps is in transition; every other one is left valid, as though one not described here
        mapped it: both occur, and both have to be read.
        """
        protection = self._region.protection
        entries = bytearray()
        part = 0
        for index in range(self.pages):
            while part + 1 < len(self._first_pages) and self._first_pages[part + 1] <= index:
                part += 1
            frame = self._frames.get(index)
            if frame is None:
                entry = self._absent(part, protection)
            elif index in self._mapped or index % 2 == 0:
                entry = self._ptes.valid(frame, protection)
            else:
                entry = self._ptes.transition(frame, protection)
            entries += entry.to_bytes(self._ptes.size, "little")
        self._kernel.write(self.prototypes, bytes(entries))

    def _absent(self, part: int, protection: Protection) -> int:
        if self.file_object:
            return self._ptes.subsection(self.subsections[part], protection)
        return self._ptes.demand_zero(protection)

    def _write_control_area(self, parts: int) -> None:
        kernel = self._kernel
        segment = Structure(kernel, kernel.layout, "_SEGMENT", kernel.allocate_struct("_SEGMENT", Pool.PAGED, b"MmSm"))
        segment.put_all(
            ControlArea=self.control_area,
            TotalNumberOfPtes=self.pages,
            SizeOfSegment=self.pages * PAGE,
            PrototypePte=self.prototypes,
            NumberOfCommittedPages=0,
        )
        if self._region.is_image:
            segment.put_all(BasedAddress=self._region.base)
        area = Structure(kernel, kernel.layout, "_CONTROL_AREA", self.control_area)
        area.put_all(
            Segment=segment.address,
            NumberOfSectionReferences=1,
            NumberOfMappedViews=1,
            NumberOfUserReferences=2,
            NumberOfPfnReferences=self.pages,
            NumberOfSubsections=parts,
        )
        area.put("u.Flags.Image", self._region.is_image)
        area.put("u.Flags.File", self.file_object != 0)
        # From Vista on the pointer's low bits count references: readers have to mask them.
        path = "FilePointer.Object" if area.has("FilePointer.Object") else "FilePointer"
        count = 4 if path != "FilePointer" and self.file_object else 0
        area.put(path, self.file_object | count)

    def _write_subsection(self, index: int, first: int, sector: int, protection: int) -> None:
        end = self._first_pages[index + 1] if index + 1 < len(self._first_pages) else self.pages
        following = self.subsections[index + 1] if index + 1 < len(self.subsections) else 0
        subsection = Structure(self._kernel, self._kernel.layout, "_SUBSECTION", self.subsections[index])
        subsection.put_all(
            ControlArea=self.control_area,
            SubsectionBase=self.prototype(first),
            PtesInSubsection=end - first,
            NextSubsection=following,
            StartingSector=sector,
            NumberOfFullSectors=(end - first) * 8,
        )
        subsection.put("u.SubsectionFlags.Protection", protection)

    def _write_file_object(self) -> int:
        kernel, layout = self._kernel, self._kernel.layout
        pointers = Structure(
            kernel, layout, "_SECTION_OBJECT_POINTERS", kernel.allocate_struct("_SECTION_OBJECT_POINTERS")
        )
        pointers.put("ImageSectionObject" if self._region.is_image else "DataSectionObject", self.control_area)
        header = layout.offset("_OBJECT_HEADER", "Body")
        address = kernel.allocate(layout.size("_FILE_OBJECT"), before=header + layout.size("_POOL_HEADER"))
        file = Structure(kernel, layout, "_FILE_OBJECT", address)
        file.put_all(
            Type=5,
            Size=layout.size("_FILE_OBJECT"),
            ReadAccess=1,
            SharedRead=1,
            SharedDelete=1,
            SectionObjectPointer=pointers.address,
        )
        file.put_string("FileName", *kernel.unicode(self._region.file or ""))
        return address


def _parts(region: Region, pages: int) -> list[tuple[int, int, int]]:
    """Return (first page, sector in the file, protection) of a section's subsections."""
    whole = [(0, 0, MM_PROTECTION[region.protection])]
    if not region.is_image or not region.data.startswith(b"MZ"):
        return whole
    with contextlib.suppress(pefile.PEFormatError):
        image = pefile.PE(data=region.data, fast_load=True)
        parts = [(0, 0, MM_PROTECTION[Protection.READ])]
        for section in image.sections:
            first = section.VirtualAddress // PAGE
            if parts[-1][0] < first < pages:
                parts.append((first, section.PointerToRawData // 512, _protection(section.Characteristics)))
        return parts
    return whole


def _protection(characteristics: int) -> int:
    """The memory manager's protection of an image's part: writable ones are written to private copies."""
    execute = bool(characteristics & _EXECUTE)
    if characteristics & _WRITE:
        return 7 if execute else 5
    return 3 if execute else 1
