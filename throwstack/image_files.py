# SPDX-License-Identifier: Apache-2.0
"""Image files that the user has, in the place of pages that the dump does not hold.

A file is taken for a module's only if time stamp, SizeOfImage, checksum (where both have one) and the RSDS record
(where the dump still has it) agree. Of a file only sections that are not writable are used: unwind data and code,
which are in memory what they are in the file. Follows the PE/COFF specification.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path

import pefile

from throwstack.images import Headers, Image, PdbIdentity, parse_headers, parse_rsds
from throwstack.memory import PAGE_SIZE, Memory, PageSource
from throwstack.symbol_path import ImageIdentity, SymbolPath

_MAX_FILE_SIZE = 1 << 30
_WRITE = 0x80000000
_SECTOR = 0x200
_CODEVIEW = 2
_MAX_RSDS = 0x1000


@dataclass(frozen=True, slots=True)
class _Range:
    """Bytes of the file as they lie in the image."""

    rva: int
    size: int
    offset: int


class ImageFile:
    """An image file as a source of its image's pages, at the address where the image is loaded."""

    __slots__ = ("_base", "_data", "_ranges", "path")

    def __init__(self, path: Path, base: int) -> None:
        """Open the file. Raises OSError or pefile.PEFormatError."""
        self.path = path
        self._base = base
        with path.open("rb") as file:
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        pe = pefile.PE(data=self._data, fast_load=True)
        self._ranges = [
            # The loader rounds a section's place in the file down to a sector.
            _Range(section.VirtualAddress, min(section.SizeOfRawData, section.Misc_VirtualSize), start)
            for section in pe.sections
            if not section.Characteristics & _WRITE
            for start in [section.PointerToRawData & -_SECTOR]
        ]

    def page(self, address: int) -> bytes | None:
        """Return the page at `address`, or None if the file does not have it (a truncated one: not all of it)."""
        rva = address - self._base
        page: bytearray | None = None
        for part in self._ranges:
            low, high = max(part.rva, rva), min(part.rva + part.size, rva + PAGE_SIZE)
            if low < high:
                page = page if page is not None else bytearray(PAGE_SIZE)
                data = self._data[part.offset + low - part.rva : part.offset + high - part.rva]
                if len(data) < high - low:
                    return None
                page[low - rva : high - rva] = data
        return None if page is None else bytes(page)


class _Overlay:
    """Pages of memory where they are there, and a file's where they are not."""

    def __init__(self, memory: PageSource, file: PageSource) -> None:
        self._memory = memory
        self._file = file

    def page(self, address: int) -> bytes | None:
        page = self._memory.page(address)
        return page if page is not None else self._file.page(address)


class ImageFiles:
    """Finds the files of modules along a path of directories and symbol stores."""

    __slots__ = ("_found", "_path")

    def __init__(self, path: SymbolPath) -> None:
        """Search `path`, once for each module."""
        self._path = path
        self._found: dict[tuple[str, int, Headers], Path | None] = {}

    def overlay(self, image: Image) -> tuple[Memory, Path] | None:
        """Return the memory of `image` with what is missing taken from its file, and the file; None if there is none.

        The identity is that of the headers in memory: an image whose headers are not there has no file.
        """
        headers = image.headers
        if headers is None:
            return None
        key = image.module.name.lower(), image.base, headers
        if key not in self._found:
            identity = ImageIdentity(image.module.name, headers.timestamp, headers.image_size)
            self._found[key] = self._path.find(identity, lambda path: check_image(path, headers, image.pdb))
        path = self._found[key]
        if path is None:
            return None
        try:
            return Memory(_Overlay(image.memory, ImageFile(path, image.base))), path
        except (OSError, ValueError, pefile.PEFormatError):
            return None


def check_image(path: Path, wanted: Headers, pdb: PdbIdentity | None) -> str | None:
    """Return why the file at `path` is not the image with the headers `wanted` and the PDB `pdb`, or None if it is."""
    try:
        if path.stat().st_size > _MAX_FILE_SIZE:
            return f"larger than {_MAX_FILE_SIZE >> 20} MB"
        with path.open("rb") as file:
            found = parse_headers(file.read(PAGE_SIZE))
        theirs = _pdb_of_file(path) if found is not None and pdb is not None else None
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    if found is None:
        return "not an image"
    return _difference(found, wanted) or _difference_of_pdb(theirs, pdb)


def _difference(found: Headers, wanted: Headers) -> str | None:
    if (found.arch, found.timestamp, found.image_size) != (wanted.arch, wanted.timestamp, wanted.image_size):
        return f"another build: {found.timestamp:08X}{found.image_size:x}"
    if found.checksum and wanted.checksum and found.checksum != wanted.checksum:
        return f"another build: checksum {found.checksum:x}"
    return None


def _difference_of_pdb(found: PdbIdentity | None, wanted: PdbIdentity | None) -> str | None:
    if found is not None and wanted is not None and (found.guid, found.age) != (wanted.guid, wanted.age):
        return f"another build: PDB {found.guid}-{found.age}"
    return None


def _pdb_of_file(path: Path) -> PdbIdentity | None:
    """Return what the file's RSDS record says, if there is one."""
    with path.open("rb") as file:
        try:
            pe = pefile.PE(data=mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), fast_load=True)
            pe.parse_data_directories(directories=[pefile.DIRECTORY_ENTRY["IMAGE_DIRECTORY_ENTRY_DEBUG"]])
        except (pefile.PEFormatError, AttributeError, ValueError, IndexError):
            return None
        for entry in getattr(pe, "DIRECTORY_ENTRY_DEBUG", []):
            if entry.struct.Type == _CODEVIEW:
                file.seek(entry.struct.PointerToRawData)
                return parse_rsds(file.read(min(entry.struct.SizeOfData, _MAX_RSDS)))
    return None
