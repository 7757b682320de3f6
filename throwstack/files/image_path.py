# SPDX-License-Identifier: Apache-2.0
"""Finds image files (EXEs and DLLs), whose pages are used in place of pages that a dump does not contain.

A file is found along an image path by name, time stamp and size. Its checksum and its RSDS record must equal those in
the dump, where both file and dump have them. The file is mapped as the loader does it, and relocated to the base that
it has in the dump.

Only pages that a process cannot have changed are used: headers and read-only sections. Pages of the import address
table are left out even if their section is read-only, because the loader writes to them: linkers of Windows XP's time
put the table at the start of `.text`. The callers know which pages are from a file, so that reports can say so.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import pefile

from throwstack.core.memory import PAGE_SIZE, Memory, PageSource, SegmentSource
from throwstack.files.symbol_path import ImageIdentity, Say, SymbolPath
from throwstack.images.image import MAX_HEADERS, Headers, Image, PdbIdentity, Section, data_directory, parse_headers
from throwstack.images.modules import Module, ModuleMap

_RELOCATION_DIRECTORY, _IAT_DIRECTORY = 5, 12
_HIGHLOW, _DIR64 = 3, 10
_MAX_RELOCATED = 64
_MAX_KEPT = 512 << 20
"""How many bytes of mapped images are kept in all.

There is a limit because a file of a few KB may claim to have 256 MB once it is mapped.
"""


@dataclass(frozen=True, slots=True)
class MappedImage:
    """An image file, mapped and relocated as the loader does it.

    `data` are the bytes of the whole mapped image. `import_addresses` is (RVA, size) of the import address table.
    """

    data: bytes
    headers: Headers
    import_addresses: tuple[int, int]

    def page(self, rva: int) -> bytes | None:
        """Return the page at the page-aligned `rva`, or None if a process may have changed it."""
        if not 0 <= rva < len(self.data):
            return None
        start, size = self.import_addresses
        if size and rva < start + size and start < rva + PAGE_SIZE:
            return None
        touched = [section for section in self.headers.sections if _touches(section, rva)]
        if any(section.is_writable for section in touched):
            return None
        first = min((section.rva for section in self.headers.sections), default=len(self.data))
        if not touched and rva >= first:
            return None
        return self.data[rva : rva + PAGE_SIZE].ljust(PAGE_SIZE, b"\0")


class ImageStore:
    """Finds and maps the files of images, and remembers the results."""

    def __init__(self, path: SymbolPath, *, say: Say, max_size: int = 256 << 20) -> None:
        """`path` is searched. `say` is called with messages for the user.

        Files and mapped images of more than `max_size` bytes are refused.
        """
        self._path = path
        self._say = say
        self._max_size = max_size
        self._files: dict[tuple[ImageIdentity, int, PdbIdentity | None], Path | None] = {}
        self._mapped: dict[tuple[Path, int], MappedImage | None] = {}

    def find(self, image: Image) -> Path | None:
        """Return the path of the file of `image`, or None.

        If the image's header page is absent, the time stamp in the loader's entry identifies the file.
        """
        key = _wanted(image)
        if key is None:
            return None
        if key not in self._files:
            self._files[key] = self._path.find(key[0], lambda candidate: self._check(candidate, *key))
        return self._files[key]

    def mapped(self, image: Image) -> MappedImage | None:
        """Return the file of `image`, mapped and relocated to the image's base in the dump, or None."""
        path = self.find(image)
        if path is None:
            return None
        key = path, image.base
        if key not in self._mapped:
            self._make_room(image.headers.image_size if image.headers is not None else image.module.size)
            self._mapped[key] = self._map_wanted(path, image)
        return self._mapped[key]

    def _make_room(self, size: int) -> None:
        """Forget all mapped images if one more, of `size` bytes, would exceed a limit on their number or size."""
        kept = sum(len(mapped.data) for mapped in self._mapped.values() if mapped is not None)
        if len(self._mapped) >= _MAX_RELOCATED or kept + size > _MAX_KEPT:
            self._mapped.clear()

    def _map_wanted(self, path: Path, image: Image) -> MappedImage | None:
        """Map the file at `path`, and check again that it is the file of `image`.

        Another user may have written to the file since it was found. The result is None if the file is not the right
        one any more.
        """
        mapped, key = self._map(path, image.base), _wanted(image)
        reason = self._mismatch(mapped.headers, *key[:2]) if mapped is not None and key is not None else None
        if reason is not None:
            self._say(f"{path}: changed since it was found: {reason}")
            return None
        return mapped

    def image(self, image: Image) -> Image | None:
        """Return the file of `image` as an `Image`, from which exports and RSDS record can be read, or None."""
        mapped = self.mapped(image)
        if mapped is None:
            return None
        return Image(image.module, Memory(SegmentSource({image.base: mapped.data})))

    def _check(self, path: Path, wanted: ImageIdentity, checksum: int, pdb: PdbIdentity | None) -> str | None:
        try:
            size = path.stat().st_size
            if size > self._max_size:
                return f"{size >> 20} MB are more than the limit of {self._max_size >> 20} MB"
            with path.open("rb") as file:
                headers = parse_headers(file.read(MAX_HEADERS))
        except OSError as error:
            return f"cannot be read ({error.strerror or error})"
        if headers is None:
            return "not an image"
        return self._mismatch(headers, wanted, checksum) or self._other_pdb(path, headers, pdb)

    def _mismatch(self, headers: Headers, wanted: ImageIdentity, checksum: int) -> str | None:
        if (headers.timestamp, headers.image_size) != (wanted.timestamp, wanted.size):
            return (
                f"time stamp {headers.timestamp:08X} and size {headers.image_size:x}, "
                f"the module has {wanted.timestamp:08X} and {wanted.size:x}"
            )
        if headers.image_size > self._max_size:
            return f"{headers.image_size >> 20} MB once mapped are more than the limit of {self._max_size >> 20} MB"
        if checksum and headers.checksum and checksum != headers.checksum:
            return f"checksum {headers.checksum:08X}, the module has {checksum:08X}"
        return None

    def _other_pdb(self, path: Path, headers: Headers, pdb: PdbIdentity | None) -> str | None:
        mapped = self._map(path, headers.preferred_base) if pdb is not None else None
        if mapped is None or pdb is None:
            return None
        memory = Memory(SegmentSource({0: mapped.data}))
        own = Image(Module(path.name, str(path), 0, headers.image_size), memory).pdb
        if own is None or (own.guid, own.age) == (pdb.guid, pdb.age):
            return None
        return f"its PDB is {own.guid} age {own.age}, the module's {pdb.guid} age {pdb.age}"

    def _map(self, path: Path, base: int) -> MappedImage | None:
        try:
            with path.open("rb") as file:
                data = file.read(self._max_size + 1)
            headers = parse_headers(data[:MAX_HEADERS])
            pe = pefile.PE(data=data, fast_load=True)
            if headers is None or max(headers.image_size, len(data)) > self._max_size:
                return None
            layout = _lay_out(pe, data, headers.image_size)
            if base != headers.preferred_base:
                _relocate(layout, data_directory(pe, _RELOCATION_DIRECTORY), base - headers.preferred_base)
            return MappedImage(bytes(layout), headers, data_directory(pe, _IAT_DIRECTORY))
        except (OSError, pefile.PEFormatError, AttributeError, ValueError, IndexError, struct.error) as error:
            self._say(f"{path}: cannot be mapped: {type(error).__name__}")
            return None


class ImagePages:
    """A `PageSource` that takes pages which `source` does not have from the files of the modules."""

    def __init__(self, source: PageSource, modules: ModuleMap, store: ImageStore) -> None:
        """`source` has the pages of the dump. `store` finds the files of `modules`."""
        self._source = source
        self._modules = modules
        self._store = store
        self._images: dict[int, Image] = {}

    def page(self, address: int) -> bytes | None:
        """Return the page at the page-aligned `address`, or None if it is absent."""
        page = self._source.page(address)
        if page is not None:
            return page
        module = self._modules.find(address)
        if module is None:
            return None
        image = self._images.get(module.base)
        if image is None:
            image = self._images[module.base] = Image(module, Memory(self._source))
        mapped = self._store.mapped(image)
        if mapped is None:
            return None
        return mapped.page(address - module.base)


def _wanted(image: Image) -> tuple[ImageIdentity, int, PdbIdentity | None] | None:
    """Return what identifies the file of `image`, or None if the time stamp is unknown.

    The result is (name, time stamp and size; checksum, which is 0 if unknown; PDB, which is None if unknown).
    """
    headers, module = image.headers, image.module
    if headers is not None:
        return ImageIdentity(module.name, headers.timestamp, headers.image_size), headers.checksum, image.pdb
    return (ImageIdentity(module.name, module.timestamp, module.size), 0, image.pdb) if module.timestamp else None


def _lay_out(pe: pefile.PE, data: bytes, size: int) -> bytearray:
    """Return `size` bytes with the headers and sections of `data` at their RVAs. Parts beyond the end are cut off."""
    layout = bytearray(size)
    parts = [(0, 0, pe.OPTIONAL_HEADER.SizeOfHeaders)]
    for section in pe.sections:
        length = min(section.SizeOfRawData, section.Misc_VirtualSize or section.SizeOfRawData)
        parts.append((section.VirtualAddress, section.PointerToRawData & ~0x1FF, length))  # the loader's rounding
    for rva, offset, length in parts:
        part = data[offset : offset + max(0, min(length, size - rva))]
        if rva < size:
            layout[rva : rva + len(part)] = part
    return layout


def _relocate(layout: bytearray, directory: tuple[int, int], distance: int) -> None:
    """Apply the base relocations in `directory` (RVA, size) to a mapped image; `distance` is added to each address.

    The directory is a sequence of blocks: page RVA, size, entries of 16 bits. pefile could read the blocks, but it
    makes several objects for each entry, and a large DLL has a hundred thousand entries.
    """
    at, size = directory
    end = min(at + size, len(layout))
    while at + 8 <= end:
        page, block_size = struct.unpack_from("<II", layout, at)
        if block_size < 8:
            return
        for (entry,) in struct.iter_unpack("<H", layout[at + 8 : min(at + block_size, end) & ~1]):
            kind, rva = entry >> 12, page + (entry & 0xFFF)
            if kind == _HIGHLOW and rva + 4 <= len(layout):
                value = struct.unpack_from("<I", layout, rva)[0]
                struct.pack_into("<I", layout, rva, value + distance & 0xFFFFFFFF)
            elif kind == _DIR64 and rva + 8 <= len(layout):
                value = struct.unpack_from("<Q", layout, rva)[0]
                struct.pack_into("<Q", layout, rva, value + distance & 0xFFFFFFFFFFFFFFFF)
        at += block_size


def _touches(section: Section, rva: int) -> bool:
    return section.rva < rva + PAGE_SIZE and rva < section.rva + section.size
