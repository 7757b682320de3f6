# SPDX-License-Identifier: Apache-2.0
"""Values of the variables of a frame: where each kind of place leads, and what is not shown and why."""

from __future__ import annotations

import pytest

from tests.support.described_frames import BASE, FUNCTION, described
from tests.support.pdb_model import (
    X64,
    Block,
    Constant,
    FpoRecord,
    FrameInfo,
    FrameRecord,
    Inline,
    Local,
    Member,
    Place,
    Register,
    Static,
    Structure,
)
from tests.support.pdb_model import Variable as Unoptimised
from throwstack.core.frames import Frame, Trust
from throwstack.unwind.proven import Guesses
from throwstack.variables.frame_values import frame_variables

HR = Unoptimised("hr", "HRESULT", 8)
STACK = 0x20000
GENERAL = FrameInfo(local_base=1, parameter_base=1)


def words(*values: int, size: int = 4) -> bytes:
    return b"".join(value.to_bytes(size, "little") for value in values)


def by_ebp(distance):
    return Place(0, 0x40, Register.EBP, distance)


def in_register(name, type_, register, begin=0, end=0x40, **more):
    return Local(name, type_, (Place(begin, end, register),), **more)


def test_the_parameter_of_an_ordinary_x86_frame_is_above_the_return_address(tmp_path):
    """[ebp] is the caller's ebp, [ebp+4] the return address, [ebp+8] the argument."""
    it = described(
        tmp_path,
        HR,
        parameters=("HRESULT",),
        memory={STACK: words(0x20100, BASE, 0x80004003)},
        has_fp=True,
    )
    (hr,) = it.variables(it.frame(ebp=STACK, slot=STACK + 4)).values()
    assert (hr.type, hr.name, hr.text, hr.value) == ("HRESULT", "hr", "0x80004003 E_POINTER", 0x80004003)
    assert (hr.source, hr.reason, hr.is_parameter) == ("[ebp+0x8]", "", True)


@pytest.mark.parametrize(
    ("ebp", "is_base"), [(STACK, True), (STACK - 8, True), (STACK - 16, False), (STACK + 0x40, False), (5, False)]
)
def test_places_by_ebp_are_believed_where_ebp_leads_to_the_return_address(tmp_path, ebp, is_base):
    """clang builds the frame in the branch that needs it; elsewhere ebp is the caller's, also after `pop ebp`.

    Visual C++ copies the return address below an aligned frame: here it is at STACK + 4 and at STACK - 4.
    """
    items = FrameInfo(local_base=2), Local("n", "int", (Place(offset=-4),)), Local("p", "int", (by_ebp(-4),))
    memory = {STACK - 0x40: words(*(7,) * 15, BASE, 7, BASE, *(7,) * 32)}
    it = described(tmp_path, *items, memory=memory)
    found = it.variables(it.frame(ebp=ebp, slot=STACK + 4, esp=STACK - 0x40))
    n, p = (found[name].text or found[name].reason for name in "np")
    expected = {STACK: str(BASE), STACK - 8: "7"}.get(ebp, "ebp is not the base of the frame here")
    assert n == p
    assert (n if not is_base else n.split()[0]) == expected


def test_ebp_of_a_function_without_a_frame_pointer_is_a_register_like_others(tmp_path):
    items = FrameInfo(local_base=1), Local("n", "int", (by_ebp(8),))
    it = described(tmp_path, *items, memory={0x30008: words(7)})
    assert it.variables(it.frame(ebp=0x30000, slot=STACK + 4))["n"].text == "7"


def test_frame_data_that_lead_to_another_return_address_are_not_those_of_the_frame(tmp_path):
    """Of a function that builds its frame in a branch: in the other, `$ebp` of the program is the caller's."""
    program = "$T0 $ebp = $eip $T0 4 + ^ = $ebp $T0 ^ = $esp $T0 8 + ="
    item = Local("n", "int", (Place(0, 0x40, offset=8),))
    memory = {STACK: words(*(7,) * 64)}
    it = described(tmp_path, GENERAL, item, frame_data=[FrameRecord(FUNCTION, 0x40, program)], memory=memory)
    assert it.variables(it.frame(slot=STACK + 4, ebp=STACK))["n"].text == "7"
    found = it.variables(it.frame(slot=STACK + 4, ebp=STACK + 0x40))["n"]
    assert found.reason == "the frame data are not those of the frame here"


def test_ebp_that_is_not_the_base_of_the_frame_leads_nowhere(tmp_path):
    it = described(tmp_path, HR, memory={STACK: words(0, 0, 0x80004003)}, has_fp=True)
    for frame in (it.frame(ebp=STACK, slot=STACK + 8), it.frame(ebp=STACK), it.frame(slot=STACK + 4)):
        assert it.variables(frame)["hr"].reason == "ebp is not the base of the frame here"


@pytest.mark.parametrize(
    "record",
    [
        {"frame_data": [FrameRecord(FUNCTION, 0x40, "$T0 .raSearch = $eip $T0 ^ = $esp $T0 4 + =")]},
        {"fpo": [FpoRecord(FUNCTION, 0x40)]},
    ],
)
def test_without_a_frame_pointer_parameters_count_from_the_return_address(tmp_path, record):
    """The functions of the reference crash are so: its compiler left out the frame pointer wherever it could."""
    hr = Unoptimised("hr", "HRESULT", 4)
    it = described(tmp_path, hr, parameters=("HRESULT",), memory={STACK: words(BASE, 0x80004003)}, **record)
    found = it.variables(it.frame(slot=STACK, ebp=0x1234))["hr"]
    assert (found.text, found.source, found.is_parameter) == ("0x80004003 E_POINTER", "[frame+0x4]", True)


def test_before_the_frame_pointer_is_set_nothing_counts_from_it(tmp_path):
    entry = FrameRecord(FUNCTION, 1, "$T0 .raSearch = $eip $T0 ^ = $esp $T0 4 + =")
    it = described(tmp_path, HR, frame_data=[entry], has_fp=True, memory={STACK: words(BASE, 0, 0x80004003)})
    found = it.variables(it.frame(0, slot=STACK, is_interrupted=True))["hr"]
    assert found.reason == "the function was still being entered"


def test_memory_that_is_not_in_the_dump_is_said_to_be_absent(tmp_path):
    it = described(tmp_path, HR, has_fp=True)
    assert it.variables(it.frame(ebp=STACK, slot=STACK + 4))["hr"].reason == "memory at 0x20008 is not readable"


def test_a_preserved_register_holds_a_variable_across_a_call_and_another_does_not(tmp_path):
    items = (in_register("kept", "int", Register.ESI), in_register("lost", "int", Register.ECX))
    it = described(tmp_path, *items)
    called = it.variables(it.frame(esi=7, ecx=8))
    assert (called["kept"].text, called["kept"].source) == ("7", "esi")
    assert called["lost"].reason == "was in ecx, which the called function may have changed"
    stopped = it.variables(it.frame(esi=7, ecx=8, is_interrupted=True))
    assert stopped["lost"].text == "8"


def test_a_register_that_the_walk_does_not_know_is_not_guessed(tmp_path):
    it = described(tmp_path, in_register("kept", "int", Register.ESI))
    assert it.variables(it.frame())["kept"].reason == "in esi, which is not known here"


def test_the_place_is_that_of_the_call_and_not_of_the_return_address(tmp_path):
    """The call ends at 0x20: the return address is there, and the call itself is before."""
    it = described(tmp_path, Local("n", "int", (Place(0, 0x20, Register.ESI), Place(0x20, 0x40, Register.EDI))))
    assert it.variables(it.frame(0x20, esi=1, edi=2))["n"].text == "1"
    assert it.variables(it.frame(0x20, esi=1, edi=2, is_interrupted=True))["n"].text == "2"


def test_gaps_in_a_range_and_places_elsewhere_are_said(tmp_path):
    gone = Local("gone", "int", ())
    later = in_register("later", "int", Register.ESI, 0x30, 0x38)
    gap = Local("gap", "int", (Place(0, 0x40, Register.ESI, gaps=((0x18, 0x10),)),))
    it = described(tmp_path, gone, later, gap)
    found = it.variables(it.frame(0x20, esi=1))
    assert found["gone"].reason == "optimised out"
    assert found["later"].reason == found["gap"].reason == "not at this address"
    assert it.variables(it.frame(0x10, esi=1))["gap"].text == "1"


@pytest.mark.parametrize(
    ("base", "registers", "source"),
    [(1, {}, "[rsp+0x20]"), (2, {"rbp": STACK}, "[rbp+0x20]"), (3, {"r13": STACK}, "[r13+0x20]")],
)
def test_x64_frames_have_their_base_in_the_register_that_the_symbols_name(tmp_path, base, registers, source):
    item = Local("count", "__int64", (Place(0, 0x40, offset=0x20),))
    it = described(
        tmp_path, FrameInfo(local_base=base), item, machine=X64, memory={STACK + 0x20: words(1 << 40, size=8)}
    )
    found = it.variables(it.frame(rsp=STACK, **registers))["count"]
    assert (found.text, found.source) == ("1099511627776 (0x10000000000)", source)


def test_parameters_and_locals_may_have_different_bases(tmp_path):
    """A function that aligns its stack: parameters are reached by ebx, locals by ebp."""
    items = (
        FrameInfo(local_base=2, parameter_base=3),
        Local("parameter", "int", (Place(offset=8),), is_parameter=True),
        Local("local", "int", (Place(offset=-4),)),
    )
    memory = {STACK - 4: words(5), STACK + 0x108: words(6)}
    it = described(tmp_path, *items, memory=memory)
    found = it.variables(it.frame(ebp=STACK, ebx=STACK + 0x100, slot=STACK + 4))
    assert (found["parameter"].text, found["local"].text) == ("6", "5")


@pytest.mark.parametrize(
    ("program", "at"),
    [
        ("$T0 .raSearch = $eip $T0 ^ = $esp $T0 4 + =", STACK + 0x44),
        ("$T0 $ebp = $eip $T0 4 + ^ = $ebp $T0 ^ = $esp $T0 8 + =", STACK + 0x40),
        ("$T1 .raSearch = $T0 $T1 4 - 64 @ = $eip $T1 ^ = $esp $T1 4 + =", STACK + 0x40),
    ],
)
def test_the_virtual_frame_is_what_the_frame_data_program_makes_it(tmp_path, program, at):
    local = Local("n", "int", (Place(0, 0x40, offset=-8),))
    it = described(
        tmp_path,
        GENERAL,
        local,
        frame_data=[FrameRecord(FUNCTION, 0x40, program)],
        memory={STACK: bytes(at - 8 - STACK) + words(1234) + bytes(0x100)},
    )
    assert it.variables(it.frame(slot=STACK + 0x44, ebp=STACK + 0x40))["n"].text == "1234 (0x4d2)"


def test_without_frame_data_there_is_no_virtual_frame(tmp_path):
    it = described(tmp_path, GENERAL, Local("n", "int", (Place(0, 0x40, offset=-8),)), memory={STACK: bytes(0x40)})
    assert it.variables(it.frame(slot=STACK + 0x20))["n"].reason == "the symbols have no frame data for this code"


def test_a_distance_from_esp_counts_from_before_the_call(tmp_path):
    """The callee has removed its two arguments, so that esp after the return is 8 higher than at the call."""
    item = Local("n", "int", (Place(0, 0x40, Register.ESP, 0x10),))
    it = described(tmp_path, item, memory={STACK + 0x10: words(9)})
    inner = it.frame(slot=STACK - 4, is_interrupted=True)
    frame = it.frame(esp=STACK + 8)
    assert it.variables(frame, inner)["n"].text == "9"
    assert it.variables(frame)["n"].reason == "the stack pointer before the call is not known"


def test_nothing_is_shown_of_a_frame_in_doubt(tmp_path):
    it = described(tmp_path, HR, memory={STACK: words(0, 0, 0x80004003)}, has_fp=True)
    found = it.variables(it.frame(ebp=STACK, slot=STACK + 4), is_doubtful=True)
    assert (found["hr"].text, found["hr"].reason) == ("", "the frame is a guess")


def test_frames_are_in_doubt_from_a_guess_up_to_the_next_saved_context(tmp_path):
    it = described(tmp_path)
    guesses = Guesses(it.target)
    walk = [it.frame(trust=trust) for trust in (Trust.CONTEXT, Trust.CFI, Trust.SCAN, Trust.CFI, Trust.CONTEXT)]
    inner: list[Frame | None] = [None, *walk[:-1]]
    assert [guesses.is_in_doubt(*pair) for pair in zip(walk, inner, strict=True)] == [False, False, True, True, False]


def test_code_that_is_still_in_its_prologue_has_not_stored_its_variables(tmp_path):
    it = described(
        tmp_path,
        HR,
        frame_data=[FrameRecord(FUNCTION, 0x40, "$T0 $ebp =", prologue=5)],
        memory={STACK: words(0, 0, 0x80004003)},
    )
    here = {"ebp": STACK, "slot": STACK + 4, "is_interrupted": True}
    assert it.variables(it.frame(3, **here))["hr"].reason == "the function was still being entered"
    assert it.variables(it.frame(5, **here))["hr"].text == "0x80004003 E_POINTER"


@pytest.mark.parametrize("code", [b"\xc3", b"\x5b\x41\x5c\xc3", b"\xf3\xc3", b"\xc2\x08\x00"])
def test_code_that_faults_on_its_return_has_left_its_frame(tmp_path, code):
    """The return address was overwritten: `ret` faults on x64, with the stack pointer at the return address."""
    it = described(
        tmp_path,
        FrameInfo(local_base=1),
        Local("n", "int", (Place(0, 0x40, offset=8),)),
        machine=X64,
        memory={BASE + FUNCTION + 0x20: bytes(16) + code + bytes(16), STACK: words(1, 2, 3)},
    )
    assert it.variables(it.frame(0x30, is_interrupted=True))["n"].reason == "the function was already being left"
    assert it.variables(it.frame(0x20, is_interrupted=True))["n"].text == "3"


def test_a_register_for_the_whole_of_a_function_is_not_believed(tmp_path):
    item = Unoptimised("this", "int*", register=Register.ESI)
    it = described(tmp_path, item)
    assert it.variables(it.frame(esi=0))["this"].reason == "in esi in a part of the function only"


def test_a_place_without_a_range_among_places_with_ranges_is_not_believed(tmp_path):
    items = (in_register("ranged", "int", Register.ESI), HR)
    it = described(tmp_path, *items, has_fp=True, memory={STACK: words(0, 0, 5)})
    found = it.variables(it.frame(ebp=STACK, slot=STACK + 4, esi=1))["hr"]
    assert found.reason == "the symbols do not say for which code its place holds"


@pytest.mark.parametrize(("speed", "details", "text"), [(False, False, "7"), (True, False, ""), (False, True, "")])
def test_a_constant_of_an_optimised_function_is_one_in_some_of_its_code_only(tmp_path, speed, details, text):
    """clang 19 unrolls a loop, and says S_CONSTANT for its counter: the value that it had in the first copy.

    Of a function that is optimised for size, the only sign is a flag that clang gives all functions.
    """
    items = FrameInfo(is_optimised=speed), Constant("i", "int", 7)
    it = described(tmp_path, *items, has_optimised_details=details)
    assert it.variables(it.frame())["i"].text == text


def test_a_static_local_is_in_its_section_of_the_image(tmp_path):
    it = described(tmp_path, Static("calls", "int", 0x3000), memory={BASE + 0x3000: words(42)})
    found = it.variables(it.frame())["calls"]
    assert (found.text, found.source, found.is_parameter) == ("42 (0x2a)", "in a section of the image", False)


def test_variables_of_a_block_are_there_only_inside_it(tmp_path):
    block = Block(0x10, 0x10, (in_register("inside", "int", Register.ESI),))
    it = described(tmp_path, block)
    assert "inside" in it.variables(it.frame(0x18, esi=1))
    assert "inside" not in it.variables(it.frame(0x28, esi=1))


def test_an_inlined_function_has_variables_of_its_own(tmp_path):
    inner = Inline("inner", r"d:\a.h", 10, [(0x10, 0x10, 11)], items=(in_register("x", "int", Register.ESI),))
    it = described(tmp_path, in_register("y", "int", Register.EDI), inlines=[inner], lines=[(0, r"d:\a.c", 1)])
    frame = it.frame(0x18, esi=1, edi=2)
    inlined, whole = frame_variables(it.target, frame, None, 2, is_doubtful=False)
    assert ([(v.name, v.text) for v in inlined], [(v.name, v.text) for v in whole]) == ([("x", "1")], [("y", "2")])
    assert len(frame_variables(it.target, it.frame(0x28), None, 1, is_doubtful=False)) == 1


def test_a_structure_of_which_only_parts_are_known_has_question_marks(tmp_path):
    point = Structure(8, (Member("x", "int", 0), Member("y", "int", 4)))
    item = Local("p", "Point", (Place(0, 0x40, Register.ESI, part=4),))
    it = described(tmp_path, item, types={"Point": point})
    assert it.variables(it.frame(esi=5))["p"].text == "{x=?, y=5}"


def test_a_variable_that_is_wider_than_its_register_is_not_shown(tmp_path):
    it = described(tmp_path, in_register("wide", "__int64", Register.ESI))
    assert it.variables(it.frame(esi=5))["wide"].reason == "only a part of it is in esi"


def test_where_a_register_had_only_a_part_of_a_variable_so_has_the_place_on_the_stack(tmp_path):
    """clang for x86 keeps the lower half of an `__int64` if nothing reads the other: in edx, and where edx is stored.

    The whole of it is where the caller has put it.
    """
    passed, kept, stored = Place(0, 0x10, offset=8), Place(0x10, 0x20, Register.EDX), Place(0x20, 0x40, offset=-0x20)
    items = FrameInfo(local_base=2, parameter_base=2), Local("n", "__int64", (passed, kept, stored), is_parameter=True)
    it = described(tmp_path, *items, memory={STACK - 0x20: words(5, 6), STACK + 8: words(7, 0)})
    at_begin, later = (it.variables(it.frame(at, ebp=STACK, slot=STACK + 4))["n"] for at in (0x8, 0x30))
    assert (at_begin.text, later.reason) == ("7", "only a part of it is at this address")


def test_at_most_64_variables_of_a_function_are_shown_and_the_others_are_counted(tmp_path):
    it = described(tmp_path, *(in_register(f"v{n}", "int", Register.ESI) for n in range(75)))
    (found,) = frame_variables(it.target, it.frame(esi=1), None, 1, is_doubtful=False)
    assert (len(found.variables), found.left_out) == (64, 11)


def test_a_parameter_without_a_name_is_said_to_have_none(tmp_path):
    """C++ allows `int f(int)` with a body. clang describes the parameter all the same."""
    it = described(tmp_path, in_register("", "int", Register.ESI))
    assert it.variables(it.frame(esi=1))["<unnamed>"].text == "1"


def test_a_static_local_is_there_beside_a_variable_of_its_name_in_a_block(tmp_path):
    block = Block(0x10, 0x10, (in_register("st", "int", Register.ESI),))
    it = described(tmp_path, Static("st", "int", 0x3000), block, memory={BASE + 0x3000: words(42)})
    (found,) = frame_variables(it.target, it.frame(0x18, esi=1), None, 1, is_doubtful=False)
    assert [(one.name, one.text) for one in found] == [("st", "42 (0x2a)"), ("st", "1")]


def test_names_are_escaped(tmp_path):
    it = described(tmp_path, in_register("a\x1b[2J\u202eb", "int", Register.ESI))
    (name,) = it.variables(it.frame(esi=1))
    assert name == r"a\x1b[2J\u202eb"
