# SPDX-License-Identifier: Apache-2.0
"""Writes the streams of a PDB's modules (object files): symbols, then lines and inlinee lines in the form C13."""

from __future__ import annotations

import struct
from collections.abc import Callable
from itertools import groupby

from tests.support.pdb_model import (
    X64,
    X86,
    Block,
    Constant,
    Convention,
    FrameInfo,
    Inline,
    Item,
    Place,
    Procedure,
    Static,
    Thunk,
    Variable,
)
from tests.support.pdb_types import Types, cv_record, numeric, text

_END, _INLINE_END = 0x0006, 0x114E
_CPP = 1
_PROCESSORS = {X86: 7, X64: 0xD0}
"""What a module is compiled for (`CV_CPU_TYPE_e`): it says what the numbers of registers mean."""
_IS_PARAMETER = 1
_OPTIMISED_OUT = 0x100


class ModuleStream:
    """The stream of one module, to which procedures and thunks are added."""

    def __init__(
        self,
        name: str,
        machine: int,
        types: Types,
        string: Callable[[str], int],
        place: Callable[[int], tuple[int, int]],
    ) -> None:
        """`string` returns a string's offset in `/names`, `place` an RVA's offset and section."""
        self.name = name
        self.found: list[tuple[str, int, bool]] = []
        """Name, offset and whether it is local of each procedure, for the globals."""
        self._types = types
        self._string = string
        self._place = place
        versions = struct.pack("<IHHHHHHHHH", _CPP, _PROCESSORS[machine], 14, 0, 50727, 0, 14, 0, 50727, 0)
        self._symbols = bytearray(struct.pack("<I", 4) + cv_record(0x113C, versions + text("pdb_writer")))
        self._lines = bytearray()
        self._checksums: dict[str, int] = {}
        self._inlinees: dict[int, tuple[str, int]] = {}

    def finished(self) -> tuple[int, bytes]:
        """Return the size of the symbols and the whole stream."""
        lines = bytes(self._lines)
        if self._inlinees:
            data = struct.pack("<I", 0) + b"".join(
                struct.pack("<III", number, self._file(file), line) for number, (file, line) in self._inlinees.items()
            )
            lines += _subsection(0xF6, data)
        # eight bytes a file: offset of the name, no checksum, filling
        checksums = b"".join(struct.pack("<IBBH", self._string(file), 0, 0, 0) for file in self._checksums)
        if checksums:
            lines = _subsection(0xF4, checksums) + lines
        return len(self._symbols), bytes(self._symbols) + lines + struct.pack("<I", 0)

    def add(self, procedure: Procedure) -> None:
        """Add a procedure with its variables, inlined functions, separated parts and lines."""
        self.found.append((procedure.name, len(self._symbols), procedure.is_local))
        offset, section = self._place(procedure.rva)
        kind = (0x1110, 0x110F) if not procedure.typed_by_id else (0x1147, 0x1146)
        size = procedure.size
        flags = procedure.has_fp | procedure.has_optimised_details << 7
        data = struct.pack("<IIIIIIHB", 0, size, 0, size, self._type_of(procedure), offset, section, flags)
        start = self._open(kind[procedure.is_local], 0, data + text(procedure.name))
        for item in procedure.items:
            self._item(item, procedure, start)
        for inline in procedure.inlines:
            self._inline(inline, procedure, start)
        self._close(start, _END)
        for rva, length in procedure.parts:
            at, part_section = self._place(rva)
            data = struct.pack("<IIIIHH", length, 1, at, offset, part_section, section)
            self._close(self._open(0x1132, 0, data), _END)
        if procedure.lines:
            self._lines += _subsection(0xF2, self._line_block(procedure, offset, section))

    def add_thunk(self, thunk: Thunk) -> None:
        """Add a thunk with a name, or a trampoline."""
        offset, section = self._place(thunk.rva)
        if thunk.name:
            data = struct.pack("<IIHHB", 0, offset, section, thunk.size, 0)
            self._close(self._open(0x1102, 0, data + text(thunk.name)), _END)
            return
        target, target_section = self._place(thunk.target)
        self._symbols += cv_record(
            0x112C, struct.pack("<HHIIHH", 0, thunk.size, offset, target, section, target_section)
        )

    def _open(self, kind: int, parent: int, data: bytes) -> int:
        """Begin a scope, whose record has its parent and its end in front of `data`. Return where it begins."""
        start = len(self._symbols)
        self._symbols += cv_record(kind, struct.pack("<II", parent, 0) + data)
        return start

    def _close(self, start: int, kind: int) -> None:
        struct.pack_into("<I", self._symbols, start + 8, len(self._symbols))
        self._symbols += cv_record(kind, b"")

    def _type_of(self, procedure: Procedure) -> int:
        if procedure.parameters is None:
            return 0
        this, returns, parameters = procedure.this, procedure.returns, procedure.parameters
        kind = self._types.function(returns, parameters, procedure.convention, this, procedure.this_adjust)
        if not procedure.typed_by_id:
            return kind
        return self._types.function_id(procedure.name.rpartition("::")[2], kind, this)

    def _item(self, item: Item, procedure: Procedure, parent: int) -> None:
        if isinstance(item, Block):
            offset, section = self._place(procedure.rva + item.begin)
            start = self._open(0x1103, parent, struct.pack("<IIH", item.size, offset, section) + text(item.name))
            for inner in item.items:
                self._item(inner, procedure, start)
            self._close(start, _END)
        elif isinstance(item, FrameInfo):
            flags = item.local_base << 14 | item.parameter_base << 16 | item.is_optimised << 20 | item.has_handlers << 4
            figures = (item.size, 0, 0, item.saved_registers, 0, 0, flags)
            self._symbols += cv_record(0x1012, struct.pack("<IIIIIHI", *figures))
        elif isinstance(item, Variable):
            self._symbols += self._variable(item)
        elif isinstance(item, Constant):
            data = struct.pack("<I", self._types.index(item.type)) + numeric(item.value) + text(item.name)
            self._symbols += cv_record(0x1107, data)
        elif isinstance(item, Static):
            placed = struct.pack("<IIH", self._types.index(item.type), *self._place(item.rva))
            self._symbols += cv_record(0x110C, placed + text(item.name))
        else:
            flags = (_IS_PARAMETER if item.is_parameter else 0) | (0 if item.places else _OPTIMISED_OUT)
            kind = self._types.index(item.type)
            self._symbols += cv_record(0x113E, struct.pack("<IH", kind, flags) + text(item.name))
            for place in item.places:
                self._symbols += self._range(place, procedure)

    def _variable(self, item: Variable) -> bytes:
        kind = self._types.index(item.type)
        if item.offset is None:
            assert item.register is not None, "a variable is in a register or at an offset"
            return cv_record(0x1106, struct.pack("<IH", kind, item.register) + text(item.name))
        if item.register is None:
            return cv_record(0x110B, struct.pack("<iI", item.offset, kind) + text(item.name))
        return cv_record(0x1111, struct.pack("<iIH", item.offset, kind, item.register) + text(item.name))

    def _range(self, place: Place, procedure: Procedure) -> bytes:
        if place.end is None:
            assert place.register is None, "only a place from the frame holds for the whole function"
            return cv_record(0x1144, struct.pack("<i", place.offset))
        offset, section = self._place(procedure.rva + place.begin)
        covers = struct.pack("<IHH", offset, section, place.end - place.begin)
        covers += b"".join(struct.pack("<HH", *gap) for gap in place.gaps)
        if place.register is None:
            return cv_record(0x1142, struct.pack("<i", place.offset) + covers)
        if place.offset is not None:
            flags = 0 if place.part is None else 1 | place.part << 4
            return cv_record(0x1145, struct.pack("<HHi", place.register, flags, place.offset) + covers)
        if place.part is not None:
            return cv_record(0x1143, struct.pack("<HHI", place.register, 0, place.part) + covers)
        return cv_record(0x1141, struct.pack("<HH", place.register, 0) + covers)

    def _inline(self, inline: Inline, procedure: Procedure, parent: int) -> None:
        this = inline.this
        kind = self._types.function("void", inline.parameters, Convention.CDECL, this, inline.this_adjust)
        number = self._types.function_id(inline.name, kind, this)
        self._inlinees[number] = (inline.file, inline.line)
        self._file(inline.file)
        annotations = bytearray()
        line, offset = inline.line, 0
        for start, size, at in inline.ranges:
            if at != line:
                annotations += b"\x06" + _compressed(_signed(at - line))
                line = at
            annotations += b"\x03" + _compressed(start - offset) + b"\x04" + _compressed(size)
            offset = start + size
        start = self._open(0x114D, parent, struct.pack("<I", number) + annotations)
        for item in inline.items:
            self._item(item, procedure, start)
        for inner in inline.inlines:
            self._inline(inner, procedure, start)
        self._close(start, _INLINE_END)

    def _line_block(self, procedure: Procedure, offset: int, section: int) -> bytes:
        data = struct.pack("<IHHI", offset, section, 0, procedure.size)
        for file, lines in groupby(sorted(procedure.lines), key=lambda line: line[1]):
            run = list(lines)
            entries = b"".join(struct.pack("<II", at, line | 1 << 31) for at, _, line in run)
            data += struct.pack("<III", self._file(file), len(run), 12 + len(entries)) + entries
        return data

    def _file(self, name: str) -> int:
        """Return the offset of a file's entry among the checksums."""
        return self._checksums.setdefault(name, 8 * len(self._checksums))


def _subsection(kind: int, data: bytes) -> bytes:
    return struct.pack("<II", kind, len(data)) + data + b"\0" * (-len(data) % 4)


def _signed(value: int) -> int:
    return value << 1 if value >= 0 else -value << 1 | 1


def _compressed(value: int) -> bytes:
    if value < 0x80:
        return bytes([value])
    if value < 0x4000:
        return struct.pack(">H", value | 0x8000)
    return struct.pack(">I", value | 0xC0000000)
