# SPDX-License-Identifier: Apache-2.0
"""Writes PE images, as files and as they are in memory: sections, exports, RSDS record, base relocations, .pdata.

Follows the PE/COFF specification. The caller gives sections by RVA; what the directories need goes into sections of
its own behind them: `.edata`, `.rsds`, `.reloc`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

X86, X64 = 0x14C, 0x8664
CODE, DATA, READ_ONLY = 0x60000020, 0xC0000040, 0x40000040
_PAGE = 0x1000
_EXPORT, _EXCEPTION, _RELOCATION, _DEBUG, _IAT = 0, 3, 5, 6, 12


@dataclass
class Section:
    """Name, RVA (a multiple of a page), contents and characteristics."""

    name: str
    rva: int
    data: bytes
    characteristics: int = CODE


@dataclass
class Pe:
    """An image.

    `exports` are (name or None, RVA or `DLL.Name`), with ordinals counted from 1; `pdb` is GUID, age, name.
    `relocations` are RVAs of pointers in the sections, `functions` (begin, end, unwind information) RVAs for .pdata.
    `directories` are further data directories, (RVA, size) by their number.
    """

    machine: int = X86
    base: int = 0x10000000
    timestamp: int = 0x45C7B2D1
    checksum: int = 0
    sections: list[Section] = field(default_factory=list)
    exports: list[tuple[str | None, int | str]] = field(default_factory=list)
    pdb: tuple[str, int, str] | None = None
    relocations: list[int] = field(default_factory=list)
    functions: list[tuple[int, int, int]] = field(default_factory=list)
    import_addresses: tuple[int, int] = (0, 0)
    directories: dict[int, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._directories = [(0, 0)] * 16
        self._directories[_IAT] = self.import_addresses
        for number, place in self.directories.items():
            self._directories[number] = place
        self._all = list(self.sections)
        if self.functions:
            data = b"".join(struct.pack("<III", *function) for function in self.functions)
            self._directories[_EXCEPTION] = self._append(".pdata", data), len(data)
        if self.exports:
            data = self._export_data(self._next_rva())
            self._directories[_EXPORT] = self._append(".edata", data), len(data)
        if self.pdb is not None:
            rva = self._next_rva()
            record = rsds(*self.pdb)
            entry = struct.pack("<IIHHIIII", 0, self.timestamp, 0, 0, 2, len(record), rva + 28, rva + 28)
            self._append(".rsds", entry + record)
            self._directories[_DEBUG] = rva, len(entry)
        if self.relocations:
            data = self._relocation_data()
            self._directories[_RELOCATION] = self._append(".reloc", data), len(data)

    @property
    def size(self) -> int:
        """Return SizeOfImage."""
        return self._next_rva()

    def file(self) -> bytes:
        """Return the file: each section's data follows the one before, at multiples of 512 bytes."""
        out = bytearray(self._headers())
        for section in self._all:
            out += section.data.ljust(_up(len(section.data), 0x200), b"\0")
        return bytes(out)

    def mapped(self) -> bytes:
        """Return the image as the loader maps it at its preferred base."""
        out = bytearray(self.size)
        headers = self._headers()
        out[: len(headers)] = headers
        for section in self._all:
            out[section.rva : section.rva + len(section.data)] = section.data
        return bytes(out)

    def _next_rva(self) -> int:
        return max((section.rva + _up(max(len(section.data), 1), _PAGE) for section in self._all), default=_PAGE)

    def _append(self, name: str, data: bytes) -> int:
        rva = self._next_rva()
        self._all.append(Section(name, rva, data, READ_ONLY))
        return rva

    def _headers(self) -> bytes:
        is_64bit = self.machine == X64
        optional = struct.pack("<HBBIIIII", 0x20B if is_64bit else 0x10B, 8, 0, 0, 0, 0, 0, 0x1000)
        optional += struct.pack("<Q", self.base) if is_64bit else struct.pack("<II", 0, self.base)
        optional += struct.pack("<IIHHHHHHI", _PAGE, 0x200, 5, 2, 0, 0, 4, 0, 0)
        optional += struct.pack("<IIIHH", self.size, 0x400, self.checksum, 3, 0)
        optional += struct.pack("<QQQQ" if is_64bit else "<IIII", 0x100000, _PAGE, 0x100000, _PAGE)
        optional += struct.pack("<II", 0, 16) + b"".join(struct.pack("<II", *entry) for entry in self._directories)
        flags = 0x2022 if is_64bit else 0x2102
        file_header = struct.pack("<HHIIIHH", self.machine, len(self._all), self.timestamp, 0, 0, len(optional), flags)
        table, offset = b"", 0x400
        for section in self._all:
            raw = _up(len(section.data), 0x200)
            table += struct.pack("<8sIIII", section.name.encode(), len(section.data), section.rva, raw, offset)
            table += struct.pack("<IIHHI", 0, 0, 0, 0, section.characteristics)
            offset += raw
        dos = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40)
        return (dos + b"PE\0\0" + file_header + optional + table).ljust(0x400, b"\0")

    def _export_data(self, rva: int) -> bytes:
        named = sorted((name, index) for index, (name, _) in enumerate(self.exports) if name is not None)
        count = len(self.exports)
        functions = 40
        names, ordinals = functions + 4 * count, functions + 4 * count + 4 * len(named)
        strings = ordinals + 2 * len(named)
        text = bytearray()

        def put(string: str) -> int:
            text.extend(string.encode() + b"\0")
            return rva + strings + len(text) - len(string) - 1

        addresses = [target if isinstance(target, int) else put(target) for _, target in self.exports]
        pointers = [put(name) for name, _ in named]
        own = put("module.dll")
        head = struct.pack(
            "<IIHHIIIIIII", 0, 0, 0, 0, own, 1, count, len(named), rva + functions, rva + names, rva + ordinals
        )
        data = head + struct.pack(f"<{count}I", *addresses) + struct.pack(f"<{len(named)}I", *pointers)
        return data + struct.pack(f"<{len(named)}H", *(index for _, index in named)) + text

    def _relocation_data(self) -> bytes:
        kind = 10 if self.machine == X64 else 3
        data = b""
        for page in sorted({rva & ~0xFFF for rva in self.relocations}):
            entries = [kind << 12 | rva & 0xFFF for rva in sorted(self.relocations) if rva & ~0xFFF == page]
            entries += [0] * (len(entries) % 2)
            data += struct.pack(f"<II{len(entries)}H", page, 8 + 2 * len(entries), *entries)
        return data


def rsds(guid: str, age: int, name: str) -> bytes:
    raw = bytes.fromhex(guid)
    return b"RSDS" + raw[3::-1] + raw[5:3:-1] + raw[7:5:-1] + raw[8:] + struct.pack("<I", age) + name.encode() + b"\0"


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit
