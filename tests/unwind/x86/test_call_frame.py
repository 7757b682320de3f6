# SPDX-License-Identifier: Apache-2.0
"""The place of a frame: of the innermost one, and of one that has called."""

from __future__ import annotations

from throwstack.core.registers import Arch, Registers
from throwstack.unwind.x86.call_frame import Place

REGISTERS = Registers.named(Arch.X86, {"eip": 0x401005, "esp": 0x12FF08})


def test_the_innermost_frame_is_where_the_thread_stands() -> None:
    place = Place(REGISTERS)
    assert not place.is_return_address
    assert (place.ip, place.lowest_sp) == (0x401005, 0x12FF08)


def test_a_frame_that_has_called_keeps_the_arguments_that_its_callee_removes() -> None:
    # push 2; push 1; call f (`ret 8`): esp is 0x12FF00 before the call and 0x12FF08 after it
    place = Place(REGISTERS, call_sp=0x12FF00)
    assert place.is_return_address
    assert place.lowest_sp == 0x12FF00
    assert place.registers.sp == 0x12FF08
