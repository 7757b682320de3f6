# SPDX-License-Identifier: Apache-2.0
"""Writes PDBs: functions with lines, inlined functions, types and variables, public symbols, frame data.

What a symbol reader needs and no more, so that tests and forged cases have PDBs of known content without a compiler.
Follows LLVM's description of the format (MSF file, PDB info, DBI, TPI, module, public, global and symbol record
streams, CodeView symbol and type records) and Microsoft's `cvinfo.h`. What can be said of a PDB is in
`tests.support.pdb_model`. Checked against llvm-pdbutil in tests/pdb/test_pdb_writer.py.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.support.msf_writer import write_msf
from tests.support.pdb_hashes import name_table
from tests.support.pdb_model import (
    X64,
    X86,
    Enumeration,
    FpoRecord,
    FrameRecord,
    Inline,
    Procedure,
    Public,
    Structure,
    Thunk,
)
from tests.support.pdb_modules import ModuleStream
from tests.support.pdb_types import Types, cv_record, text

__all__ = ["X64", "X86", "FpoRecord", "FrameRecord", "Inline", "Pdb", "Procedure", "Public"]

_NO_STREAM = 0xFFFF
_VC140, _MINIMAL = 20140508, 0x494E494D
_STRIPPED = 2
_CODE = 0x60000020


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
    types: dict[str, Structure | Enumeration] = field(default_factory=dict)
    typedefs: dict[str, str] = field(default_factory=dict)
    """Names for types, by name (S_UDT among the globals)."""
    thunks: list[Thunk] = field(default_factory=list)
    """Of the module `* Linker *`."""
    is_stripped: bool = False
    """Made with /PDBSTRIPPED: Microsoft's public PDBs have this flag."""
    is_fastlink: bool = False
    """Made with /DEBUG:FASTLINK. Such a PDB has no procedures and no lines, only publics and thunks."""
    stream_4: bytes | None = None
    """Visual C++ 2008 and before: there is no IPI stream, but stream 4 may hold something else, which is this."""

    def to_bytes(self, block_size: int = 4096) -> bytes:
        """Return the file."""
        return _Writer(self).file(block_size)


class _Strings:
    """The `/names` stream: file names and frame data programs, referred to by offset."""

    def __init__(self) -> None:
        self._offsets: dict[str, int] = {"": 0}
        self._data = bytearray(b"\0")

    def offset(self, string: str) -> int:
        if string not in self._offsets:
            self._offsets[string] = len(self._data)
            self._data += text(string)
        return self._offsets[string]

    def stream(self) -> bytes:
        head = struct.pack("<III", 0xEFFEEFFE, 1, len(self._data))
        ids = [offset for offset in self._offsets.values() if offset]
        return head + self._data + struct.pack(f"<I{len(ids)}II", len(ids), *ids, len(ids))


class _Writer:
    _FIXED = 5
    """How many streams have a fixed number: the old directory, info, TPI, DBI, IPI."""

    def __init__(self, pdb: Pdb) -> None:
        self._pdb = pdb
        self._strings = _Strings()
        self._strings.offset("module.obj")  # a PDB without strings at all is refused by some readers
        self._types = Types(pdb.machine, pdb.types)
        self._streams: list[bytes] = [b""] * self._FIXED

    def file(self, block_size: int) -> bytes:
        pdb = self._pdb
        modules = self._modules()
        self._types.define_all()
        globals_, publics, symbols = self._symbols(modules)
        dbi = self._dbi(modules, globals_, publics, symbols)
        names = self._stream(self._strings.stream())
        hashes = [self._stream(types.hashes()) for types in (self._types.tpi, self._types.ipi)]
        self._streams[1] = self._info(names)
        self._streams[2] = self._types.tpi.stream(hashes[0])
        self._streams[3] = dbi if pdb.has_dbi else b""
        self._streams[4] = self._types.ipi.stream(hashes[1]) if pdb.stream_4 is None else pdb.stream_4
        return write_msf(self._streams, block_size)

    def _stream(self, data: bytes) -> int:
        """Add a stream and return its number."""
        self._streams.append(data)
        return len(self._streams) - 1

    def _optional(self, data: bytes) -> int:
        return self._stream(data) if data else _NO_STREAM

    def _info(self, names_stream: int) -> bytes:
        guid = bytes.fromhex(self._pdb.guid)
        guid = guid[3::-1] + guid[5:3:-1] + guid[7:5:-1] + guid[8:]
        age = self._pdb.info_age if self._pdb.info_age is not None else self._pdb.age
        names = b"/names\0"
        table = struct.pack("<IIIIIII", 1, 1, 1, 1, 0, 0, names_stream)  # one entry of one, none deleted
        head = struct.pack("<III16s", 20000404, 0x4A000000, age, guid)
        features = [0] if self._pdb.stream_4 is not None else [0, _VC140]
        features += [_MINIMAL] if self._pdb.is_fastlink else []
        return head + struct.pack("<I", len(names)) + names + table + struct.pack(f"<{len(features)}I", *features)

    def _modules(self) -> list[ModuleStream]:
        """Return the module streams, in the order in which the procedures name them; the linker's is the last."""
        found: dict[str, ModuleStream] = {}
        for procedure in self._pdb.procedures:
            self._module(found, procedure.module).add(procedure)
        for thunk in self._pdb.thunks:
            self._module(found, "* Linker *").add_thunk(thunk)
        if not found:
            self._module(found, "module.obj")
        return list(found.values())

    def _module(self, found: dict[str, ModuleStream], name: str) -> ModuleStream:
        if name not in found:
            found[name] = ModuleStream(name, self._pdb.machine, self._types, self._strings.offset, self._place)
        return found[name]

    def _symbols(self, modules: list[ModuleStream]) -> tuple[int, int, int]:
        """Add the streams of globals, publics and their records. Return their numbers."""
        records = bytearray()
        listed: list[tuple[str, int]] = []
        for number, module in enumerate(modules, 1):
            for name, offset, is_local in module.found:
                listed.append((name, len(records)))
                kind = 0x1127 if is_local else 0x1125
                records += cv_record(kind, struct.pack("<IIH", 0, offset, number) + text(name))
        for name, spelled in self._pdb.typedefs.items():
            listed.append((name, len(records)))
            records += cv_record(0x1108, struct.pack("<I", self._types.index(spelled)) + text(name))
        globals_ = self._stream(name_table(listed, is_fastlink=self._pdb.is_fastlink))
        publics = []
        for public in self._pdb.publics:
            offset, section = self._place(public.rva)
            publics.append((section, offset, public.name, len(records)))
            flags = 2 if public.is_function else 0
            records += cv_record(0x110E, struct.pack("<IIH", flags, offset, section) + text(public.name))
        named = [(name, at) for _, _, name, at in publics]
        table = name_table(named, is_fastlink=self._pdb.is_fastlink)
        addresses = b"".join(struct.pack("<I", at) for *_, at in sorted(publics, key=lambda item: item[:2]))
        head = struct.pack("<IIIIHHII", len(table), len(addresses), 0, 0, 0, 0, 0, 0)
        return globals_, self._stream(head + table + addresses), self._stream(bytes(records))

    def _dbi(self, modules: list[ModuleStream], globals_: int, publics: int, symbols: int) -> bytes:
        pdb = self._pdb
        contributions = self._contributions(modules)
        information = b""
        for number, module in enumerate(modules):
            first = next((data for index, data in contributions if index == number), bytes(28))
            size, data = module.finished()
            name = text(module.name)
            part = (
                struct.pack("<I", 0)
                + first
                + struct.pack("<HHIII", 0, self._stream(data), size, 0, len(data) - size - 4)
            )
            information += _pad(part + struct.pack("<HHIII", 0, 0, 0, 0, 0) + name + name)
        section_map = struct.pack("<HH", 0, 0)
        files = struct.pack("<HH", len(modules), 0) + struct.pack(f"<{2 * len(modules)}H", *[0] * (2 * len(modules)))
        streams = [
            self._optional(b"".join(map(_fpo, pdb.fpo))),
            *[_NO_STREAM] * 3,
            self._optional(b"".join(struct.pack("<II", *pair) for pair in pdb.omap)),
            self._stream(b"".join(_section_header(*section) for section in pdb.sections)),
            *[_NO_STREAM] * 3,
            self._optional(b"".join(_frame(record, self._strings.offset) for record in pdb.frame_data)),
            self._optional(b"".join(_section_header(*section) for section in pdb.former_sections)),
        ]
        edit_and_continue = _Strings().stream()
        listed = struct.pack("<I", 0xF12EBA2D) + b"".join(data for _, data in contributions)
        parts = [information, listed, section_map, _pad(files)]
        head = struct.pack("<iII", -1, 19990903, pdb.age)
        head += struct.pack("<HHHHHH", globals_, 0x8E0B, publics, 0, symbols, 0)
        head += struct.pack("<iiii", *map(len, parts))
        flags = _STRIPPED if pdb.is_stripped else 0
        head += struct.pack("<iIiiHHI", 0, 0, 2 * len(streams), len(edit_and_continue), flags, pdb.machine, 0)
        return head + b"".join(parts) + edit_and_continue + struct.pack(f"<{len(streams)}H", *streams)

    def _contributions(self, modules: list[ModuleStream]) -> list[tuple[int, bytes]]:
        """Return the section contributions sorted by address, each with the number of its module.

        Neighbours of one module, with less than 16 bytes of filling between them, are one contribution.
        """
        numbers = {module.name: number for number, module in enumerate(modules)}
        spans = [(thunk.rva, thunk.size, "* Linker *") for thunk in self._pdb.thunks]
        for procedure in self._pdb.procedures:
            spans += [
                (rva, size, procedure.module) for rva, size in ((procedure.rva, procedure.size), *procedure.parts)
            ]
        merged: list[list[int]] = []
        for rva, size, name in sorted(spans):
            (offset, section), number = self._place(rva), numbers[name]
            last = merged[-1] if merged else None
            if last is not None and last[:2] == [number, section] and offset < last[3] + 16:
                last[3] = max(last[3], offset + size)
            else:
                merged.append([number, section, offset, offset + size])
        return [
            (number, struct.pack("<HHiIIHHII", section, 0, begin, end - begin, _CODE, number, 0, 0, 0))
            for number, section, begin, end in merged
        ]

    def _place(self, rva: int) -> tuple[int, int]:
        """Return offset in section and section number, from 1."""
        for index, (_, start, size) in enumerate(self._pdb.former_sections or self._pdb.sections):
            if start <= rva < start + size:
                return rva - start, index + 1
        message = f"RVA {rva:#x} is in no section"
        raise ValueError(message)


def _frame(record: FrameRecord, string: Callable[[str], int]) -> bytes:
    return struct.pack(
        "<IIIIIIHHI",
        record.rva,
        record.size,
        record.locals,
        record.parameters,
        record.max_stack,
        string(record.program),
        record.prologue,
        record.saved_registers,
        record.has_seh | record.has_eh << 1 | record.is_function_start << 2,
    )


def _fpo(record: FpoRecord) -> bytes:
    bits = record.prologue | record.saved_registers << 8 | record.has_seh << 11 | record.uses_base_pointer << 12
    bits |= record.kind << 14
    return struct.pack("<IIIHH", record.rva, record.size, record.locals, record.parameters, bits)


def _section_header(name: str, rva: int, size: int) -> bytes:
    return struct.pack("<8sIIIIIIHHI", name.encode(), size, rva, size, rva, 0, 0, 0, 0, _CODE)


def _pad(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
