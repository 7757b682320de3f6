# SPDX-License-Identifier: Apache-2.0
"""Finds the pages of an address space, also unmapped ones, and says where each page comes from.

The steps are those of Windows' own page fault handler (Windows Internals, 7th edition, part 1, chapter 5, "Page fault
handling"). If the page-table entry is

- valid or in transition, it has the page's frame number;
- in prototype format, the page belongs to a section, and the section's prototype PTE says where the page is. The
  address of that prototype PTE is in the entry or in the VAD;
- in software format, the page is all zeros or in a page file. One of the page files may be the compressed store;
- empty, the VAD decides: committed private memory is all zeros, a mapped section has a prototype PTE for the page.

A prototype PTE that is valid, in transition or in software format has the same meaning as a page-table entry. If its
prototype bit is set, it is in subsection format, and the page has to be read from the mapped file.

No contents are invented. A page is taken for zeros only if its entry says so, or if the entry is empty and a committed
private VAD covers the page. A page is taken from an image's file only if the process cannot have changed the page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from throwstack.core.memory import PAGE_SIZE, MemoryUnreadable, PageSource
from throwstack.pages.page_origin import PageLocation, PageOrigin
from throwstack.pages.page_table_entries import DecodedEntry, EntryKind, PteFormats
from throwstack.pages.page_tables import AddressSpace
from throwstack.pages.vad_views import VadViews

_ZEROS = bytes(PAGE_SIZE)
_VALID = 1
_NO_EXECUTE = 1 << 63
_PROTOTYPE = 1 << 10
_KERNEL_HALF = 0x1FFFF
"""Bits 47 to 63 of an address of the x64 kernel."""


class PageFiles(Protocol):
    """The page files that were given with a dump."""

    def page(self, number: int, index: int) -> bytes | None:
        """Return page `index` of page file `number`; None if the file was not given or is shorter.

        If `number` is that of the compressed store, return the decompressed page; None if it cannot be read.
        """
        ...

    def is_compressed_store(self, number: int) -> bool:
        """Say whether `number` stands for the compressed store. No such file exists on disk."""
        ...


class ImageFiles(Protocol):
    """The files of a process's images, mapped as the loader maps them."""

    def page(self, address: int) -> bytes | None:
        """Return the page at `address`, relocated to the image's base; None if no file was found.

        The result is also None for pages that a process writes to (writable sections, import addresses).
        """
        ...


class EntryReader(Protocol):
    """Kernel memory, from which prototype PTEs are read."""

    def read(self, address: int, size: int) -> bytes:
        """Return `size` bytes at `address`; raises `MemoryUnreadable` if they cannot be read."""
        ...


class ResolvedPages:
    """A `PageSource` of one address space that also finds pages which are not mapped: in transition, in a page file, ….

    The docstring of the module describes how a page is found.
    """

    __slots__ = (
        "_files",
        "_formats",
        "_kernel",
        "_page_files",
        "_physical",
        "_tables",
        "_view_maker",
        "_views",
        "substitutes",
    )

    def __init__(
        self,
        physical: PageSource,
        tables: AddressSpace,
        formats: PteFormats | None = None,
        *,
        kernel: EntryReader | None = None,
        views: Callable[[], VadViews] | None = None,
        page_files: PageFiles | None = None,
    ) -> None:
        """`physical` is the physical memory, and `tables` translates addresses through the process's page tables.

        `formats` decodes entries that are not valid; without it, only valid pages and pages in transition are found.
        `kernel` is the kernel memory with the prototype PTEs. `views` returns the process's VADs, and is called once,
        when they are first needed. `page_files` are the page files that were given with the dump.
        """
        self._physical = physical
        self._tables = tables
        self._formats = formats
        self._kernel = kernel
        self._view_maker = views
        self._views: VadViews | None = None
        self._page_files = page_files
        self._files: ImageFiles | None = None
        self.substitutes: set[int] = set()
        """Addresses of the pages that `page` took from image files."""

    def use_image_files(self, files: ImageFiles) -> None:
        """From now on, take pages that are not in the dump from `files`."""
        self._files = files

    @property
    def views(self) -> VadViews:
        """Return the address ranges of the process's VADs; empty if no VADs were given."""
        if self._views is None:
            self._views = self._view_maker() if self._view_maker is not None else VadViews(())
        return self._views

    @property
    def in_dump(self) -> PageSource:
        """Return a `PageSource` of the same pages, but without those from image files."""
        return _InDump(self)

    def tables(self, first: int, last: int) -> tuple[int | None, ...]:
        """Return a number for each page table that maps addresses from `first` to `last`: see `AddressSpace.tables`."""
        return self._tables.tables(first, last)

    def mapped(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Yield the parts of `first` <= address <= `last` that have page tables: see `AddressSpace.mapped`."""
        return self._tables.mapped(first, last)

    def page(self, address: int) -> bytes | None:
        """Return the page at the page-aligned `address`, or None if it is absent."""
        physical = self._tables.translate(address)
        if physical is not None:
            page = self._physical.page(physical)
            if page is not None:
                return page
        origin, page = self.resolve(address)
        if origin.is_substitute:
            self.substitutes.add(address)
        return page

    def is_executable(self, address: int) -> bool | None:
        """Say whether the page-table entry of the page that holds `address` allows code to run there.

        None if no entry can be read, or if it does not say so: the protection is then that of the VAD. Entries of x86
        without PAE never say so while the page is valid.
        """
        walk = self._tables.walk(address & -PAGE_SIZE, self._paged_out_table)
        if not walk.entry or not walk.is_leaf:
            return None
        if walk.entry & _VALID:
            return not walk.entry & _NO_EXECUTE if self._tables.has_no_execute else None
        return None if self._formats is None else self._formats.is_executable(walk.entry)

    def origin(self, address: int) -> PageOrigin:
        """Return where the page that holds `address` comes from, or why it is absent."""
        return self.resolve(address & -PAGE_SIZE)[0]

    def resolve(self, address: int, *, with_files: bool = True) -> tuple[PageOrigin, bytes | None]:
        """Return origin and bytes of the page at the page-aligned `address`; the bytes are None if the page is absent.

        If `with_files` is True, a page that is not in the dump may be taken from its image's file.
        """
        location = self._locate(address)
        origin, page = location.origin, self._fetch(location)
        if page is None and origin.is_present:
            origin = PageOrigin.NOT_IN_DUMP
        if page is None and with_files and self._files is not None and origin not in _PRIVATE:
            page = self._files.page(address)
            if page is not None:
                origin = PageOrigin.FILE
        return origin, page

    def _fetch(self, location: PageLocation) -> bytes | None:
        if location.origin is PageOrigin.ZERO:
            return _ZEROS
        if location.page_file is not None:
            return None if self._page_files is None else self._page_files.page(location.page_file, location.frame)
        return self._physical.page(location.frame * PAGE_SIZE) if location.origin.is_present else None

    def _locate(self, address: int) -> PageLocation:
        walk = self._tables.walk(address, self._paged_out_table)
        if walk.frame is not None:
            return PageLocation(PageOrigin.VALID if walk.is_valid else PageOrigin.TRANSITION, walk.frame)
        if walk.entry is None:
            return PageLocation(PageOrigin.TABLE_NOT_IN_DUMP)
        if self._formats is None:
            return PageLocation(PageOrigin.UNKNOWN if walk.entry else PageOrigin.NOT_COMMITTED)
        entry = self._formats.decode(walk.entry)
        if not walk.is_leaf and entry.kind not in _NEVER_TOUCHED:
            return PageLocation(PageOrigin.TABLE_NOT_IN_DUMP)
        if not walk.is_leaf or entry.kind in {EntryKind.EMPTY, EntryKind.SEE_VAD}:
            return self._by_view(address)
        return self._by_entry(entry, PageOrigin.TRANSITION, self._formats)

    def _paged_out_table(self, raw: int) -> bytes | None:
        """Return the contents of a page table that is in a page file; `raw` is the entry that leads to the table.

        Windows pages a table out once none of its pages is in memory.
        """
        entry = None if self._formats is None else self._formats.decode(raw)
        if entry is None or entry.kind is not EntryKind.PAGE_FILE:
            return None
        return self._fetch(self._paged(entry.page_file, entry.value))

    def _by_entry(self, entry: DecodedEntry, in_memory: PageOrigin, formats: PteFormats) -> PageLocation:
        """Return the location that `entry` gives; `in_memory` is the origin to report if `entry` is in transition."""
        if entry.kind is EntryKind.TRANSITION:
            return PageLocation(in_memory, entry.value)
        if entry.kind is EntryKind.PROTOTYPE:
            return self._prototype(entry.value, formats)
        if entry.kind is EntryKind.PAGE_FILE:
            return self._paged(entry.page_file, entry.value)
        return PageLocation(_BY_KIND.get(entry.kind, PageOrigin.UNKNOWN))

    def _by_view(self, address: int) -> PageLocation:
        view = self.views.find(address)
        if view is None:
            return PageLocation(PageOrigin.NOT_COMMITTED)
        if view.is_private:
            return PageLocation(PageOrigin.ZERO if view.is_committed else PageOrigin.NOT_COMMITTED)
        formats = self._formats
        prototype = None if formats is None else view.prototype(address, formats.size)
        if formats is None or prototype is None:
            return PageLocation(PageOrigin.IN_FILE if view.is_image else PageOrigin.UNKNOWN)
        return self._prototype(prototype, formats)

    def _prototype(self, address: int, formats: PteFormats) -> PageLocation:
        """Return where a section's page is, according to the prototype PTE at `address`."""
        raw = None if address % formats.size else self._read_entry(address, formats.size)
        if raw is None:
            return PageLocation(PageOrigin.UNKNOWN)
        if raw & _VALID:
            return PageLocation(PageOrigin.PROTOTYPE, formats.valid_frame.of(raw))
        if raw & _PROTOTYPE or (raw >> 47 == _KERNEL_HALF and not raw & 0xF):
            # A prototype PTE with the prototype bit set is in subsection format: the page is in the mapped file. From
            # Windows 11 22H2 on, the prototype PTE may be the address of a control area instead (MemProcFS has seen
            # this): a kernel address such as 0xFFFF8A0112345270, aligned to 16 bytes. It means the same.
            return PageLocation(PageOrigin.IN_FILE)
        return self._by_entry(formats.decode(raw), PageOrigin.PROTOTYPE, formats)

    def _read_entry(self, address: int, size: int) -> int | None:
        if self._kernel is None:
            return None
        try:
            return int.from_bytes(self._kernel.read(address, size), "little")
        except MemoryUnreadable:
            return None

    def _paged(self, number: int, index: int) -> PageLocation:
        files = self._page_files
        if files is None:
            return PageLocation(PageOrigin.PAGED_OUT)
        is_store = files.is_compressed_store(number)
        if files.page(number, index) is None:
            return PageLocation(PageOrigin.COMPRESSED if is_store else PageOrigin.PAGED_OUT)
        return PageLocation(PageOrigin.STORE if is_store else PageOrigin.PAGE_FILE, index, number)


class _InDump:
    """A `PageSource` of the pages that are in the dump itself, without any from image files.

    With these pages the file of an image is identified before other pages are taken from that file.
    """

    __slots__ = ("_pages",)

    def __init__(self, pages: ResolvedPages) -> None:
        self._pages = pages

    def page(self, address: int) -> bytes | None:
        """Return the page at the page-aligned `address`, or None if it is absent."""
        return self._pages.resolve(address, with_files=False)[1]


_NEVER_TOUCHED = frozenset({EntryKind.EMPTY, EntryKind.ZERO, EntryKind.NO_ACCESS})
"""Kinds of an entry above the last level for which there is no page table, as no page under it has been accessed."""
_BY_KIND = {
    EntryKind.ZERO: PageOrigin.ZERO,
    EntryKind.EMPTY: PageOrigin.NOT_COMMITTED,
    EntryKind.NO_ACCESS: PageOrigin.NOT_COMMITTED,
}
_PRIVATE = frozenset(
    {
        PageOrigin.PAGED_OUT,
        PageOrigin.COMPRESSED,
        PageOrigin.PAGE_FILE,
        PageOrigin.STORE,
        PageOrigin.NOT_COMMITTED,
    }
)
"""Origins for which the page must not be taken from an image's file: a page in a page file had been changed."""
