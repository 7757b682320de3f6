# SPDX-License-Identifier: Apache-2.0
"""Finds the functions of one module of a PDB: procedures, thunks, trampolines and parts that were put elsewhere.

Follows `cvinfo.h` of Microsoft's microsoft-pdb. The records of a function are between its own and S_END, and the offset
of S_END is in the first. So the list of functions is made without a look at what is inside them. The list has addresses
only; names and all else are read for the one function that is asked for.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from throwstack.pdb.codeview import string
from throwstack.pdb.msf import Stream
from throwstack.pdb.ranges import Ranges, key_of
from throwstack.pdb.window import Window

_HEAD = struct.Struct("<HH")
_PROCEDURE = struct.Struct("<8xI4xI8xIIH")
_THUNK = struct.Struct("<8xI4xIHH")
_TRAMPOLINE = struct.Struct("<6xHIIHH")
_PART = struct.Struct("<12xI4xIIHH")
_PROCEDURES = frozenset({0x110F, 0x1110, 0x1146, 0x1147, 0x1155, 0x1156})
_WITH_ID = frozenset({0x1146, 0x1147, 0x1156})
_S_THUNK32, _S_TRAMPOLINE, _S_SEPCODE = 0x1102, 0x112C, 0x1132
_CODE = _PROCEDURES | {_S_THUNK32, _S_TRAMPOLINE, _S_SEPCODE}
_PROCEDURE_NAME, _THUNK_NAME = 39, 25
_LONGEST_HEAD = 48
_MAX_FUNCTIONS = 1 << 22
_MAX_RECORDS = 1 << 23
"""How many records of a module are looked at; the insides of functions do not count."""
_MAX_BODY = 4 << 20


class CodeKind(Enum):
    """What a record says that a range of code is."""

    FUNCTION = "function"
    THUNK = "thunk"
    """A few instructions that a compiler or linker made: they adjust `this`, or jump to an imported function."""
    TRAMPOLINE = "trampoline"
    """A jump of incremental linking. The linker moves the function it leads to, and changes the jump alone."""
    PART = "part"
    """Code of a function that was put elsewhere (S_SEPCODE), mostly because it seldom runs."""


@dataclass(frozen=True, slots=True)
class CodeSymbol:
    """A range of code in a module. `position` is the offset of its record in the module's stream, `end` that of S_END.

    `target` is the place, section and offset, of the function that a trampoline leads to, or that a part belongs to.
    `type` is the number of the function's type, or of its id if `has_id`; 0 if the PDB does not have it.
    """

    kind: CodeKind
    section: int
    offset: int
    size: int
    position: int
    end: int = 0
    name: str = ""
    type: int = 0
    has_id: bool = False
    target: tuple[int, int] | None = None


class ModuleSymbols:
    """The functions of a module, found by address."""

    __slots__ = ("_ranges", "_stream", "_symbols_end", "first_trampoline")

    def __init__(self, stream: Stream, symbols_size: int) -> None:
        """List the functions of the module with `stream`, whose first `symbols_size` bytes are symbols."""
        self._stream = stream
        self._symbols_end = min(symbols_size, stream.size)
        self.first_trampoline: int | None = None
        """The offset in its section of the first trampoline."""
        self._ranges = self._list()

    def __len__(self) -> int:
        return len(self._ranges)

    @property
    def kept_bytes(self) -> int:
        """Return about how many bytes of memory this takes."""
        return 512 + self._ranges.kept_bytes

    def covering(self, section: int, offset: int) -> CodeSymbol | None:
        """Return what the byte at `offset` of `section` belongs to, or None. Raises `NotAPdb`."""
        return next(self._read_all(self._ranges.covering(key_of(section, offset))), None)

    def starting_at(self, section: int, offset: int) -> tuple[CodeSymbol, ...]:
        """Return all that starts at this place. Folded functions have a record each. Raises `NotAPdb`."""
        return tuple(self._read_all(iter(self._ranges.starting_at(key_of(section, offset)))))

    def last_before(self, section: int, offset: int) -> CodeSymbol | None:
        """Return what starts last at or before this place in the same section, or None. Raises `NotAPdb`."""
        position = self._ranges.last_before(key_of(section, offset))
        found = None if position is None else self.read(position)
        return found if found is not None and found.section == section else None

    def body(self, symbol: CodeSymbol) -> bytes:
        """Return the records of a function, from its own on up to S_END, at most 4 MB of them. Raises `NotAPdb`."""
        end = min(symbol.end, self._symbols_end, symbol.position + _MAX_BODY)
        return self._stream.read(symbol.position, max(0, end - symbol.position))

    def read(self, position: int) -> CodeSymbol | None:
        """Return the function whose record is at `position`, or None if there is no such record. Raises `NotAPdb`."""
        data = self._stream.read(position, min(_LONGEST_HEAD + 256, self._symbols_end - position))
        if len(data) < _HEAD.size:
            return None
        length, kind = _HEAD.unpack_from(data)
        if length + 2 > len(data):
            data = self._stream.read(position, min(length + 2, self._symbols_end - position))
        data = data[: length + 2]
        try:
            return _read(kind, data, position)
        except struct.error:
            return None

    def _read_all(self, positions: Iterator[int]) -> Iterator[CodeSymbol]:
        for position in positions:
            found = self.read(position)
            if found is not None:
                yield found

    def _list(self) -> Ranges:
        starts, sizes, positions = array("Q"), array("I"), array("I")
        position = 4
        window = Window(self._stream, position, self._symbols_end, _LONGEST_HEAD)
        for _ in range(_MAX_RECORDS):
            if position + _HEAD.size > self._symbols_end or len(starts) >= _MAX_FUNCTIONS:
                break
            at = position - window.base if position <= window.last else window.move(position)
            length, kind = _HEAD.unpack_from(window.data, at)
            if length < 2:
                break
            following = position + 2 + length
            if kind in _CODE:
                found = _range(kind, window.data, at)
                if found is None:
                    break
                section, offset, size, end = found
                if kind == _S_TRAMPOLINE and (self.first_trampoline is None or offset < self.first_trampoline):
                    self.first_trampoline = offset
                starts.append(section << 32 | offset)
                sizes.append(size)
                positions.append(position)
                following = max(end, following)
            position = following
        return Ranges(starts, sizes, positions)


def _range(kind: int, data: bytes, at: int) -> tuple[int, int, int, int] | None:
    """Return section, offset and size of the code of the record at `at`, and where S_END is; None if it is cut."""
    try:
        if kind in _PROCEDURES:
            end, size, _, offset, section = _PROCEDURE.unpack_from(data, at)
            return section, offset, size, end
        if kind == _S_THUNK32:
            end, offset, section, size = _THUNK.unpack_from(data, at)
            return section, offset, size, end
        size, offset, _, section, _ = (_TRAMPOLINE if kind == _S_TRAMPOLINE else _PART).unpack_from(data, at)
    except struct.error:
        return None
    return section, offset, size, 0


def _read(kind: int, data: bytes, position: int) -> CodeSymbol | None:
    """Return what the record `data` describes, or None if it is no code. Raises struct.error if it is too short."""
    if kind in _PROCEDURES:
        end, size, type_, offset, section = _PROCEDURE.unpack_from(data)
        name = string(data, _PROCEDURE_NAME)[0]
        return CodeSymbol(CodeKind.FUNCTION, section, offset, size, position, end, name, type_, kind in _WITH_ID)
    if kind == _S_THUNK32:
        end, offset, section, size = _THUNK.unpack_from(data)
        return CodeSymbol(CodeKind.THUNK, section, offset, size, position, end, string(data, _THUNK_NAME)[0])
    if kind == _S_TRAMPOLINE:
        size, offset, to, section, to_section = _TRAMPOLINE.unpack_from(data)
        return CodeSymbol(CodeKind.TRAMPOLINE, section, offset, size, position, target=(to_section, to))
    if kind == _S_SEPCODE:
        size, offset, to, section, to_section = _PART.unpack_from(data)
        return CodeSymbol(CodeKind.PART, section, offset, size, position, target=(to_section, to))
    return None
