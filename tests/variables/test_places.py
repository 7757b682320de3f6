# SPDX-License-Identifier: Apache-2.0
"""Variables in several parts, and `this` that points into its object."""

from __future__ import annotations

import pytest

from tests.support.described_frames import FUNCTION, described
from tests.support.pdb_model import X64, X86, FrameInfo, FrameRecord, Inline, Local, Member, Place, Register, Structure
from tests.support.pdb_model import Variable as Unoptimised
from throwstack.variables.frame_values import frame_variables

STACK = 0x20000


def words(*values: int, size: int = 4) -> bytes:
    return b"".join(value.to_bytes(size, "little") for value in values)


LOW, HIGH = Place(0, 0x10, Register.ESI, part=0), Place(0, 0x10, Register.EDI, part=4)
STORED_LOW, STORED_HIGH = Place(0x10, 0x40, Register.EBP, -32, part=0), Place(0x10, 0x30, Register.EBP, -20, part=4)


@pytest.mark.parametrize(("type_", "text"), [("__int64", "4294967298 (0x100000002)"), ("Pair", "{x=2, y=1}")])
def test_the_halves_of_a_variable_are_put_together_wherever_they_are(tmp_path, type_, text):
    """A `long long` of 32-bit code, first in two registers, then on the stack at places that are not neighbours."""
    pair = Structure(8, (Member("x", "int", 0), Member("y", "int", 4)))
    items = FrameInfo(local_base=2), Local("v", type_, (LOW, HIGH, STORED_LOW, STORED_HIGH))
    memory = {STACK - 32: words(2, 0xDEADBEEF, 0, 1)}
    it = described(tmp_path, *items, memory=memory, types={"Pair": pair})
    in_registers = it.variables(it.frame(0x8, esi=2, edi=1))["v"]
    on_the_stack = it.variables(it.frame(0x20, ebp=STACK, slot=STACK + 4))["v"]
    assert (in_registers.text, in_registers.source) == (text, "esi, edi")
    assert (on_the_stack.text, on_the_stack.source) == (text, "[ebp-0x20], [ebp-0x14]")


def test_half_of_an_integer_is_not_shown(tmp_path):
    """Its other half has no place any more, or never had one that the PDB names."""
    items = (Local("v", "__int64", (STORED_LOW, STORED_HIGH)), Local("w", "__int64", (STORED_LOW,)))
    it = described(tmp_path, *items, memory={STACK - 32: words(2, 0xDEADBEEF, 0, 1)})
    found = it.variables(it.frame(0x38, ebp=STACK, slot=STACK + 4))
    assert found["v"].reason == found["w"].reason == "only a part of it is at this address"


def test_a_structure_whose_name_has_several_definitions_is_not_shown(tmp_path):
    item = Structure(8, (Member("x", "int", 0),), others=(Structure(8, (Member("y", "int", 4),)),))
    holder = Structure(12, (Member("item", "struct Item", 0), Member("z", "int", 8)))
    items = Unoptimised("item", "struct Item", 8), Unoptimised("holder", "Holder", 8)
    memory = {STACK: words(0, 0, 1, 2, 3)}
    it = described(tmp_path, *items, has_fp=True, memory=memory, types={"Item": item, "Holder": holder})
    found = it.variables(it.frame(ebp=STACK, slot=STACK + 4))
    assert found["item"].reason == "the symbols define its type in several ways"
    assert found["holder"].text == "{item={…}, z=3}"


def test_an_argument_whose_place_is_no_longer_given_is_not_shown_but_where_it_was_passed_is(tmp_path):
    """clang, without a frame pointer: the place by esp ends with the first push."""
    n, in_body = (
        Local(name, "int", (Place(0, 0x10, offset=at),), is_parameter=True) for name, at in (("n", 4), ("m", -8))
    )
    program = FrameRecord(FUNCTION, 0x40, "$T0 .raSearch = $eip $T0 ^ = $esp $T0 4 + =")
    items = FrameInfo(local_base=1, parameter_base=1), n, in_body
    it = described(tmp_path, *items, frame_data=[program], memory={STACK: words(0, 0, 0x400500, 77)})
    before, after = (it.variables(it.frame(at, slot=STACK + 8)) for at in (0x8, 0x20))
    assert (before["n"].text, after["n"].text) == ("77 (0x4d)", "")
    assert after["n"].reason == "not at this address; it was passed in [frame+0x4], which now has 0x4d"
    assert after["m"].reason == "not at this address"


@pytest.mark.parametrize(
    ("type_", "is_optimised", "is_elsewhere", "source"),
    [
        ("Pair", True, False, "[ebp+0x8], as passed"),
        ("Pair", True, True, "[ebp+0x8]"),
        ("Pair", False, False, "[ebp+0x8]"),
        ("int", True, False, "[ebp+0x8]"),
    ],
)
def test_a_structure_that_optimised_code_was_passed_may_have_changed(
    tmp_path, type_, is_optimised, is_elsewhere, source
):
    """clang for x86 keeps changed members in registers, and says nothing of them."""
    pair = Structure(8, (Member("x", "int", 0), Member("y", "int", 4)))
    places = Place(0, 0x30, offset=8), *[Place(0x30, 0x40, offset=-16)] * is_elsewhere
    info = FrameInfo(local_base=2, parameter_base=2, is_optimised=is_optimised)
    memory = {STACK: words(0, 0, 5, 6)}
    it = described(tmp_path, info, Local("p", type_, places, is_parameter=True), memory=memory, types={"Pair": pair})
    assert it.variables(it.frame(0x20, ebp=STACK, slot=STACK + 4))["p"].source == source


@pytest.mark.parametrize(("machine", "stored_by", "size"), [(X64, Register.RSP, 8), (X86, Register.EBP, 4)])
def test_this_of_an_overridden_function_of_a_second_base_class_points_into_the_object(
    tmp_path, machine, stored_by, size
):
    """`struct D : A, B` overrides a function of B, which is at 16: it is called with a `B *`, and `this` is a `D *`."""
    base = stored_by.name.lower()
    memory = {STACK + 0x38: words(0x30010, size=size)}
    for adjust, value in ((16, 0x30000), (0, 0x30010)):
        this = Unoptimised("this", "D*", 0x38, stored_by)
        it = described(tmp_path, this, machine=machine, memory=memory, this="D", this_adjust=adjust)
        found = it.variables(it.frame(**{base: STACK}), it.frame(slot=STACK - size))["this"]
        assert (found.value, found.source) == (value, f"[{base}+0x38]{'-0x10' if adjust else ''}")
        it.close()


def test_this_of_an_inlined_function_has_the_adjustment_of_that_function(tmp_path):
    this = Local("this", "D*", (Place(0, 0x40, Register.ESI),))
    inner = Inline("g", r"d:\a.h", 10, [(0x10, 0x20, 11)], items=(this,), this="D", this_adjust=4)
    it = described(tmp_path, inlines=[inner], lines=[(0, r"d:\a.c", 1)])
    (found,), _ = frame_variables(it.target, it.frame(0x18, esi=0x30004), None, 2, is_doubtful=False)
    assert (found.value, found.source) == (0x30000, "esi-0x4")


def test_this_of_a_function_without_a_type_is_not_shown(tmp_path):
    this = Local("this", "D*", (Place(0, 0x40, Register.ESI),))
    it = described(tmp_path, this, parameters=None)
    assert it.variables(it.frame(esi=0x30000))["this"].reason == "the type of its function is not in the symbols"
