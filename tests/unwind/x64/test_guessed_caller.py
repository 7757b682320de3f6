# SPDX-License-Identifier: Apache-2.0
"""Callers of code that no unwind data covers: by rbp, and by a scan of the stack."""

from __future__ import annotations

import struct

import pytest

from throwstack.core.frames import StackBounds
from throwstack.core.memory import memory_of
from throwstack.core.registers import BP, SP, Arch, Registers
from throwstack.unwind.x64.guessed_caller import by_frame_pointer, by_scan

LOW = 0x10000
STACK = StackBounds(LOW, LOW + 0x2000)
RETURN = 0x180001234


def is_return_address(address: int) -> bool:
    return address == RETURN


def stack(*words: int):
    return memory_of({LOW: struct.pack(f"<{len(words)}Q", *words)})


def at(**registers: int) -> Registers:
    return Registers.named(Arch.X64, {"rip": 0x20000000, "rsp": LOW, **registers})


def test_rbp_leads_to_the_saved_rbp_and_the_return_address_above() -> None:
    found = by_frame_pointer(at(rbp=LOW + 16, rbx=7), STACK, stack(0, 0, LOW + 0x80, RETURN), is_return_address)
    assert (found.slot, found.registers.ip) == (LOW + 24, RETURN)
    assert (found.registers.gpr[SP], found.registers.gpr[BP]) == (LOW + 32, LOW + 0x80)
    assert found.registers.gpr[3] is None  # what the frame saved elsewhere is lost


@pytest.mark.parametrize("rbp", [LOW + 17, LOW - 8, LOW + 0x1000, 0])
def test_an_rbp_that_is_no_frame_pointer(rbp: int) -> None:
    assert by_frame_pointer(at(rbp=rbp), STACK, stack(*[RETURN] * 8), lambda _: True) is None


def test_an_rbp_above_which_is_no_return_address() -> None:
    assert by_frame_pointer(at(rbp=LOW), STACK, stack(LOW + 0x80, 0x1234), is_return_address) is None
    assert by_frame_pointer(at(), STACK, stack(LOW + 0x80, RETURN), is_return_address) is None


def test_a_scan_takes_the_first_word_that_can_be_a_return_address() -> None:
    found = by_scan(LOW, STACK, stack(1, 2, RETURN, RETURN), is_return_address)
    assert (found.slot, found.registers.gpr[SP], found.registers.gpr[BP]) == (LOW + 16, LOW + 24, None)


def test_a_scan_ends_after_512_words_and_at_the_end_of_the_stack() -> None:
    assert by_scan(LOW, STACK, stack(*[0] * 511, RETURN), is_return_address) is not None
    assert by_scan(LOW, STACK, stack(*[0] * 512, RETURN), is_return_address) is None
    assert by_scan(LOW, StackBounds(LOW, LOW + 16), stack(0, 0, RETURN), is_return_address) is None
    assert by_scan(LOW, STACK, memory_of({}), is_return_address) is None
