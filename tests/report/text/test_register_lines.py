# SPDX-License-Identifier: Apache-2.0
"""Registers and instructions in the form of `.cxr`."""

from __future__ import annotations

import pytest

from throwstack.report.frame_report import FrameReport
from throwstack.report.text.register_lines import instruction, register_lines
from throwstack.report.values import Hexadecimal


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("001b:77e4bee7 5e pop esi", "001b:77e4bee7 5e              pop     esi"),
        (
            "0033:00007ff6a1c39705 440fb601 movzx r8d, byte ptr [rcx]",
            "0033:00007ff6`a1c39705 440fb601        movzx   r8d, byte ptr [rcx]",
        ),
        ("77e4bee7 c3 ret", "77e4bee7 c3              ret"),
        ("77e4bee7 ff ???", "77e4bee7 ff              ???"),
    ],
)
def test_an_instruction(given: str, shown: str):
    assert instruction(given) == shown


def shown(**registers: int) -> list[str]:
    values = {name: Hexadecimal(value) for name, value in registers.items()}
    frame = FrameReport(0, Hexadecimal(0), Hexadecimal(0), "app!f+0x1", "context", registers=values)
    return [line.text for line in register_lines(frame)]


def test_x64_has_three_registers_a_line():
    first, second, third = shown(rax=1, rbx=2, rcx=3, rip=4, rsp=5, rbp=6, r8=7, r9=8, r10=9)
    assert first == "  rax=0000000000000001 rbx=0000000000000002 rcx=0000000000000003"
    assert second == "  rip=0000000000000004 rsp=0000000000000005 rbp=0000000000000006"
    assert third == "   r8=0000000000000007  r9=0000000000000008 r10=0000000000000009"


def test_registers_that_are_not_known_are_left_out():
    assert shown(eip=0x77E4BEE7, esp=0x45BAB64) == ["  eip=77e4bee7 esp=045bab64"]
