# SPDX-License-Identifier: Apache-2.0
"""Writes PDBs: functions with lines, inlined functions and parameters, public symbols, frame data.

What a symbol reader needs and no more, so that tests and forged cases have PDBs of known content without a compiler.
Follows LLVM's description of the format (MSF file, PDB info, DBI, TPI, module and symbol record streams, CodeView
symbol and type records) and Microsoft's `cvinfo.h`. Checked against llvm-pdbutil in tests/pdb/test_pdb_writer.py.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.support.msf_writer import write_msf

X86, X64 = 0x14C, 0x8664
_NO_STREAM = 0xFFFF
_SIMPLE_TYPES = {"void": 0x03, "char": 0x70, "int": 0x74, "unsigned": 0x75, "long": 0x12, "int*": 0x474, "void*": 0x403}
_SIMPLE_TYPES["HRESULT"] = 0x08  # T_HRESULT
_NEAR_32, _POINTER_64 = 0x800A, 0x1000C


@dataclass
class Inline:
    """A function inlined at `ranges`: (offset in the procedure, size in bytes, line). `line` is where it begins."""

    name: str
    file: str
    line: int
    ranges: list[tuple[int, int, int]]
    inlines: list[Inline] = field(default_factory=list)


@dataclass
class Procedure:
    """A function. `lines` are (offset in it, file, line); `parameters` are type names, None for no type at all."""

    name: str
    rva: int
    size: int
    lines: list[tuple[int, str, int]] = field(default_factory=list)
    parameters: tuple[str, ...] | None = None
    inlines: list[Inline] = field(default_factory=list)


@dataclass
class Public:
    """A public symbol, decorated as in the object file."""

    name: str
    rva: int


@dataclass
class FrameRecord:
    """A FrameData record ("new FPO"). Sizes in bytes."""

    rva: int
    size: int
    program: str
    locals: int = 0
    parameters: int = 0
    saved_registers: int = 0
    prologue: int = 0
    max_stack: int = 0
    is_function_start: bool = True
    has_seh: bool = False


@dataclass
class FpoRecord:
    """An FPO_DATA record. `locals` and `parameters` count 4-byte words, `kind` is cbFrame: 0 FPO … 3 not FPO."""

    rva: int
    size: int
    locals: int = 0
    parameters: int = 0
    prologue: int = 0
    saved_registers: int = 0
    uses_base_pointer: bool = False
    kind: int = 0
    has_seh: bool = False


@dataclass
class Pdb:
    """A whole PDB. `sections` are (name, RVA, size) of the image; `info_age` is the other age, which tools count up."""

    guid: str
    age: int = 1
    sections: list[tuple[str, int, int]] = field(default_factory=lambda: [(".text", 0x1000, 0x100000)])
    machine: int = X86
    procedures: list[Procedure] = field(default_factory=list)
    publics: list[Public] = field(default_factory=list)
    frame_data: list[FrameRecord] = field(default_factory=list)
    fpo: list[FpoRecord] = field(default_factory=list)
    omap: list[tuple[int, int]] = field(default_factory=list)
    """Where code went when the linked image was rearranged: (RVA before, RVA after or 0) of the start of each piece."""
    former_sections: list[tuple[str, int, int]] = field(default_factory=list)
    """Of the image before that; Microsoft's tools write them, others let `sections` stand for both."""
    info_age: int | None = None
    has_dbi: bool = True

    def to_bytes(self, block_size: int = 4096) -> bytes:
        """Return the file."""
        return _Writer(self).file(block_size)


class _Strings:
    """The `/names` stream: file names and frame data programs, referred to by offset."""

    def __init__(self) -> None:
        self._offsets: dict[str, int] = {"": 0}
        self._data = bytearray(b"\0")

    def offset(self, text: str) -> int:
        if text not in self._offsets:
            self._offsets[text] = len(self._data)
            self._data += text.encode() + b"\0"
        return self._offsets[text]

    def stream(self) -> bytes:
        head = struct.pack("<III", 0xEFFEEFFE, 1, len(self._data))
        ids = [offset for offset in self._offsets.values() if offset]
        return head + self._data + struct.pack(f"<I{len(ids)}II", len(ids), *ids, len(ids))


class _Types:
    """A TPI or IPI stream."""

    def __init__(self) -> None:
        self._records: dict[bytes, int] = {}

    def add(self, kind: int, data: bytes) -> int:
        record = _record(kind, data)
        return self._records.setdefault(record, 0x1000 + len(self._records))

    def stream(self) -> bytes:
        data = b"".join(self._records)
        head = struct.pack("<IIIII", 20040203, 56, 0x1000, 0x1000 + len(self._records), len(data))
        return head + struct.pack("<HHIIiIiIiI", _NO_STREAM, _NO_STREAM, 4, 0x3FFFF, 0, 0, 0, 0, 0, 0) + data


class _Writer:
    _NAMES, _SYMBOLS, _MODULE, _SECTIONS, _FPO, _FRAMES, _OMAP, _FORMER = 5, 6, 7, 8, 9, 10, 11, 12

    def __init__(self, pdb: Pdb) -> None:
        self._pdb = pdb
        self._strings = _Strings()
        self._strings.offset("module.obj")  # symbolic reads no PDB that has no strings at all
        self._types = _Types()
        self._ids = _Types()
        self._checksums: dict[str, int] = {}

    def file(self, block_size: int) -> bytes:
        pdb = self._pdb
        symbols_size, module = self._module()
        frames = b"".join(self._frame(record) for record in pdb.frame_data)
        fpo = b"".join(_fpo(record) for record in pdb.fpo)
        publics = b"".join(
            _record(0x110E, struct.pack("<IIH", 2, *self._place(public.rva)) + public.name.encode() + b"\0")
            for public in pdb.publics
        )
        streams = [
            b"",
            self._info(),
            self._types.stream(),
            self._dbi(symbols_size, len(module)) if pdb.has_dbi else b"",
            self._ids.stream(),
            self._strings.stream(),
            publics,
            module,
            b"".join(_section_header(*section) for section in pdb.sections),
            fpo,
            frames,
            b"".join(struct.pack("<II", *pair) for pair in pdb.omap),
            b"".join(_section_header(*section) for section in pdb.former_sections),
        ]
        return write_msf(streams, block_size)

    def _info(self) -> bytes:
        guid = bytes.fromhex(self._pdb.guid)
        guid = guid[3::-1] + guid[5:3:-1] + guid[7:5:-1] + guid[8:]
        age = self._pdb.info_age if self._pdb.info_age is not None else self._pdb.age
        names = b"/names\0"
        table = struct.pack("<IIIIIII", 1, 1, 1, 1, 0, 0, self._NAMES)  # one entry of one, none deleted
        head = struct.pack("<III16s", 20000404, 0x4A000000, age, guid)
        return head + struct.pack("<I", len(names)) + names + table + struct.pack("<II", 0, 20140508)

    def _dbi(self, symbols_size: int, module_size: int) -> bytes:
        pdb = self._pdb
        lines_size = module_size - symbols_size - 4
        name = b"module.obj\0"
        contribution = self._contribution()
        information = struct.pack("<I", 0) + contribution
        information += struct.pack("<HHIIIHHIII", 0, self._MODULE, symbols_size, 0, lines_size, 0, 0, 0, 0, 0)
        information = _pad(information + name + name)
        contributions = struct.pack("<I", 0xF12EBA2D) + contribution
        section_map = struct.pack("<HH", 0, 0)
        files = struct.pack("<HHHH", 1, 0, 0, 0)
        streams = [
            self._FPO if pdb.fpo else _NO_STREAM,
            *[_NO_STREAM] * 3,
            self._OMAP if pdb.omap else _NO_STREAM,
            self._SECTIONS,
            *[_NO_STREAM] * 3,
            self._FRAMES if pdb.frame_data else _NO_STREAM,
            self._FORMER if pdb.former_sections else _NO_STREAM,
        ]
        edit_and_continue = _Strings().stream()
        parts = [information, contributions, section_map, files]
        head = struct.pack("<iII", -1, 19990903, pdb.age)
        head += struct.pack("<HHHHHH", _NO_STREAM, 0x8E0B, _NO_STREAM, 0, self._SYMBOLS, 0)
        head += struct.pack("<iiii", *map(len, parts))
        head += struct.pack("<iIiiHHI", 0, 0, 2 * len(streams), len(edit_and_continue), 0, pdb.machine, 0)
        return head + b"".join(parts) + edit_and_continue + struct.pack(f"<{len(streams)}H", *streams)

    def _contribution(self) -> bytes:
        procedures = self._pdb.procedures
        first = min((procedure.rva for procedure in procedures), default=self._pdb.sections[0][1])
        last = max((procedure.rva + procedure.size for procedure in procedures), default=first)
        offset, section = self._place(first)
        return struct.pack("<HHiIIHHII", section, 0, offset, last - first, 0x60000020, 0, 0, 0, 0)

    def _place(self, rva: int) -> tuple[int, int]:
        """Return offset in section and section number, from 1."""
        for index, (_, start, size) in enumerate(self._pdb.former_sections or self._pdb.sections):
            if start <= rva < start + size:
                return rva - start, index + 1
        message = f"RVA {rva:#x} is in no section"
        raise ValueError(message)

    def _module(self) -> tuple[int, bytes]:
        """Return the size of the symbols and the whole stream."""
        symbols = bytearray(struct.pack("<I", 4))
        lines = bytearray()
        inlinees: list[tuple[int, str, int]] = []
        for procedure in self._pdb.procedures:
            start = len(symbols)
            offset, section = self._place(procedure.rva)
            body = b"".join(
                self._inline(inline, start, start, inlinees, before) for inline, before in _with_sizes(procedure, self)
            )
            head = self._procedure(procedure, offset, section, 0)
            end = start + len(head) + len(body)
            symbols += self._procedure(procedure, offset, section, end) + body + _record(0x0006, b"")
            if procedure.lines:
                lines += _subsection(0xF2, self._lines(procedure, offset, section))
        if inlinees:
            data = struct.pack("<I", 0) + b"".join(
                struct.pack("<III", number, self._file(file), line) for number, file, line in inlinees
            )
            lines += _subsection(0xF6, data)
        # eight bytes a file: offset of the name, no checksum, filling
        checksums = b"".join(
            struct.pack("<IBBH", offset, 0, 0, 0) for offset in map(self._strings.offset, self._checksums)
        )
        if checksums:
            lines[:0] = _subsection(0xF4, checksums)
        return len(symbols), bytes(symbols + lines) + struct.pack("<I", 0)

    def _procedure(self, procedure: Procedure, offset: int, section: int, end: int) -> bytes:
        kind = 0
        if procedure.parameters is not None:
            kind = self._function_type(procedure.parameters)
        data = struct.pack("<IIIIIIIIHB", 0, end, 0, procedure.size, 0, procedure.size, kind, offset, section, 0)
        return _record(0x1110, data + procedure.name.encode() + b"\0")

    def _function_type(self, parameters: tuple[str, ...]) -> int:
        arguments = [self._type(name) for name in parameters]
        listed = self._types.add(0x1201, struct.pack(f"<I{len(arguments)}I", len(arguments), *arguments))
        return self._types.add(0x1008, struct.pack("<IBBHI", _SIMPLE_TYPES["void"], 0, 0, len(arguments), listed))

    def _type(self, name: str) -> int:
        if name in _SIMPLE_TYPES:
            return _SIMPLE_TYPES[name]
        if name.endswith("*"):
            traits = _POINTER_64 if self._pdb.machine == X64 else _NEAR_32
            return self._types.add(0x1002, struct.pack("<II", self._type(name[:-1]), traits))
        return self._types.add(0x1505, struct.pack("<HHIIIH", 0, 0x80, 0, 0, 0, 0) + name.encode() + b"\0")

    def _inline(
        self, inline: Inline, parent: int, procedure: int, inlinees: list[tuple[int, str, int]], before: int
    ) -> bytes:
        number = self._ids.add(0x1601, struct.pack("<II", 0, self._function_type(())) + inline.name.encode() + b"\0")
        inlinees.append((number, inline.file, inline.line))
        annotations = bytearray()
        line, offset = inline.line, 0
        for start, size, at in inline.ranges:
            if at != line:
                annotations += b"\x06" + _compressed(_signed(at - line))
                line = at
            annotations += b"\x03" + _compressed(start - offset) + b"\x04" + _compressed(size)
            offset = start + size
        start_of_this = procedure + before
        head_size = len(_record(0x114D, struct.pack("<III", parent, 0, number) + annotations))
        inner = bytearray()
        for child in inline.inlines:
            inner += self._inline(child, start_of_this, procedure, inlinees, before + head_size + len(inner))
        end = start_of_this + head_size + len(inner)
        return _record(0x114D, struct.pack("<III", parent, end, number) + annotations) + inner + _record(0x114E, b"")

    def _lines(self, procedure: Procedure, offset: int, section: int) -> bytes:
        data = struct.pack("<IHHI", offset, section, 0, procedure.size)
        lines = sorted(procedure.lines)
        index = 0
        while index < len(lines):
            file = lines[index][1]
            run = []
            while index < len(lines) and lines[index][1] == file:
                run.append(lines[index])
                index += 1
            entries = b"".join(struct.pack("<II", at, line | 1 << 31) for at, _, line in run)
            data += struct.pack("<III", self._file(file), len(run), 12 + len(entries)) + entries
        return data

    def _file(self, name: str) -> int:
        """Return the offset of a file's entry among the checksums."""
        return self._checksums.setdefault(name, 8 * len(self._checksums))

    def _frame(self, record: FrameRecord) -> bytes:
        return struct.pack(
            "<IIIIIIHHI",
            record.rva,
            record.size,
            record.locals,
            record.parameters,
            record.max_stack,
            self._strings.offset(record.program),
            record.prologue,
            record.saved_registers,
            record.has_seh | (4 if record.is_function_start else 0),
        )


def _with_sizes(procedure: Procedure, writer: _Writer) -> Iterable[tuple[Inline, int]]:
    """Yield the procedure's inlines, each with its distance from the procedure's record."""
    before = len(writer._procedure(procedure, 0, 1, 0))
    for inline in procedure.inlines:
        yield inline, before
        before += len(writer._inline(inline, 0, 0, [], 0))


def _fpo(record: FpoRecord) -> bytes:
    bits = record.prologue | record.saved_registers << 8 | record.has_seh << 11 | record.uses_base_pointer << 12
    bits |= record.kind << 14
    return struct.pack("<IIIHH", record.rva, record.size, record.locals, record.parameters, bits)


def _section_header(name: str, rva: int, size: int) -> bytes:
    return struct.pack("<8sIIIIIIHHI", name.encode(), size, rva, size, rva, 0, 0, 0, 0, 0x60000020)


def _record(kind: int, data: bytes) -> bytes:
    filling = -(len(data) + 4) % 4
    return struct.pack("<HH", len(data) + 2 + filling, kind) + data + b"\0" * filling


def _subsection(kind: int, data: bytes) -> bytes:
    return struct.pack("<II", kind, len(data)) + _pad(data)


def _pad(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)


def _signed(value: int) -> int:
    return value << 1 if value >= 0 else -value << 1 | 1


def _compressed(value: int) -> bytes:
    if value < 0x80:
        return bytes([value])
    if value < 0x4000:
        return struct.pack(">H", value | 0x8000)
    return struct.pack(">I", value | 0xC0000000)
