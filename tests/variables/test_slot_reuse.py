# SPDX-License-Identifier: Apache-2.0
"""Places on the stack that the compiler gave to something else, though the PDB does not say so."""

from __future__ import annotations

import pytest

from tests.support.described_frames import BASE, FUNCTION, described
from tests.support.pdb_model import X64, X86, FrameInfo, FrameRecord, Local, Member, Place, Register, Structure

STACK = 0x20000
REUSED = "its place was stored to again, maybe for something else"
ARGUMENT = "$T0 .raSearch = $eip $T0 ^ = $esp $T0 4 + ="


def function(stores: dict[int, bytes]) -> bytes:
    """A function of 0x40 bytes that does nothing but these instructions, by their offsets."""
    code = bytearray(b"\x90" * 0x40)
    for at, instruction in stores.items():
        code[at : at + len(instruction)] = instruction
    return bytes(code)


def text_of(it, name="n", at=0x30, **registers):
    """What is shown of a variable of a frame whose next instruction is at the offset `at`, or why nothing is."""
    found = it.variables(it.frame(at, **registers))[name]
    return found.text or found.reason


EBP_BYTE, EBP_WORD = b"\x88\x55\xf0", b"\x89\x4d\xf0"  # mov [ebp-10h], dl; mov [ebp-10h], ecx
EBP_OTHER, EBP_READ = b"\x89\x4d\xec", b"\x8b\x4d\xf0"  # mov [ebp-14h], ecx; mov ecx, [ebp-10h]
EBP_WIDE = b"\xdd\x5d\xec"  # fstp qword ptr [ebp-14h]
FRAME = {"ebp": STACK, "slot": STACK + 4}


@pytest.mark.parametrize(
    ("later", "is_reused"), [(EBP_WORD, True), (EBP_WIDE, True), (EBP_OTHER, False), (EBP_READ, False), (b"", False)]
)
def test_a_spilled_variable_whose_place_is_stored_to_again_is_not_shown(tmp_path, later, is_reused):
    item = Local("flag", "unsigned char", (Place(0, 0xC, Register.EDX), Place(0xC, 0x40, offset=-0x10)))
    code = function({0x0: b"\x89\x44\x0d\xf0", 0x9: EBP_BYTE, 0x20: later})  # mov [ebp+ecx-10h], eax
    memory = {BASE + FUNCTION: code, STACK - 0x10: b"\x05"}
    it = described(tmp_path, FrameInfo(local_base=2), item, memory=memory)
    assert text_of(it, "flag", **FRAME) == (REUSED if is_reused else "5")


@pytest.mark.parametrize(
    ("jump", "is_reused"),
    [
        (b"", False),
        (b"\x75\xf0", False),  # at 0x28: jnz 0x1a, which is after the frame's place
        (b"\x75\xe0", True),  # jnz 0xa: the store may have been executed in the turn before
        (b"\xff\x24\x85\x00\x10\x40\x00", True),  # jmp table[eax*4]: to anywhere
        (b"\xff\xe0", False),  # jmp eax: to another function
    ],
)
def test_a_store_that_is_still_to_come_changes_nothing_but_in_a_loop(tmp_path, jump, is_reused):
    item = Local("flag", "unsigned char", (Place(0, 0xC, Register.EDX), Place(0xC, 0x40, offset=-0x10)))
    code = function({0x9: EBP_BYTE, 0x20: EBP_WORD, 0x28: jump})
    memory = {BASE + FUNCTION: code, STACK - 0x10: b"\x05"}
    it = described(tmp_path, FrameInfo(local_base=2), item, memory=memory)
    assert text_of(it, "flag", 0x18, **FRAME) == (REUSED if is_reused else "5")


@pytest.mark.parametrize(("handles", "shown"), [(False, "5"), (True, REUSED)])
def test_a_handler_may_run_after_code_that_comes_later(tmp_path, handles, shown):
    item = Local("flag", "unsigned char", (Place(0, 0xC, Register.EDX), Place(0xC, 0x40, offset=-0x10)))
    memory = {BASE + FUNCTION: function({0x9: EBP_BYTE, 0x20: EBP_WORD}), STACK - 0x10: b"\x05"}
    it = described(tmp_path, FrameInfo(local_base=2, has_handlers=handles), item, memory=memory)
    assert text_of(it, "flag", 0x18, **FRAME) == shown


@pytest.mark.parametrize(("later", "shown"), [(EBP_WORD, "{x=?, y=6}"), (EBP_OTHER, "{x=5, y=6}")])
def test_a_part_that_was_stored_before_its_range_begins_is_looked_after_too(tmp_path, later, shown):
    """clang: an inlined parameter is said to be at [ebp-10h] from a place on where no store is."""
    pair = Structure(8, (Member("x", "int", 0), Member("y", "int", 4)))
    parts = Place(0x10, 0x40, Register.EBP, -0x10, part=0), Place(0x10, 0x40, Register.ESI, part=4)
    memory = {BASE + FUNCTION: function({0x4: EBP_WORD, 0x20: later}), STACK - 0x10: b"\x05\0\0\0"}
    it = described(tmp_path, FrameInfo(local_base=2), Local("p", "Pair", parts), memory=memory, types={"Pair": pair})
    assert text_of(it, "p", esi=6, **FRAME) == shown


def test_on_x64_such_a_part_is_believed(tmp_path):
    pair = Structure(8, (Member("x", "int", 0), Member("y", "int", 4)))
    parts = Place(0x10, 0x40, Register.RSP, 0x20, part=0), Place(0x10, 0x40, Register.RSI, part=4)
    code = function({0x4: b"\x89\x44\x24\x20", 0x20: b"\x89\x44\x24\x20"})  # mov [rsp+20h], eax
    memory = {BASE + FUNCTION: code, STACK + 0x20: b"\x05\0\0\0"}
    info, item = FrameInfo(local_base=1, is_optimised=True), Local("p", "Pair", parts)
    it = described(tmp_path, info, item, machine=X64, memory=memory, types={"Pair": pair})
    assert text_of(it, "p", rsp=STACK, rsi=6) == "{x=5, y=6}"


def test_a_variable_that_lives_on_the_stack_may_be_stored_to(tmp_path):
    """Its place holds from the end of the prologue on, and no store is there."""
    item = Local("n", "int", (Place(0x4, 0x40, offset=-0x10),))
    memory = {BASE + FUNCTION: function({0x9: EBP_WORD, 0x20: EBP_WORD}), STACK - 0x10: b"\x05"}
    it = described(tmp_path, FrameInfo(local_base=2, is_optimised=True), item, memory=memory)
    assert text_of(it, **FRAME) == "5"


@pytest.mark.parametrize(("is_optimised", "shown"), [(False, "5"), (True, REUSED)])
@pytest.mark.parametrize("store", [b"\x89\x45\xf0", b"\xff\x45\xf0"])  # mov [ebp-10h], eax; inc dword ptr [ebp-10h]
def test_the_counter_of_a_loop_keeps_its_place_where_nothing_was_optimised(tmp_path, store, is_optimised, shown):
    """clang -O0: the place of `int i = 0` holds from the store of the 0 on."""
    item = Local("i", "int", (Place(0xC, 0x40, offset=-0x10),))
    memory = {BASE + FUNCTION: function({0x9: EBP_WORD, 0x20: store, 0x38: b"\x75\xd6"}), STACK - 0x10: b"\x05"}
    it = described(tmp_path, FrameInfo(local_base=2, is_optimised=is_optimised), item, memory=memory)
    assert text_of(it, "i", **FRAME) == shown


@pytest.mark.parametrize(("again", "is_reused"), [(b"\x48\x89\x5c\x24\x20", True), (b"\x48\x89\x5c\x24\x28", False)])
def test_a_spilled_variable_of_x64(tmp_path, again, is_reused):
    item = Local("n", "__int64", (Place(0x10, 0x40, offset=0x20),))
    code = function({0x0B: b"\x48\x89\x74\x24\x20", 0x20: again})  # mov [rsp+20h], rsi
    memory = {BASE + FUNCTION: code, STACK + 0x20: b"\x05"}
    it = described(tmp_path, FrameInfo(local_base=1, is_optimised=True), item, machine=X64, memory=memory)
    assert text_of(it, rsp=STACK) == (REUSED if is_reused else "5")


@pytest.mark.parametrize(("again", "is_reused"), [(b"\x89\x4c\x24\x04", True), (b"\x89\x4c\x24\x0c", False)])
def test_a_place_that_is_given_by_the_virtual_frame_is_that_of_the_store_beside_it(tmp_path, again, is_reused):
    item = Local("n", "int", (Place(0x10, 0x40, offset=-0x10),))
    code = function({0x0C: b"\x89\x74\x24\x04", 0x20: again})  # mov [esp+4], esi
    program = FrameRecord(FUNCTION, 0x40, ARGUMENT)
    memory = {BASE + FUNCTION: code, STACK - 0x10: b"\x05", STACK: bytes(4)}
    info = FrameInfo(local_base=1, is_optimised=True)
    it = described(tmp_path, info, item, machine=X86, memory=memory, frame_data=[program])
    assert text_of(it, slot=STACK) == (REUSED if is_reused else "5")


def test_a_structure_that_is_passed_by_reference_may_be_stored_to(tmp_path):
    """It is in the caller's frame, above the return address; nothing else is stored there."""
    item = Local("s", "__int64", (Place(0, 0x40, Register.RSI, 0),), is_parameter=True)
    memory = {BASE + FUNCTION: function({0x20: b"\x89\x06"}), STACK + 0x80: b"\x05"}  # mov [rsi], eax
    it = described(tmp_path, FrameInfo(is_optimised=True), item, machine=X64, memory=memory)
    assert text_of(it, "s", rsp=STACK, rsi=STACK + 0x80, slot=STACK + 0x28) == "5"


X64_ENTRY = b"\x48\x83\xec\x28"  # sub rsp, 28h
X86_ENTRY = b"\x56\x83\xec\x14"  # push esi; sub esp, 14h: the return address is at [esp+18h]


@pytest.mark.parametrize(
    ("store", "is_reused"),
    [
        (b"\x89\x44\x24\x50", True),  # mov [rsp+50h], eax
        (b"\x89\x44\x24\x58", False),
        (b"\x89\x44\x24\x20", False),
    ],
)
def test_an_argument_of_x64_that_a_tail_call_has_overwritten_is_not_shown(tmp_path, store, is_reused):
    """`return next(a, b, c, e, d);` by a jump: the fifth argument of the called function is stored over the own one."""
    item = Local("d", "int", (Place(0, 0x40, offset=0x50),), is_parameter=True)
    code = function({0x0: X64_ENTRY, 0x20: store, 0x38: b"\x48\x83\xc4\x28\xe9\x00\x10\x00\x00"})
    memory = {BASE + FUNCTION: code[:0x40], STACK + 0x50: b"\x05\0\0\0"}
    info = FrameInfo(local_base=1, parameter_base=1, is_optimised=True)
    it = described(tmp_path, info, item, machine=X64, memory=memory)
    assert text_of(it, "d", 0x20, rsp=STACK, slot=STACK + 0x28) == "5"
    assert text_of(it, "d", 0x34, rsp=STACK, slot=STACK + 0x28) == (REUSED if is_reused else "5")


@pytest.mark.parametrize(
    ("code", "is_reused"),
    [
        ({0x0: X86_ENTRY, 0x20: b"\x89\x44\x24\x1c"}, True),  # mov [esp+1Ch], eax
        ({0x0: X86_ENTRY, 0x20: b"\x89\x44\x24\x04"}, False),  # a local variable
        ({0x0: X86_ENTRY, 0x20: b"\x57\x89\x44\x24\x20"}, True),  # push edi; mov [esp+20h], eax
        ({0x0: X86_ENTRY, 0x20: b"\x57\x89\x44\x24\x1c"}, False),
        ({0x0: X86_ENTRY, 0x8: b"\x74\x02", 0x18: b"\x83\xc4\x14\x5e\xc3", 0x20: b"\x89\x44\x24\x1c"}, True),  # ret
        ({0x0: X86_ENTRY, 0x4: b"\x74\x1a", 0x18: b"\x83\xc4\x14\x5e\xc3", 0x20: b"\x89\x44\x24\x1c"}, True),
        ({0x0: b"\x55\x8b\xec\x83\xec\x14", 0x20: b"\x89\x45\x08"}, True),  # mov [ebp+8], eax
        ({0x0: b"\x55\x8b\xec\x83\xec\x14", 0x20: b"\x89\x45\xf8"}, False),
    ],
)
def test_an_argument_of_x86_that_was_overwritten_is_not_shown(tmp_path, code, is_reused):
    item = Local("d", "int", (Place(0, 0x40, offset=4),), is_parameter=True)
    memory = {BASE + FUNCTION: function(code), STACK: bytes(4) + b"\x05\0\0\0"}
    info = FrameInfo(local_base=1, parameter_base=1, is_optimised=True)
    it = described(tmp_path, info, item, memory=memory, frame_data=[FrameRecord(FUNCTION, 0x40, ARGUMENT)])
    assert text_of(it, "d", slot=STACK) == (REUSED if is_reused else "5")


@pytest.mark.parametrize(("jump", "shown"), [(b"\xe9\x00\x10\x00\x00", REUSED), (b"", "5")])
def test_a_tail_call_that_was_asked_for_overwrites_arguments_of_unoptimised_code(tmp_path, jump, shown):
    """`[[clang::musttail]]`. Without one, what is stored there is the parameter's new value."""
    item = Local("d", "int", (Place(0, 0x40, offset=8),), is_parameter=True)
    code = function({0x0: b"\x55\x8b\xec", 0x20: b"\x89\x45\x08", 0x34: jump})
    memory = {BASE + FUNCTION: code, STACK: bytes(8) + b"\x05\0\0\0"}
    it = described(tmp_path, FrameInfo(local_base=2, parameter_base=2), item, memory=memory)
    assert text_of(it, "d", **FRAME) == shown
