# SPDX-License-Identifier: Apache-2.0
"""The variables of a function as its module's symbols describe them, whole and damaged."""

from __future__ import annotations

import struct

from tests.support.pdb_functions import written
from tests.support.pdb_model import (
    X64,
    Block,
    Constant,
    FrameInfo,
    Inline,
    Local,
    Place,
    Procedure,
    Register,
    Static,
    Variable,
)
from tests.support.pdb_types import cv_record
from throwstack.pdb.variable_model import CodeExtent, FunctionSymbol, Location, LocationKind, Scope, ScopeKind
from throwstack.pdb.variable_symbols import function_symbol

RVA, START = 0x1100, 0x100
"""Where the function is: its RVA, and its offset in the section, which begins at 0x1000."""


def function(tmp_path, *items, **more) -> FunctionSymbol:
    read = written(tmp_path, Procedure("f", RVA, 0x40, parameters=(), items=items, **more))
    return read.functions()["f"]


def only_location(tmp_path, item) -> Location:
    (variable,) = function(tmp_path, item).scope.variables
    (location,) = variable.locations
    return location


def test_unoptimised_variables_have_one_place_for_the_whole_function(tmp_path):
    assert only_location(tmp_path, Variable("a", "int", 8)) == Location(LocationKind.BY_FRAME_POINTER, offset=8)
    by_register = Location(LocationKind.BY_REGISTER, Register.EBX, -4)
    assert only_location(tmp_path, Variable("a", "int", -4, Register.EBX)) == by_register
    assert only_location(tmp_path, Variable("a", "int", None, Register.ESI)).kind is LocationKind.REGISTER


def test_optimised_variables_have_places_with_the_code_for_which_they_hold(tmp_path):
    place = Place(0x10, 0x20, Register.ESI, gaps=((4, 2),))
    location = only_location(tmp_path, Local("a", "int", (place,)))
    extent = CodeExtent(1, START + 0x10, START + 0x20, ((START + 0x14, START + 0x16),))
    assert location == Location(LocationKind.REGISTER, Register.ESI, extent=extent)
    held = [
        offset for offset in (0xF, 0x10, 0x13, 0x14, 0x15, 0x16, 0x1F, 0x20) if location.holds_at(1, START + offset)
    ]
    assert held == [0x10, 0x13, 0x16, 0x1F]
    assert not location.holds_at(2, START + 0x10)


def test_parts_of_a_variable_say_where_they_belong(tmp_path):
    in_register = only_location(tmp_path, Local("p", "int", (Place(0, 8, Register.ESI, part=4),)))
    in_memory = only_location(tmp_path, Local("p", "int", (Place(0, 8, Register.EBP, -8, part=8),)))
    assert (in_register.kind, in_register.part) == (LocationKind.REGISTER, 4)
    assert (in_memory.kind, in_memory.part, in_memory.offset) == (LocationKind.BY_REGISTER, 8, -8)


def test_constants_and_statics(tmp_path):
    assert only_location(tmp_path, Constant("c", "int", -70000)).offset == -70000
    static = only_location(tmp_path, Static("s", "int", 0x1234))
    assert (static.kind, static.section, static.offset) == (LocationKind.STATIC, 1, 0x234)


def test_flags_of_the_function(tmp_path):
    found = function(tmp_path, FrameInfo(local_base=1, parameter_base=2, is_optimised=True), has_fp=True)
    assert (found.base(of_parameter=False), found.base(of_parameter=True)) == (1, 2)
    assert found.is_optimised
    assert found.has_frame_pointer


def test_blocks_and_inlined_functions_have_variables_of_their_own(tmp_path):
    inner = Inline("g", "a.h", 5, [(4, 8, 5)], items=(Variable("in_g", "int", 4),))
    block = Block(8, 16, (Variable("in_block", "int", -4),))
    found = function(tmp_path, Variable("in_f", "int", 8), block, inlines=[inner])
    assert [variable.name for variable in found.scope.variables] == ["in_f"]
    names = {scope.kind: [variable.name for variable in scope.variables] for scope in found.scope.scopes}
    assert names == {ScopeKind.BLOCK: ["in_block"], ScopeKind.INLINED: ["in_g"]}
    (extent,) = (scope.extent for scope in found.scope.scopes if scope.kind is ScopeKind.BLOCK)
    assert extent == CodeExtent(1, START + 8, START + 24)


def test_a_variable_that_is_described_twice_is_there_once(tmp_path):
    """Visual C++ for x86: with its ranges, and once more after S_FRAMEPROC."""
    ranged = Local("n", "int", (Place(0, 8, Register.ESI),))
    found = function(tmp_path, ranged, FrameInfo(), Variable("n", "int", 8), Variable("other", "int", 12))
    assert [(variable.name, variable.has_ranges) for variable in found.scope.variables] == [
        ("n", True),
        ("other", False),
    ]
    assert found.has_ranges


def test_a_static_variable_is_another_than_the_variable_of_that_name_in_a_block_or_an_inlined_function(tmp_path):
    ranged = Local("n", "int", (Place(0, 8, Register.ESI),))
    block, inlined = Block(8, 16, (ranged,)), Inline("g", r"d:\a.h", 10, [(0, 4, 11)], items=(ranged,))
    for more in (
        {"items": (Static("n", "int", 0x1234), block)},
        {"items": (Variable("n", "int", 8),), "inlines": [inlined]},
    ):
        read = written(tmp_path, Procedure("f", RVA, 0x40, parameters=(), **more))
        (variable,) = read.functions()["f"].scope.variables
        assert (variable.name, variable.has_ranges) == ("n", False)


def test_whether_variables_are_in_registers_is_known_of_the_whole_function(tmp_path):
    in_register, on_stack = Place(0, 8, Register.ESI), Place(0, 8, offset=-4)
    for place, has_registers in ((in_register, True), (on_stack, False)):
        block = Block(8, 16, (Local("n", "int", (place,)),))
        assert function(tmp_path, Local("m", "int", (on_stack,)), block).has_registers is has_registers


def test_what_the_compiler_adds_for_itself_is_no_variable(tmp_path):
    items = (Variable("__$ReturnUdt", "int*", 8), Variable("$T1", "int", -4), Variable("kept", "int", -8))
    assert [variable.name for variable in function(tmp_path, *items).scope.variables] == ["kept"]


def procedure(*records: bytes) -> bytes:
    """The records of a function of 16 bytes, up to its S_END."""
    head = struct.pack("<IIIIIIIIHB", 0, 0, 0, 16, 0, 16, 0x1000, START, 1, 0)
    return cv_record(0x1110, head + b"f\0") + b"".join(records)


def test_a_place_without_a_variable_is_left_out():
    found = function_symbol(procedure(cv_record(0x1144, struct.pack("<i", 8)), cv_record(0x1141, b"\0\0")))
    assert found is not None
    assert found.scope.variables == ()


def test_scopes_nested_without_end_are_cut_and_what_follows_is_read():
    opened = [cv_record(0x1103, struct.pack("<IIIIH", 0, 0, 1, START, 1) + b"\0")] * 1000
    closed = [cv_record(0x0006, b"")] * 1000
    after = cv_record(0x110B, struct.pack("<iI", 8, 0x74) + b"after\0")
    found = function_symbol(procedure(*opened, *closed, after))
    assert found is not None
    assert [variable.name for variable in found.scope.variables] == ["after"]
    assert _depth(found.scope) < 100


def _depth(scope: Scope) -> int:
    return 1 + max(map(_depth, scope.scopes), default=0)


def test_a_variable_has_a_limited_number_of_places():
    place = cv_record(0x1144, struct.pack("<i", 8))
    found = function_symbol(procedure(cv_record(0x113E, struct.pack("<IH", 0x74, 0) + b"n\0"), *[place] * 5000))
    assert found is not None
    assert len(found.scope.variables[0].locations) == 256


def test_a_record_that_ends_too_early_is_left_out():
    good = cv_record(0x110B, struct.pack("<iI", 8, 0x74) + b"good\0")
    found = function_symbol(procedure(struct.pack("<HHH", 4, 0x110B, 0), cv_record(0x1111, b"\0\0\0\0"), good))
    assert found is not None
    assert [variable.name for variable in found.scope.variables] == ["good"]


def test_something_else_than_a_function_gives_nothing():
    assert function_symbol(b"") is None
    assert function_symbol(cv_record(0x110B, bytes(16))) is None
    assert function_symbol(struct.pack("<HH", 6, 0x1110) + bytes(4)) is None


def test_x64_variables_have_the_numbers_of_x64(tmp_path):
    read = written(tmp_path, Procedure("f", RVA, 64, items=(Variable("a", "int", 8, Register.RSP),)), machine=X64)
    (variable,) = read.functions()["f"].scope.variables
    assert variable.locations[0].register == Register.RSP
