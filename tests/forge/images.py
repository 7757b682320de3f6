# SPDX-License-Identifier: Apache-2.0
"""Builds PE images as they are in memory, from code and data at given addresses.

Headers, .text, .rdata with import slots, export directory and RSDS debug record, .data, and on x64 .xdata and .pdata.
Follows the PE/COFF specification; every byte is our own.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from typing import ClassVar

from tests.forge.code import CodeError, merge
from tests.forge.describe import LoadedModule, Protection, Region
from tests.forge.pe_format import AMD64, I386, PAGE, export_directory, headers, padded, pages, rsds
from tests.forge.symbols import Pdb

_SLOTS_SIZE = 0x400
_TEXT, _RDATA, _DATA = 0x60000020, 0x40000040, 0xC0000040


def pdb_of(name: str, salt: str = "") -> Pdb:
    """Return a made-up but constant PDB identity for an image called `name`."""
    stem = name.rpartition(".")[0] or name
    return Pdb(f"{stem.lower()}.pdb", hashlib.md5(f"throwstack {name.lower()} {salt}".encode()).hexdigest().upper())


@dataclass
class ImageBuilder:
    """One image under construction. `base` and everything added are virtual addresses; sizes are in bytes.

    Layout: headers, .text up to `text_size`, .rdata of `rdata_size`, .data, then what x64 needs. `pdb` None leaves the
    image without a debug record.
    """

    name: str
    base: int
    text_size: int
    rdata_size: int = PAGE
    data_size: int = PAGE
    machine: int = I386
    pdb: Pdb | None = None
    timestamp: int = 0x45D6CBE2
    directory: str = "\\WINDOWS\\system32"
    entry: int = 0
    exports: dict[str, int] = field(default_factory=dict)
    symbols: dict[str, int] = field(default_factory=dict)
    """Names for the module's ISF, by address."""
    has_isf: bool = False
    unwind: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    """x64: function start → (end, UNWIND_INFO); a chained entry's parent is a 12-byte tail of three addresses."""

    more_exports: ClassVar[int] = 0
    """How many further exports every image that has some gets, so that its directory takes several pages."""

    def __post_init__(self) -> None:
        """Lay out the sections."""
        self.text_end = self.base + PAGE + pages(self.text_size)
        self.data_start = self.text_end + pages(self.rdata_size)
        self.unwind_start = self.data_start + pages(self.data_size)
        self._code: dict[int, bytes] = {}
        self._data: dict[int, bytes] = {}
        self._slots: dict[int, int] = {}
        self._free_code = self.base + PAGE
        self._free_data = self.text_end + _SLOTS_SIZE
        self._free_variables = self.data_start

    @property
    def pointer(self) -> int:
        """Return the size of a pointer."""
        return 8 if self.machine == AMD64 else 4

    def code(self, address: int, data: bytes) -> int:
        """Put code at `address`; return the address."""
        if not self.base + PAGE <= address or address + len(data) > self.text_end:
            message = f"{self.name}: code at {address:#x} lies outside .text, which ends at {self.text_end:#x}"
            raise CodeError(message)
        self._code[address] = data
        return address

    def data(self, address: int, data: bytes) -> int:
        """Put data at `address` in .rdata or .data; return the address."""
        if address < self.text_end + _SLOTS_SIZE or address + len(data) > self.unwind_start:
            message = f"{self.name}: data at {address:#x} lies outside .rdata and .data"
            raise CodeError(message)
        self._data[address] = data
        return address

    def place_code(self, size: int) -> int:
        """Reserve `size` bytes near the start of .text, 16-byte aligned."""
        address = self._free_code
        self._free_code = (address + size + 15) & ~15
        return address

    def place_data(self, data: bytes, *, writable: bool = False) -> int:
        """Put data wherever there is room in .rdata (or .data), 8-byte aligned; return the address."""
        address = self._free_variables if writable else self._free_data
        after = (address + len(data) + 7) & ~7
        if writable:
            self._free_variables = after
        else:
            self._free_data = after
        return self.data(address, data)

    def slot(self, target: int) -> int:
        """Return the address of the import slot that holds `target`."""
        if target not in self._slots:
            self._slots[target] = self.text_end + len(self._slots) * self.pointer
        return self._slots[target]

    def name_function(self, name: str, address: int, *, exported: bool = False) -> int:
        """Record a symbol, and an export if it is one; return the address."""
        self.symbols[name] = address
        if exported:
            self.exports[name] = address
        return address

    def nearest(self, address: int) -> str:
        """Return `module!name+0x..` for `address` by the tables that the dump comes with."""
        names = self.symbols if self.has_isf else self.exports
        label = "".join(c if c.isalnum() or c == "_" else "_" for c in self.name.rpartition(".")[0])
        before = [(start, name) for name, start in names.items() if start <= address]
        if not before:
            return f"{label}+{address - self.base:#x}"
        start = max(before)[0]
        # Of several names at one address the tables keep the first: export tables are sorted by name.
        same = [name for at, name in before if at == start]
        name = same[0] if self.has_isf else min(same)
        return f"{label}!{name}+{address - start:#x}" if address != start else f"{label}!{name}"

    def build(self) -> bytes:
        """Return the image, headers first."""
        text = bytearray(self.text_end - self.base - PAGE)
        pieces = merge(self.base, self._code, what=f"{self.name} .text")
        used = {
            page
            for offset, piece in pieces.items()
            for page in range(offset // PAGE, (offset + len(piece) - 1) // PAGE + 1)
        }
        for page in used:  # int3 between functions; pages without any stay empty
            text[(page - 1) * PAGE : page * PAGE] = b"\xcc" * PAGE
        for offset, piece in pieces.items():
            text[offset - PAGE : offset - PAGE + len(piece)] = piece
        slots = b"".join(target.to_bytes(self.pointer, "little") for target in self._slots)
        if len(slots) > _SLOTS_SIZE:
            message = f"{self.name}: too many import slots"
            raise CodeError(message)
        directories = {12: (self.text_end - self.base, len(slots))} if slots else {}
        if self.exports and not self.more_exports:
            table = export_directory(self.name, self.exports, self.base, self._free_data - self.base)
            directories[0] = (self.place_data(table) - self.base, len(table))
        if self.pdb is not None:
            record = rsds(self.pdb)
            at = self.place_data(record) - self.base
            entry = struct.pack("<IIHHIIII", 0, self.timestamp, 0, 0, 2, len(record), at, at)
            directories[6] = (self.place_data(entry) - self.base, len(entry))
        xdata, pdata = self._unwind_tables()
        if pdata:
            directories[3] = (self.unwind_start - self.base + pages(len(xdata)), len(pdata))
        rest = bytearray(self.unwind_start - self.text_end)
        rest[: len(slots)] = slots
        for offset, piece in merge(self.text_end, self._data, what=f"{self.name} data").items():
            rest[offset : offset + len(piece)] = piece
        sections = [
            (".text", PAGE, len(text), _TEXT),
            (".rdata", self.text_end - self.base, self.data_start - self.text_end, _RDATA),
            (".data", self.data_start - self.base, self.unwind_start - self.data_start, _DATA),
        ]
        if pdata:
            start = self.unwind_start - self.base
            sections += [(".xdata", start, len(xdata), _RDATA)]
            sections += [(".pdata", start + pages(len(xdata)), len(pdata), _RDATA)]
        body = bytes(text + rest) + padded(xdata) + padded(pdata)
        if self.exports and self.more_exports:
            start = PAGE + len(body)
            table = export_directory(self.name, self.exports | self._more_exports(), self.base, start)
            directories[0] = (start, len(table))
            sections.append((".edata", start, len(table), _RDATA))
            body += padded(table)
        head = headers(
            self.name,
            machine=self.machine,
            base=self.base,
            entry=self.entry,
            timestamp=self.timestamp,
            size=PAGE + len(body),
            sections=sections,
            directories=directories,
        )
        return head + body

    def _more_exports(self) -> dict[str, int]:
        """Return exports of the first byte of .text, whose names are spread over the alphabet."""
        names = (f"{chr(ord('A') + index % 26)}export{index:05}" for index in range(self.more_exports))
        return dict.fromkeys(names, self.base + PAGE)

    def _unwind_tables(self) -> tuple[bytes, bytes]:
        """Return .xdata and .pdata."""
        xdata, offsets = bytearray(), {}
        for start, (_, info) in sorted(self.unwind.items()):
            offsets[start] = self.unwind_start - self.base + len(xdata)
            xdata += info + bytes(-len(info) % 4)
        pdata = bytearray()
        for start, (end, _) in sorted(self.unwind.items()):
            pdata += struct.pack("<III", start - self.base, end - self.base, offsets[start])
        for start, (_, info) in self.unwind.items():
            if info[0] >> 3 & 4:  # UNW_FLAG_CHAININFO: the parent's RUNTIME_FUNCTION follows the codes
                at = offsets[start] - (self.unwind_start - self.base) + 4 + (info[2] + info[2] % 2) * 2
                parent = struct.unpack_from("<I", xdata, at)[0] + self.base
                struct.pack_into("<II", xdata, at + 4, self.unwind[parent][0] - self.base, offsets[parent])
        return bytes(xdata), bytes(pdata)

    def runtime_function(self, start: int) -> int:
        """Return where the RUNTIME_FUNCTION of the function at `start` is."""
        table = self.unwind_start + pages(len(self._unwind_tables()[0]))
        return table + 12 * sorted(self.unwind).index(start)

    def region(self, image: bytes) -> Region:
        """Return the process's view of the built `image`."""
        return Region(self.base, image, Protection.EXECUTE_WRITE_COPY, f"{self.directory}\\{self.name}", is_image=True)

    def loaded(self, image: bytes) -> LoadedModule:
        """Return the entry of the loader's lists."""
        path = f"C:{self.directory}\\{self.name}"
        return LoadedModule(self.name, path, self.base, len(image), self.entry, self.timestamp)

    def rvas(self) -> dict[str, int]:
        """Return the module's symbols by RVA, as its ISF wants them."""
        return {name: address - self.base for name, address in self.symbols.items()}
