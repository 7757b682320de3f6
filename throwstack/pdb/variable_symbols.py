# SPDX-License-Identifier: Apache-2.0
"""Reads the variables of a function from the symbols of its module: parameters, locals, those of inlined functions.

Follows `cvinfo.h` of Microsoft's microsoft-pdb and LLVM's `SymbolRecord.h`. There are two forms. Code that is not
optimised has one record for a variable, with a place that is good for the whole function (S_REGREL32, S_BPREL32). In
optimised code S_LOCAL is followed by records S_DEFRANGE…, each with a place and the range of code for which it is good.

For x86, Visual C++ writes the optimised variables of a function once more in the first form, after S_FRAMEPROC. These
are left out.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from throwstack.pdb.codeview import BadRecord, Record, number, records, string, unpack
from throwstack.pdb.variable_model import (
    CodeExtent,
    FunctionSymbol,
    Location,
    LocationKind,
    Scope,
    ScopeKind,
    VariableSymbol,
)

_PROCEDURES = frozenset({0x110F, 0x1110, 0x1146, 0x1147, 0x1155, 0x1156})
_WITH_ID = frozenset({0x1146, 0x1147, 0x1156})
_ENDS = frozenset({0x0006, 0x114E, 0x114F})
_OPENS = frozenset({0x1103, 0x114D, 0x115D})
_BLOCK, _INLINED, _INLINED_2 = 0x1103, 0x114D, 0x115D
_FRAME_PROCEDURE = 0x1012
_HAS_FRAME_POINTER, _HAS_OPTIMISED_DETAILS = 1, 0x80
_LOCAL, _FILE_STATIC = 0x113E, 0x1153
_PROCEDURE = struct.Struct("<16xIIIIIHB")
_BLOCK_HEAD = struct.Struct("<12xIIH")
_INLINE_SITE = struct.Struct("<12xI")
_FRAME = struct.Struct("<4xI8xI6xI")
_MAX_DEPTH = 64
_MAX_VARIABLES = 4096
_MAX_RECORDS = 1 << 16
_MAX_LOCATIONS = 256
_MAX_GAPS = 256
_OF_FRAME = (LocationKind.REGISTER, LocationKind.BY_REGISTER, LocationKind.BY_FRAME_POINTER)
_INTERNAL = ("__$", "$")
"""How the names begin of what the compiler adds: `__$ReturnUdt`, `__$ArrayPad$`."""


@dataclass(slots=True)
class _OpenScope:
    kind: ScopeKind
    extent: CodeExtent | None = None
    inlinee: int = 0
    annotations: bytes = b""
    variables: list[VariableSymbol] = field(default_factory=list)
    scopes: list[Scope] = field(default_factory=list)

    def closed(self) -> Scope:
        variables = tuple(variable for variable in self.variables if not variable.name.startswith(_INTERNAL))
        return Scope(self.kind, variables, tuple(self.scopes), self.extent, self.inlinee, self.annotations)


def function_symbol(body: bytes) -> FunctionSymbol | None:
    """Return the function in `body`: the records of a module from an S_GPROC32 or similar up to its S_END.

    Returns None if `body` does not begin with such a record. What is damaged in it is left out.
    """
    head = next(records(body, 0, len(body)), None)
    if head is None or head.kind not in _PROCEDURES:
        return None
    try:
        size, prologue, _, index, offset, section, traits = unpack(_PROCEDURE, body[: head.end], 0)
    except BadRecord:
        return None
    function = _OpenScope(ScopeKind.FUNCTION, CodeExtent(section, offset, offset + size))
    reader = _Reader(body, function)
    reader.read(head.end)
    scope = function.closed()
    own = {one.name for inner in _without_inlined(scope) for one in inner.variables if one.has_ranges}
    kept = tuple(one for one in scope.variables if not (_is_on_the_stack(one) and one.name in own))
    return FunctionSymbol(
        string(body[: head.end], 39)[0],
        index,
        head.kind in _WITH_ID,
        offset + prologue,
        replace(scope, variables=kept),
        reader.frame_flags,
        has_frame_pointer=bool(traits & _HAS_FRAME_POINTER),
        has_ranges=bool(reader.ranged),
        has_optimised_details=bool(traits & _HAS_OPTIMISED_DETAILS),
        has_frame=reader.frame_bytes != 0,
        has_registers=reader.has_registers,
    )


def _without_inlined(scope: Scope) -> Iterator[Scope]:
    """Yield the scope of a function, and its blocks."""
    yield scope
    for inner in scope.scopes:
        if inner.kind is ScopeKind.BLOCK:
            yield from _without_inlined(inner)


def _is_on_the_stack(variable: VariableSymbol) -> bool:
    """Say whether a variable has one place for the whole function, which is in its frame or in a register."""
    return not variable.has_ranges and any(place.kind in _OF_FRAME for place in variable.locations)


class _Reader:
    """Reads the records of one function into its scope."""

    def __init__(self, symbols: bytes, function: _OpenScope) -> None:
        self._symbols = symbols
        self._open = [function]
        self._left = _MAX_VARIABLES
        self.ranged: set[str] = set()
        """The names of variables that have places with ranges of code."""
        self.has_registers = False
        """Whether a variable has a place in a register for a range of code, or is in several places by its parts."""
        self.frame_flags = 0
        """The flags of S_FRAMEPROC, 0 if it is absent."""
        self.frame_bytes: int | None = None
        """The bytes of locals and saved registers by S_FRAMEPROC, None if it is absent."""

    def read(self, at: int) -> None:
        """Read the records from offset `at` on."""
        ignored = 0
        for record, _ in zip(records(self._symbols, at, len(self._symbols)), range(_MAX_RECORDS), strict=False):
            if record.kind in _OPENS and (ignored or len(self._open) >= _MAX_DEPTH):
                ignored += 1
            elif record.kind in _ENDS and ignored:
                ignored -= 1
            elif not ignored:
                try:
                    self._record(record)
                except BadRecord:
                    continue
        while len(self._open) > 1:
            self._close()

    def _record(self, record: Record) -> None:
        kind, body = record.kind, self._symbols[record.at : record.end]
        if kind in _OPENS:
            self._open.append(_opened(kind, body))
        elif kind in _ENDS:
            if len(self._open) > 1:
                self._close()
        elif kind == _FRAME_PROCEDURE:
            size, saved, self.frame_flags = unpack(_FRAME, body, 0)
            self.frame_bytes = size + saved
        elif kind in _RANGES:
            self._add_location(_RANGES[kind](body))
        elif kind in _VARIABLES and self._left > 0:
            self._left -= 1
            variable = _VARIABLES[kind](body)
            self._open[-1].variables.append(variable)
            if variable.has_ranges:
                self.ranged.add(variable.name)

    def _close(self) -> None:
        closed = self._open.pop().closed()
        self._open[-1].scopes.append(closed)

    def _add_location(self, location: Location) -> None:
        variables = self._open[-1].variables
        if variables and variables[-1].has_ranges and len(variables[-1].locations) < _MAX_LOCATIONS:
            self.has_registers |= location.kind is LocationKind.REGISTER or location.part is not None
            variables[-1] = replace(variables[-1], locations=(*variables[-1].locations, location))


def _opened(kind: int, body: bytes) -> _OpenScope:
    if kind == _BLOCK:
        size, offset, section = unpack(_BLOCK_HEAD, body, 0)
        return _OpenScope(ScopeKind.BLOCK, CodeExtent(section, offset, offset + size))
    (inlinee,) = unpack(_INLINE_SITE, body, 0)
    return _OpenScope(ScopeKind.INLINED, None, inlinee, body[16 if kind == _INLINED else 20 :])


# Readers of variables: `body` is the whole record, and offsets count from its length, as in cvinfo.h.


def _by_register(body: bytes) -> VariableSymbol:
    offset, index, register = unpack(struct.Struct("<4xiIH"), body, 0)
    return _whole(string(body, 14)[0], index, Location(LocationKind.BY_REGISTER, register, offset))


def _by_base_pointer(body: bytes) -> VariableSymbol:
    offset, index = unpack(struct.Struct("<4xiI"), body, 0)
    return _whole(string(body, 12)[0], index, Location(LocationKind.BY_FRAME_POINTER, offset=offset))


def _in_register(body: bytes) -> VariableSymbol:
    index, register = unpack(struct.Struct("<4xIH"), body, 0)
    return _whole(string(body, 10)[0], index, Location(LocationKind.REGISTER, register))


def _static(body: bytes) -> VariableSymbol:
    index, offset, section = unpack(struct.Struct("<4xIIH"), body, 0)
    location = Location(LocationKind.STATIC, offset=offset, section=section)
    return replace(_whole(string(body, 14)[0], index, location), is_parameter=False)


def _of_thread(body: bytes) -> VariableSymbol:
    return replace(_static(body), locations=(Location(LocationKind.THREAD),))


def _constant(body: bytes) -> VariableSymbol:
    (index,) = unpack(struct.Struct("<4xI"), body, 0)
    value, at = number(body, 8)
    return VariableSymbol(
        string(body, at)[0], index, is_parameter=False, locations=(Location(LocationKind.CONSTANT, offset=value),)
    )


def _local(body: bytes) -> VariableSymbol:
    index, flags = unpack(struct.Struct("<4xIH"), body, 0)
    is_gone = bool(flags & 0x100)
    return VariableSymbol(string(body, 10)[0], index, bool(flags & 1), is_optimised_out=is_gone, has_ranges=True)


def _file_static(body: bytes) -> VariableSymbol:
    (index,) = unpack(struct.Struct("<4xI"), body, 0)
    return VariableSymbol(string(body, 14)[0], index, is_parameter=False, has_ranges=True)


def _whole(name: str, index: int, location: Location) -> VariableSymbol:
    return VariableSymbol(name, index, locations=(location,))


_VARIABLES: dict[int, Callable[[bytes], VariableSymbol]] = {
    0x1106: _in_register,
    0x1107: _constant,
    0x110B: _by_base_pointer,
    0x110C: _static,
    0x110D: _static,
    0x1111: _by_register,
    0x1112: _of_thread,
    0x1113: _of_thread,
    _LOCAL: _local,
    _FILE_STATIC: _file_static,
}


# Readers of places with ranges of code.


def _range_register(body: bytes) -> Location:
    (register,) = unpack(struct.Struct("<4xH"), body, 0)
    return Location(LocationKind.REGISTER, register, extent=_extent(body, 8))


def _range_part_in_register(body: bytes) -> Location:
    register, part = unpack(struct.Struct("<4xHxxI"), body, 0)
    return Location(LocationKind.REGISTER, register, part=part & 0xFFF, extent=_extent(body, 12))


def _range_frame(body: bytes) -> Location:
    (offset,) = unpack(struct.Struct("<4xi"), body, 0)
    return Location(LocationKind.BY_FRAME, offset=offset, extent=_extent(body, 8))


def _whole_frame(body: bytes) -> Location:
    (offset,) = unpack(struct.Struct("<4xi"), body, 0)
    return Location(LocationKind.BY_FRAME, offset=offset)


def _range_by_register(body: bytes) -> Location:
    register, flags, offset = unpack(struct.Struct("<4xHHi"), body, 0)
    part = flags >> 4 if flags & 1 else None
    return Location(LocationKind.BY_REGISTER, register, offset, part=part, extent=_extent(body, 12))


def _unknown_range(body: bytes) -> Location:  # noqa: ARG001 where its range is depends on the kind
    return Location(LocationKind.UNKNOWN)


def _extent(body: bytes, at: int) -> CodeExtent:
    begin, section, size = unpack(struct.Struct("<IHH"), body, at)
    gaps = []
    for gap in range(at + 8, min(len(body) - 3, at + 8 + 4 * _MAX_GAPS), 4):
        start, length = unpack(struct.Struct("<HH"), body, gap)
        gaps.append((begin + start, begin + start + length))
    return CodeExtent(section, begin, begin + size, tuple(gaps))


_RANGES: dict[int, Callable[[bytes], Location]] = {
    0x113F: _unknown_range,
    0x1140: _unknown_range,
    0x1141: _range_register,
    0x1142: _range_frame,
    0x1143: _range_part_in_register,
    0x1144: _whole_frame,
    0x1145: _range_by_register,
    0x1177: _unknown_range,
}
