# SPDX-License-Identifier: Apache-2.0
"""The functions of a module, from the records that a compiler and a linker write."""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.held_stream import HeldStream
from tests.support.pdb_types import cv_record
from throwstack.pdb.module_symbols import CodeKind, CodeSymbol, ModuleSymbols

END = cv_record(0x0006, b"")


class Records:
    """Builds the symbols of a module."""

    def __init__(self) -> None:
        self.data = bytearray(struct.pack("<I", 4))

    def function(self, name: str, offset: int, size: int, inside: bytes = b"", kind: int = 0x1110) -> Records:
        head = struct.pack("<IIIIIHB", size, 0, size, 0x1003, offset, 1, 0)
        return self._scope(kind, struct.pack("<I", 0), head + name.encode() + b"\0", inside)

    def part(self, offset: int, size: int, of: int) -> Records:
        return self._scope(0x1132, b"", struct.pack("<IIIIHH", size, 1, offset, of, 1, 1), b"")

    def thunk(self, name: str, offset: int, size: int) -> Records:
        return self._scope(
            0x1102, struct.pack("<I", 0), struct.pack("<IHHB", offset, 1, size, 0) + name.encode() + b"\0", b""
        )

    def trampoline(self, offset: int, target: int) -> Records:
        self.data += cv_record(0x112C, struct.pack("<HHIIHH", 0, 5, offset, target, 1, 1))
        return self

    def other(self, kind: int = 0x1108, size: int = 20) -> Records:
        self.data += cv_record(kind, b"x" * size)
        return self

    def _scope(self, kind: int, following: bytes, data: bytes, inside: bytes) -> Records:
        record = cv_record(kind, struct.pack("<II", 0, 0) + following + data)
        end = len(self.data) + len(record) + len(inside)
        self.data += record[:8] + struct.pack("<I", end) + record[12:] + inside + END
        return self

    def read(self) -> ModuleSymbols:
        return ModuleSymbols(HeldStream(bytes(self.data)), len(self.data))


def names(found: tuple[CodeSymbol, ...] | CodeSymbol | None) -> list[str]:
    listed = found if isinstance(found, tuple) else () if found is None else (found,)
    return [symbol.name for symbol in listed]


def test_functions_are_found_by_address():
    symbols = Records().other().function("f", 0x100, 0x20).other().function("g", 0x140, 0x10, kind=0x110F).read()
    assert names(symbols.covering(1, 0x11F)) == ["f"]
    assert symbols.covering(1, 0x120) is None
    assert names(symbols.covering(1, 0x140)) == ["g"]
    assert symbols.covering(2, 0x100) is None
    assert names(symbols.last_before(1, 0x130)) == ["f"]
    assert symbols.last_before(1, 0xFF) is None


def test_what_a_record_says():
    symbol = Records().function("A::f", 0x100, 0x20, inside=cv_record(0x1012, bytes(26))).read().covering(1, 0x100)
    assert (symbol.kind, symbol.name, symbol.type, symbol.has_id) == (CodeKind.FUNCTION, "A::f", 0x1003, False)
    assert (symbol.section, symbol.offset, symbol.size, symbol.position) == (1, 0x100, 0x20, 4)


def test_the_records_of_a_function():
    inside = cv_record(0x1012, bytes(26))
    symbols = Records().other().function("f", 0x100, 0x20, inside).function("g", 0x120, 0x20).read()
    body = symbols.body(symbols.covering(1, 0x100))
    assert body.endswith(inside)
    assert body[2:4] == b"\x10\x11"


def test_what_is_inside_a_function_is_not_listed():
    """Records of a function inside another one cannot be: such bytes are its variables."""
    inner = Records().function("inner", 0x500, 0x20).data[4:]
    symbols = Records().function("f", 0x100, 0x20, bytes(inner)).function("g", 0x120, 0x20).read()
    assert symbols.covering(1, 0x500) is None
    assert names(symbols.covering(1, 0x120)) == ["g"]


def test_a_part_leads_to_its_function():
    part = Records().function("f", 0x100, 0x20).part(0x800, 0x10, of=0x100).read().covering(1, 0x808)
    assert (part.kind, part.target) == (CodeKind.PART, (1, 0x100))


def test_thunks_and_trampolines():
    symbols = Records().thunk("__imp_load_f", 0x300, 6).trampoline(0x0A, 0x100).trampoline(0x05, 0x200).read()
    assert (symbols.covering(1, 0x305).kind, names(symbols.covering(1, 0x305))) == (CodeKind.THUNK, ["__imp_load_f"])
    assert (symbols.covering(1, 0x0E).kind, symbols.covering(1, 0x0E).target) == (CodeKind.TRAMPOLINE, (1, 0x100))
    assert symbols.first_trampoline == 5


def test_folded_functions_of_one_module():
    symbols = Records().function("twin_b", 0x100, 0x20).function("twin_a", 0x100, 0x20).read()
    assert names(symbols.covering(1, 0x110)) == ["twin_b"]
    assert names(symbols.starting_at(1, 0x100)) == ["twin_b", "twin_a"]


def test_names_longer_than_one_read():
    name = "A<" + "int," * 400 + "int>::f"
    assert names(Records().function(name, 0x100, 0x20).read().covering(1, 0x100)) == [name]


def test_a_large_module_is_read_piece_by_piece_and_keeps_addresses_only():
    records = Records()
    for index in range(20_000):
        records.function(f"function_number_{index}", 0x1000 + 16 * index, 16)
    symbols = records.read()
    assert len(records.data) > 1 << 20
    assert max(size for _, size in symbols._stream.reads) <= 1 << 18
    assert symbols.kept_bytes < 20 * 20_000
    assert names(symbols.covering(1, 0x1000 + 16 * 12_345 + 3)) == ["function_number_12345"]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6), st.integers(0, 400))
def test_damage_raises_nothing(changes, size):
    records = Records().function("f", 0x100, 0x20, cv_record(0x1012, bytes(26))).part(0x800, 0x10, 0x100)
    data = records.thunk("t", 0x300, 6).trampoline(5, 0x100).function("g", 0x120, 0x20).data
    for at, value in changes:
        if at < len(data):
            data[at] = value
    symbols = ModuleSymbols(HeldStream(bytes(data)), min(size, len(data)))
    for offset in (0x100, 0x120, 0x300, 0x805, 5):
        found = symbols.covering(1, offset)
        if found is not None:
            symbols.body(found)
        symbols.starting_at(1, offset)
        symbols.last_before(1, offset)
