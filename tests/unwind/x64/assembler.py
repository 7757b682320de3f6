# SPDX-License-Identifier: Apache-2.0
"""A small x64 assembler for test programs, with labels; and the bytes of unwind information and of an image.

Encodings are Intel's, those of unwind data Microsoft's documentation of x64 exception handling. Nothing here comes
from the unwinder.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 = range(16)

TEXT = 0x1000
_OPTIONAL_HEADER_SIZE = 240
_PE_OFFSET = 0x80


class Assembler:
    """Code that grows at the end. Addresses are RVAs; a label may be used before it is set."""

    def __init__(self, start: int = TEXT) -> None:
        self.start = start
        self.code = bytearray()
        self.labels: dict[str, int] = {}
        self.calls: dict[int, int] = {}
        """The return address of each call, by the call's address."""
        self._fixups: list[tuple[int, str]] = []

    @property
    def here(self) -> int:
        """The address of the next instruction."""
        return self.start + len(self.code)

    def label(self, name: str) -> None:
        self.labels[name] = self.here

    def emit(self, *parts: int | bytes) -> None:
        for part in parts:
            self.code += part if isinstance(part, bytes) else bytes([part])

    def align(self, size: int = 16) -> None:
        while len(self.code) % size:
            self.emit(0xCC)

    def _relative(self, name: str) -> None:
        self._fixups.append((len(self.code), name))
        self.emit(bytes(4))

    def assemble(self) -> bytes:
        for at, name in self._fixups:
            displacement = self.labels[name] - (self.start + at + 4)
            self.code[at : at + 4] = struct.pack("<i", displacement)
        return bytes(self.code)

    def push(self, register: int) -> None:
        self.emit(*([0x41] if register > 7 else []), 0x50 | register & 7)

    def pop(self, register: int) -> None:
        self.emit(*([0x41] if register > 7 else []), 0x58 | register & 7)

    def sub_rsp(self, size: int) -> None:
        self._arithmetic_on_rsp(0xEC, size)

    def add_rsp(self, size: int) -> None:
        self._arithmetic_on_rsp(0xC4, size)

    def _arithmetic_on_rsp(self, operation: int, size: int) -> None:
        if size < 0x80:
            self.emit(0x48, 0x83, operation, size)
        else:
            self.emit(0x48, 0x81, operation, struct.pack("<i", size))

    def sub_rsp_rax(self) -> None:
        self.emit(b"\x48\x2b\xe0")

    def _memory(self, prefix: int, opcode: bytes, register: int, base: int, displacement: int) -> None:
        rex = prefix | (register > 7) << 2 | (base > 7)
        has_sib = base & 7 == RSP
        short = -0x80 <= displacement < 0x80
        self.emit(rex, opcode, (0x40 if short else 0x80) | (register & 7) << 3 | base & 7)
        if has_sib:
            self.emit(0x24)
        self.emit(struct.pack("<b" if short else "<i", displacement))

    def lea(self, register: int, base: int, displacement: int) -> None:
        self._memory(0x48, b"\x8d", register, base, displacement)

    def store(self, base: int, displacement: int, register: int) -> None:
        self._memory(0x48, b"\x89", register, base, displacement)

    def load(self, register: int, base: int, displacement: int) -> None:
        self._memory(0x48, b"\x8b", register, base, displacement)

    def store_xmm(self, base: int, displacement: int, register: int) -> None:
        """movups: the prefix 0F 11 takes its REX before it, as the others do."""
        self._memory(0x40, b"\x0f\x11", register, base, displacement)

    def mov(self, register: int, value: int) -> None:
        self.emit(0x48 | (register > 7), 0xB8 | register & 7, struct.pack("<Q", value & (1 << 64) - 1))

    def mov_eax(self, value: int) -> None:
        self.emit(0xB8, struct.pack("<I", value))

    def lea_label(self, register: int, name: str) -> None:
        self.emit(0x48 | (register > 7) << 2, 0x8D, (register & 7) << 3 | 5)
        self._relative(name)

    def call(self, name: str) -> None:
        at = self.here
        self.emit(0xE8)
        self._relative(name)
        self.calls[at] = self.here

    def call_register(self, register: int) -> None:
        at = self.here
        self.emit(*([0x41] if register > 7 else []), 0xFF, 0xD0 | register & 7)
        self.calls[at] = self.here

    def jmp(self, name: str) -> None:
        self.emit(0xE9)
        self._relative(name)

    def jmp_slot(self, name: str) -> None:
        """Jump through the 8-byte slot at the label, as through an import."""
        self.emit(0xFF, 0x25)
        self._relative(name)

    def jmp_rax(self, *, is_tail_call: bool) -> None:
        """Jump to rax; a tail call bears REX.W."""
        self.emit(*([0x48] if is_tail_call else []), 0xFF, 0xE0)

    def ret(self) -> None:
        self.emit(0xC3)

    def rep_ret(self) -> None:
        self.emit(0xF3, 0xC3)

    def nop(self) -> None:
        self.emit(0x90)


def push_nonvol(offset: int, register: int) -> bytes:
    return bytes([offset, register << 4])


def alloc(offset: int, size: int) -> bytes:
    if size <= 128:
        return bytes([offset, 2 | (size // 8 - 1) << 4])
    if size < 512 * 1024:
        return struct.pack("<BBH", offset, 1, size // 8)
    return struct.pack("<BBI", offset, 1 | 1 << 4, size)


def set_fpreg(offset: int) -> bytes:
    return bytes([offset, 3])


def save_nonvol(offset: int, register: int, displacement: int, *, far: bool = False) -> bytes:
    if far or displacement >= 512 * 1024:
        return struct.pack("<BBI", offset, 5 | register << 4, displacement)
    return struct.pack("<BBH", offset, 4 | register << 4, displacement // 8)


def save_xmm128(offset: int, register: int, displacement: int, *, far: bool = False) -> bytes:
    if far or displacement >= 1024 * 1024:
        return struct.pack("<BBI", offset, 9 | register << 4, displacement)
    return struct.pack("<BBH", offset, 8 | register << 4, displacement // 16)


def push_machframe(offset: int, *, has_error_code: bool = False) -> bytes:
    return bytes([offset, 10 | has_error_code << 4])


def epilog(size: int, distances: list[int], *, is_at_end: bool) -> bytes:
    """Return version 2's EPILOG codes, padded to an even number."""
    codes = [bytes([size, 6 | is_at_end << 4])]
    codes += [bytes([distance & 0xFF, 6 | (distance >> 8) << 4]) for distance in distances]
    if len(codes) % 2:
        codes.append(bytes([0, 6]))
    return b"".join(codes)


def unwind_info(
    codes: list[bytes],
    prologue_size: int = 0,
    *,
    version: int = 1,
    flags: int = 0,
    frame_register: int = 0,
    frame_offset: int = 0,
    chained: tuple[int, int, int] | None = None,
) -> bytes:
    """Return UNWIND_INFO; `codes` in the order in which they are undone, `frame_offset` in bytes."""
    slots = b"".join(codes)
    if chained is not None:
        flags |= 4
    frame = frame_register | (frame_offset // 16) << 4
    data = bytes([version | flags << 3, prologue_size, len(slots) // 2, frame]) + slots
    data += bytes(-len(data) % 4)
    return data + struct.pack("<III", *chained) if chained is not None else data


@dataclass
class ImageBuilder:
    """An image: code at RVA 0x1000, then unwind information, then the function table.

    An entry's unwind RVA follows from `add_info`, so that chained entries can be built one on another.
    """

    code: bytes
    entries: list[tuple[int, int, int]] = field(default_factory=list)
    exports: dict[str, int] = field(default_factory=dict)
    """The image's exports: RVA by name."""
    dll_name: str = "made.dll"
    raw_gap: int = 0
    """How much farther in the file a section is than in memory (headers only: nothing here writes a file)."""
    _infos: bytearray = field(default_factory=bytearray)

    @property
    def _info_rva(self) -> int:
        return TEXT + (len(self.code) + 0xFFF & ~0xFFF)

    def add_info(self, info: bytes) -> int:
        """Place unwind information and return its RVA."""
        rva = self._info_rva + len(self._infos)
        self._infos += info + bytes(-len(info) % 4)
        return rva

    def add(self, begin: int, end: int, info: bytes | int) -> tuple[int, int, int]:
        """Add the entry for a code range; `info` is unwind information, or the RVA of some."""
        entry = (begin, end, info if isinstance(info, int) else self.add_info(info))
        self.entries.append(entry)
        return entry

    def build(self) -> bytes:
        """Return the image as it is in memory."""
        table_rva = self._info_rva + (len(self._infos) + 0xFFF & ~0xFFF)
        table = b"".join(struct.pack("<III", *entry) for entry in sorted(self.entries))
        exports_rva = table_rva + (max(len(table), 1) + 0xFFF & ~0xFFF)
        exports = self._export_directory(exports_rva)
        size = exports_rva + (len(exports) + 0xFFF & ~0xFFF)
        image = bytearray(size)
        sections = [
            (b".text", TEXT, len(self.code), 0x60000020),
            (b".xdata", self._info_rva, len(self._infos), 0x40000040),
            (b".pdata", table_rva, len(table), 0x40000040),
            (b".edata", exports_rva, len(exports), 0x40000040),
        ]
        directories = {0: (exports_rva if exports else 0, len(exports)), 3: (table_rva, len(table))}
        header = headers(sections[: 4 if exports else 3], size, directories, self.raw_gap)
        image[: len(header)] = header
        for (_, rva, _, _), data in zip(sections, (self.code, self._infos, table, exports), strict=True):
            image[rva : rva + len(data)] = data
        return bytes(image)

    def _export_directory(self, rva: int) -> bytes:
        """Return IMAGE_EXPORT_DIRECTORY with its tables and names, in that order; nothing if nothing is exported."""
        if not self.exports:
            return b""
        names = sorted(self.exports)
        count = len(names)
        functions_rva = rva + 40
        strings_rva = functions_rva + 4 * count + 4 * count + 2 * count
        strings = bytearray(self.dll_name.encode() + b"\0")
        pointers = []
        for name in names:
            pointers.append(strings_rva + len(strings))
            strings += name.encode() + b"\0"
        fields = (0, 0, 0, 0, strings_rva, 1, count, count, functions_rva, functions_rva + 4 * count)
        data = struct.pack("<IIHHIIIIIII", *fields, functions_rva + 8 * count)
        data += struct.pack(f"<{count}I", *(self.exports[name] for name in names))
        data += struct.pack(f"<{count}I", *pointers) + struct.pack(f"<{count}H", *range(count))
        return data + bytes(strings)


def headers(
    sections: list[tuple[bytes, int, int, int]],
    image_size: int,
    directories: dict[int, tuple[int, int]],
    raw_gap: int = 0,
) -> bytes:
    """Return PE32+ headers; sections are (name, RVA, size, characteristics), directories (RVA, size) by index."""
    dos = b"MZ" + bytes(58) + struct.pack("<I", _PE_OFFSET)
    coff = struct.pack("<HHIIIHH", 0x8664, len(sections), 0x5F000000, 0, 0, _OPTIONAL_HEADER_SIZE, 0x2022)
    optional = struct.pack("<HBBIIIII", 0x20B, 14, 0, 0, 0, 0, 0, TEXT)
    optional += struct.pack(
        "<QIIHHHHHHIIIIHH", 0x140000000, 0x1000, 0x200, *(6, 0, 0, 0, 6, 0), 0, image_size, 0x400, 0, 2, 0
    )
    optional += struct.pack("<QQQQII", 1 << 20, 0x1000, 1 << 20, 0x1000, 0, 16)
    optional += b"".join(struct.pack("<II", *directories.get(index, (0, 0))) for index in range(16))
    table = b"".join(
        struct.pack("<8sIIIIIIHHI", name, size, rva, size, rva + raw_gap, 0, 0, 0, 0, characteristics)
        for name, rva, size, characteristics in sections
    )
    return dos.ljust(_PE_OFFSET, b"\0") + b"PE\0\0" + coff + optional + table
