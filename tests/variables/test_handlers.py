# SPDX-License-Identifier: Apache-2.0
"""Frames of catch blocks: parts of an x64 function that the runtime calls, with registers that are its own."""

from __future__ import annotations

import struct

import pytest

from tests.support.described_frames import BASE, FUNCTION, described
from tests.support.pdb_model import X64, FrameInfo, Local, Place, Register
from tests.support.pe_writer import X64 as PE_X64
from tests.support.pe_writer import Pe, Section

STACK = 0x20000
CATCH = FUNCTION + 0x20
PLAIN, CHAINED = 0x2000, 0x2010
"""RVAs of unwind information: one of nothing, and one that is chained to the entry of the function."""


CODE = b"\x90" * 0x104 + b"\x89\x45\xf8" + b"\x90" * 0xF9  # at FUNCTION + 4: mov [rbp-8], eax


def shown(tmp_path, second, distance, **more):
    """The variables of a frame at a distance into a function, of which `second` is the entry from 0x20 on."""
    unwind = b"\x01\0\0\0".ljust(16, b"\0") + b"\x21\0\0\0" + struct.pack("<III", FUNCTION, CATCH, PLAIN)
    sections = [Section(".text", 0x1000, CODE), Section(".xdata", 0x2000, unwind)]
    functions = [(FUNCTION, CATCH, PLAIN), (CATCH, FUNCTION + 0x40, second)]
    image = Pe(PE_X64, BASE, sections=sections, functions=functions).mapped()
    places = {
        "in_rsi": Place(0, 0x40, Register.RSI),
        "by_rsp": Place(0, 0x40, Register.RSP, 8),
        "by_rbp": Place(0, 0x40, offset=-8),  # lives there, and is stored to
    }
    items = [Local(name, "__int64", (place,)) for name, place in places.items()]
    memory = {BASE: image, STACK: struct.pack("<4Q", 1, 2, 3, 4)}
    it = described(
        tmp_path, FrameInfo(local_base=2, is_optimised=True), *items, machine=X64, memory=memory, has_code=False
    )
    found = it.variables(
        it.frame(distance, rsp=STACK, slot=STACK + more.pop("slot", 0x30), rbp=STACK + 24, rsi=7, **more)
    )
    it.close()
    return {name: found[name].text or found[name].reason for name in places}


@pytest.mark.parametrize("is_interrupted", [True, False])
def test_in_a_catch_block_only_the_frame_pointer_is_that_of_the_function(tmp_path, is_interrupted):
    """clang has `in_rsi` in rsi for the catch block, too. The block begins with the registers of the C++ runtime."""
    assert shown(tmp_path, PLAIN, 0x30, slot=8, is_interrupted=is_interrupted) == {
        "in_rsi": "in rsi, which is not that of the function in its handler",
        "by_rsp": "in rsp, which is not that of the function in its handler",
        "by_rbp": "3",
    }


@pytest.mark.parametrize(("second", "distance"), [(PLAIN, 0x10), (CHAINED, 0x30)])
def test_the_function_itself_has_its_registers_also_in_a_chained_part(tmp_path, second, distance):
    found = shown(tmp_path, second, distance, is_interrupted=True)
    assert found == {"in_rsi": "7", "by_rsp": "2", "by_rbp": "3"}


def test_a_call_that_ends_the_function_is_not_in_the_catch_block_after_it(tmp_path):
    assert shown(tmp_path, PLAIN, 0x20)["in_rsi"] == "7"
    assert shown(tmp_path, PLAIN, 0x21)["in_rsi"] == "in rsi, which is not that of the function in its handler"
