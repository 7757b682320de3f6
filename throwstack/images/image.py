# SPDX-License-Identifier: Apache-2.0
"""Reads PE images in memory: headers, sections, exports, the identity of the PDB. Follows the PE/COFF specification.

Headers are parsed with pefile. An absent page or a damaged header raises no exception: what cannot be read is None or
empty.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b

import pefile

from throwstack.core.memory import PAGE_SIZE, Memory, MemoryUnreadable
from throwstack.core.registers import Arch
from throwstack.images.exports import NO_EXPORTS, UNKNOWN_EXPORTS, Exports, parse_exports
from throwstack.images.function_table import FunctionTable, RuntimeFunction
from throwstack.images.modules import Module, ModuleMap

MAX_HEADERS = 1 << 16
"""The most bytes of an image's headers that are parsed."""
_MAX_IMAGE_SIZE = 1 << 31
_MAX_EXPORT_DIRECTORY = 8 << 20
_MAX_PAGES = 4096
"""The most pages whose parsed headers are kept, and the most whose digests are kept."""
_MAX_EXPORTS = 1 << 20
"""The most exports that are kept; a machine has some 200,000 different exports."""
_MAX_DEBUG_ENTRIES = 32
_EXECUTE, _WRITE = 0x20000000, 0x80000000
_MACHINES = {0x14C: Arch.X86, 0x8664: Arch.X64}
_EXPORT, _EXCEPTION, _DEBUG = 0, 3, 6
_CODEVIEW = 2
_EXPORT_NAME, _MAX_OWN_NAME = 12, 260
"""Offset of Name in IMAGE_EXPORT_DIRECTORY, and the most bytes of the name that are read."""
_PORTABLE_PDB = 0x504D
"""MinorVersion of the debug directory's entry for a portable PDB, which describes IL."""
_RSDS_NAME = 24
"""Offset of the PDB's name in an RSDS record."""


@dataclass(frozen=True, slots=True)
class Section:
    """A section of an image: its name, RVA, size in memory in bytes, and whether it is executable or writable.

    The size is that of the pages which the loader maps: code after VirtualSize in the last page runs as well.
    """

    name: str
    rva: int
    size: int
    is_executable: bool
    is_writable: bool = False


@dataclass(frozen=True, slots=True)
class PdbIdentity:
    """The identity of an image's PDB, from the RSDS record: file name, GUID as 32 upper-case hex digits, and age."""

    name: str
    guid: str
    age: int

    @property
    def isf_path(self) -> str:
        """Return the path of the PDB's ISF file, relative to a symbol directory of Volatility's."""
        return f"windows/{self.name}/{self.guid}-{self.age}.json.xz"


@dataclass(frozen=True, slots=True)
class Headers:
    """The members of an image's headers that throwstack uses.

    A directory is given as (RVA, size), and as (0, 0) if the image does not have it.
    """

    arch: Arch
    timestamp: int
    checksum: int
    image_size: int
    preferred_base: int
    sections: tuple[Section, ...]
    export_directory: tuple[int, int]
    exception_directory: tuple[int, int]
    debug_directory: tuple[int, int]
    entry_point: int = 0
    """The RVA of the entry point, 0 if the image has none."""

    def section_at(self, rva: int) -> Section | None:
        """Return the section that holds `rva`, or None."""
        for section in self.sections:
            if section.rva <= rva < section.rva + section.size:
                return section
        return None


class Image:
    """The image of one module in memory. Each part is parsed on first use. Unreadable memory raises no exception."""

    __slots__ = (
        *("_cache", "_exports", "_function_table", "_headers", "_is_parsed", "_pdb", "_pdb_parsed"),
        *("memory", "module"),
    )

    def __init__(self, module: Module, memory: Memory, cache: ImageCache | None = None) -> None:
        """`module` is loaded in `memory`. Images that share `cache` are parsed only once if their bytes are equal."""
        self.module = module
        self.memory = memory
        self._cache = cache if cache is not None else ImageCache()
        self._headers: Headers | None = None
        self._is_parsed = False
        self._exports: Exports | None = None
        self._function_table: FunctionTable | None = None
        self._pdb: PdbIdentity | None = None
        self._pdb_parsed = False

    @property
    def base(self) -> int:
        """Return the address at which the image is loaded."""
        return self.module.base

    @property
    def headers(self) -> Headers | None:
        """Return the parsed headers, or None if they are unreadable or not those of a PE image."""
        if not self._is_parsed:
            self._is_parsed = True
            self._headers = self._cache.headers(self._header_bytes())
        return self._headers

    def _header_bytes(self) -> bytes:
        """Return the first page of the image, and further pages if the table of sections reaches into them."""
        memory, base = self.memory, self.base
        page = memory.read_available(base, PAGE_SIZE)
        try:
            pe = base + memory.u32(base + 0x3C)
            end = pe - base + 24 + memory.u16(pe + 20) + 40 * memory.u16(pe + 6)
        except MemoryUnreadable:
            return page
        return page if end <= PAGE_SIZE else memory.read_available(base, min(end, MAX_HEADERS))

    @property
    def exports(self) -> Exports:
        """Return the exports, as far as they can be read."""
        if self._exports is None:
            self._exports = self._cache.exports(self)
        return self._exports

    @property
    def own_name(self) -> str:
        """Return the DLL's name in its export directory, which its linker wrote; "" if it has none that can be read."""
        if self.headers is None or not self.headers.export_directory[1]:
            return ""
        try:
            rva = self.memory.u32(self.base + self.headers.export_directory[0] + _EXPORT_NAME)
        except MemoryUnreadable:
            return ""
        name, end, _ = self.memory.read_available(self.base + rva, _MAX_OWN_NAME).partition(b"\0")
        return name.decode("ascii", "replace") if end and rva < self.headers.image_size else ""

    @property
    def function_table(self) -> FunctionTable | None:
        """Return the table of RUNTIME_FUNCTIONs; None if the image has none or its headers cannot be read."""
        if self._function_table is None and self.headers is not None:
            rva, size = self.headers.exception_directory
            if rva and size and self.headers.arch.facts.has_function_table:
                self._function_table = FunctionTable(self.memory, self.base + rva, size)
        return self._function_table

    @property
    def pdb(self) -> PdbIdentity | None:
        """Return the identity of the image's PDB from its RSDS record, or None if no such record can be read."""
        if not self._pdb_parsed:
            self._pdb_parsed = True
            self._pdb = self._read_pdb_identity()
        return self._pdb

    def is_code(self, address: int) -> bool:
        """Say whether `address` is in a section with code or, if the headers are unreadable, in the image at all.

        A section has code if it is marked executable. Packers leave that mark out: their code ran on Windows XP, runs
        where DEP is off, or is made executable when it has been unpacked. For example, ASPack's section with the entry
        point is marked as data (C0000040). So a section with the entry point has code, and so has, in any section, an
        address that an entry of the image's function table covers.
        """
        headers = self.headers
        if headers is None or not headers.sections:
            return self.module.contains(address)
        rva = address - self.base
        section = headers.section_at(rva)
        if section is None or section.is_executable:
            return section is not None
        if headers.entry_point and section.rva <= headers.entry_point < section.rva + section.size:
            return True
        table = self.function_table
        return table is not None and isinstance(table.find(rva), RuntimeFunction)

    def _read_pdb_identity(self) -> PdbIdentity | None:
        """Return the identity in the last entry of the debug directory that has one, of a native PDB if there is one.

        An image that NGEN has compiled has two: the first is that of the IL's portable PDB, the last its own.
        """
        headers = self.headers
        if headers is None:
            return None
        rva, size = headers.debug_directory
        found, is_native = None, False
        for entry in range(rva, rva + min(size // 28, _MAX_DEBUG_ENTRIES) * 28, 28):
            try:
                identity = self._codeview(self.base + entry, headers.image_size)
                is_portable = self.memory.u16(self.base + entry + 10) == _PORTABLE_PDB
            except MemoryUnreadable:
                continue
            if identity is not None and not (is_portable and is_native):
                found, is_native = identity, not is_portable
        return found

    def _codeview(self, entry: int, image_size: int) -> PdbIdentity | None:
        """Return the identity to which the debug directory's entry at the address `entry` leads; None if to none."""
        if self.memory.u32(entry + 12) != _CODEVIEW:
            return None
        length = min(self.memory.u32(entry + 16), PAGE_SIZE)
        start = self.memory.u32(entry + 20)
        record = self.memory.read_available(self.base + start, length)
        # The name may go on on an absent page. Half a name would be the name of another file.
        is_cut = len(record) < length and b"\0" not in record[_RSDS_NAME:]
        return None if is_cut or start + length > image_size else parse_rsds(record)


def parse_rsds(record: bytes) -> PdbIdentity | None:
    """Return the PDB identity in a CodeView record (`RSDS`, GUID, age, path), or None if `record` is not one."""
    if len(record) <= _RSDS_NAME or record[:4] != b"RSDS":
        return None
    first, second, third = (
        int.from_bytes(record[4:8], "little"),
        int.from_bytes(record[8:10], "little"),
        int.from_bytes(record[10:12], "little"),
    )
    guid = f"{first:08X}{second:04X}{third:04X}{record[12:20].hex().upper()}"
    path = record[_RSDS_NAME:].split(b"\0", 1)[0].decode("utf-8", "replace")
    name = re.split(r"[\\/]", path)[-1]
    return PdbIdentity(name, guid, int.from_bytes(record[20:24], "little")) if name else None


class ImageCache:
    """Shares parsed headers and exports between processes whose pages have equal bytes.

    The bytes are the key of the cache, and the module's name is not. If a process has written to its copy of a DLL, the
    bytes differ, and what is parsed from them is used for this process alone. Which pages are absent is part of the key
    as well: what was parsed without a page is not used for a process that has the page.
    """

    __slots__ = ("_digests", "_entries", "_exports", "_headers")

    def __init__(self) -> None:
        """Make an empty cache. Use one cache for each dump."""
        self._digests: dict[bytes, bytes] = {}
        self._headers: dict[bytes, Headers | None] = {}
        self._exports: dict[tuple[object, ...], Exports] = {}
        self._entries = 0

    def headers(self, page: bytes) -> Headers | None:
        """Return the headers in an image's first page (or pages), or None if they are not valid PE headers."""
        if page not in self._headers:
            if len(self._headers) >= _MAX_PAGES:
                self._headers.clear()
            self._headers[page] = parse_headers(page)
        return self._headers[page]

    def exports(self, image: Image) -> Exports:
        """Return the exports of `image`."""
        headers = image.headers
        if headers is None:
            return UNKNOWN_EXPORTS
        rva, size = headers.export_directory
        limit = min(headers.image_size, image.module.size)
        size = min(size, limit - rva)
        if not rva or size <= 0:
            return NO_EXPORTS
        if size > _MAX_EXPORT_DIRECTORY:
            return UNKNOWN_EXPORTS
        first = image.base + (rva & -PAGE_SIZE)
        pages = [image.memory.page(page) for page in range(first, image.base + rva + size, PAGE_SIZE)]
        key = rva, size, limit, *(None if page is None else self._digest(page) for page in pages)
        exports = self._exports.get(key)
        if exports is None:
            exports = parse_exports((rva, size), pages, limit)
            self._entries += len(exports)
            if self._entries > _MAX_EXPORTS:
                self._exports.clear()
                self._entries = len(exports)
            self._exports[key] = exports
        return exports

    def _digest(self, page: bytes) -> bytes:
        """Return a digest of `page`.

        For a page that many processes share this is fast: it is the same bytes object, whose hash Python remembers.
        """
        digest = self._digests.get(page)
        if digest is None:
            if len(self._digests) >= _MAX_PAGES:
                self._digests.clear()
            digest = self._digests[page] = blake2b(page, digest_size=20).digest()
        return digest


def parse_headers(page: bytes) -> Headers | None:
    """Parse the headers at the begin of an image (PE32 or PE32+); None if they are not valid or not x86 or x64."""
    if page[:2] != b"MZ":
        return None
    try:
        pe = pefile.PE(data=page, fast_load=True)
        optional = pe.OPTIONAL_HEADER
        arch = _MACHINES.get(pe.FILE_HEADER.Machine)
        if arch is None or optional.SizeOfImage > _MAX_IMAGE_SIZE:
            return None
        unit = PAGE_SIZE if optional.SectionAlignment >= PAGE_SIZE else 1
        sections = tuple(
            Section(
                section.Name.split(b"\0", 1)[0].decode("latin-1"),
                section.VirtualAddress,
                # The loader maps whole pages, and takes the size in the file where VirtualSize is 0.
                -(-max(section.Misc_VirtualSize or section.SizeOfRawData, 1) // unit) * unit,
                bool(section.Characteristics & _EXECUTE),
                bool(section.Characteristics & _WRITE),
            )
            for section in pe.sections
        )
        return Headers(
            arch,
            pe.FILE_HEADER.TimeDateStamp,
            optional.CheckSum,
            optional.SizeOfImage,
            optional.ImageBase,
            sections,
            _directory(pe, _EXPORT),
            _directory(pe, _EXCEPTION),
            _directory(pe, _DEBUG),
            optional.AddressOfEntryPoint,
        )
    except (pefile.PEFormatError, AttributeError, ValueError, IndexError):
        return None


def data_directory(pe: pefile.PE, index: int) -> tuple[int, int]:
    """Return RVA and size of data directory `index` as the headers give them; (0, 0) if there is no such directory."""
    entries = pe.OPTIONAL_HEADER.DATA_DIRECTORY
    return (entries[index].VirtualAddress, entries[index].Size) if index < len(entries) else (0, 0)


def _directory(pe: pefile.PE, index: int) -> tuple[int, int]:
    rva, size = data_directory(pe, index)
    size = min(size, pe.OPTIONAL_HEADER.SizeOfImage - rva)
    return (rva, size) if size > 0 else (0, 0)


class ImageMap:
    """The images of one address space, looked up by address."""

    __slots__ = ("_cache", "_images", "_is_widened", "memory", "modules")

    def __init__(self, memory: Memory, modules: ModuleMap, cache: ImageCache | None = None) -> None:
        """`modules` are loaded in `memory`; `cache` shares what is parsed with other address spaces of the dump."""
        self.memory = memory
        self.modules = modules
        self._cache = cache if cache is not None else ImageCache()
        self._images = {module.base: Image(module, memory, self._cache) for module in modules}
        self._is_widened: set[int] = set()

    def find(self, address: int) -> Image | None:
        """Return the image that holds `address`, or None.

        A program can write a small size into the loader's entry for a module, so that a dump of the module by that size
        is useless (anti-dump). So an address after a module's end is in the module if its headers say so.
        """
        module = self.modules.find(address)
        return self._after_end(address) if module is None else self._images[module.base]

    def _after_end(self, address: int) -> Image | None:
        module = self.modules.before(address)
        if module is None or address - module.base >= _MAX_IMAGE_SIZE:
            return None
        image = self._images[module.base]
        if module.base not in self._is_widened:
            self._is_widened.add(module.base)
            size = min(0 if image.headers is None else image.headers.image_size, self.modules.room(module))
            if size > module.size:
                image = self._images[module.base] = Image(replace(module, size=size), self.memory, self._cache)
        return image if image.module.contains(address) else None

    def is_code(self, address: int) -> bool:
        """Say whether `address` is in an executable section of an image."""
        image = self.find(address)
        return image is not None and image.is_code(address)

    def __iter__(self) -> Iterator[Image]:
        """Yield the images in address order."""
        return iter(self._images.values())
