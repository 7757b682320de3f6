# SPDX-License-Identifier: Apache-2.0
"""Places on the stack that the compiler gave to something else, though the PDB does not say so."""

from __future__ import annotations

import pytest

from tests.support.described_frames import BASE, FUNCTION, described
from tests.support.pdb_model import X64, X86, FrameInfo, FrameRecord, Local, Place, Register

STACK = 0x20000
REUSED = "its place was stored to again, maybe for something else"


def function(stores: dict[int, bytes]) -> bytes:
    """A function of 0x40 bytes that does nothing but these instructions, by their offsets."""
    code = bytearray(b"\x90" * 0x40)
    for at, instruction in stores.items():
        code[at : at + len(instruction)] = instruction
    return bytes(code)


EBP_BYTE, EBP_WORD = b"\x88\x55\xf0", b"\x89\x4d\xf0"  # mov [ebp-10h], dl; mov [ebp-10h], ecx
EBP_OTHER, EBP_READ = b"\x89\x4d\xec", b"\x8b\x4d\xf0"  # mov [ebp-14h], ecx; mov ecx, [ebp-10h]
EBP_WIDE = b"\xdd\x5d\xec"  # fstp qword ptr [ebp-14h]


@pytest.mark.parametrize(
    ("later", "is_reused"), [(EBP_WORD, True), (EBP_WIDE, True), (EBP_OTHER, False), (EBP_READ, False), (b"", False)]
)
def test_a_spilled_variable_whose_place_is_stored_to_again_is_not_shown(tmp_path, later, is_reused):
    item = Local("flag", "unsigned char", (Place(0, 0xC, Register.EDX), Place(0xC, 0x40, offset=-0x10)))
    code = function({0x0: b"\x89\x44\x0d\xf0", 0x9: EBP_BYTE, 0x20: later})  # mov [ebp+ecx-10h], eax
    memory = {BASE + FUNCTION: code, STACK - 0x10: b"\x05"}
    it = described(tmp_path, FrameInfo(local_base=2), item, memory=memory)
    found = it.variables(it.frame(0x18, ebp=STACK))["flag"]
    assert (found.text, found.reason) == (("", REUSED) if is_reused else ("5", ""))


def test_a_variable_that_lives_on_the_stack_may_be_stored_to(tmp_path):
    """Its place holds from the end of the prologue on, and no store is there."""
    item = Local("n", "int", (Place(0x4, 0x40, offset=-0x10),))
    memory = {BASE + FUNCTION: function({0x9: EBP_WORD, 0x20: EBP_WORD}), STACK - 0x10: b"\x05"}
    it = described(tmp_path, FrameInfo(local_base=2), item, memory=memory)
    assert it.variables(it.frame(0x30, ebp=STACK))["n"].text == "5"


@pytest.mark.parametrize(("again", "is_reused"), [(b"\x48\x89\x5c\x24\x20", True), (b"\x48\x89\x5c\x24\x28", False)])
def test_a_spilled_variable_of_x64(tmp_path, again, is_reused):
    item = Local("n", "__int64", (Place(0x10, 0x40, offset=0x20),))
    code = function({0x0B: b"\x48\x89\x74\x24\x20", 0x20: again})  # mov [rsp+20h], rsi
    memory = {BASE + FUNCTION: code, STACK + 0x20: b"\x05"}
    it = described(tmp_path, FrameInfo(local_base=1), item, machine=X64, memory=memory)
    assert it.variables(it.frame(0x30, rsp=STACK))["n"].text == ("" if is_reused else "5")


@pytest.mark.parametrize(("again", "is_reused"), [(b"\x89\x4c\x24\x04", True), (b"\x89\x4c\x24\x0c", False)])
def test_a_place_that_is_given_by_the_virtual_frame_is_that_of_the_store_beside_it(tmp_path, again, is_reused):
    item = Local("n", "int", (Place(0x10, 0x40, offset=-0x10),))
    code = function({0x0C: b"\x89\x74\x24\x04", 0x20: again})  # mov [esp+4], esi
    program = FrameRecord(FUNCTION, 0x40, "$T0 .raSearch = $eip $T0 ^ = $esp $T0 4 + =")
    memory = {BASE + FUNCTION: code, STACK - 0x10: b"\x05", STACK: bytes(4)}
    it = described(tmp_path, FrameInfo(local_base=1), item, machine=X86, memory=memory, frame_data=[program])
    assert it.variables(it.frame(0x30, slot=STACK))["n"].text == ("" if is_reused else "5")
