# SPDX-License-Identifier: Apache-2.0
"""Golden lines as WinDbg printed them."""

from __future__ import annotations

import pytest

from tests.support.context_records import x64_context
from throwstack.core.contexts import Context, read_context
from throwstack.core.memory import memory_of
from throwstack.core.registers import Arch, Registers
from throwstack.report.register_text import (
    context_values,
    format_flags,
    format_instruction,
    format_registers,
    register_values,
)


def test_a_context_reads_as_in_windbg():
    registers = Registers.named(
        Arch.X86,
        {
            "eax": 0x045BAB68,
            "ebx": 0x033F97FE,
            "ecx": 0,
            "edx": 0x045BAC00,
            "esi": 0x045BABF0,
            "edi": 0,
            "eip": 0x77E4BEE7,
            "esp": 0x045BAB64,
            "ebp": 0x045BABB8,
        },
    )
    context = Context(Arch.X86, 0x045BA888, 0x10007, registers, 0x206, 0x1B, 0x23, 0x23, 0x23, 0x3B, 0)
    assert format_registers(context_values(context)) == (
        "eax=045bab68 ebx=033f97fe ecx=00000000 edx=045bac00 esi=045babf0 edi=00000000 "
        "eip=77e4bee7 esp=045bab64 ebp=045babb8 iopl=0 nv up ei pl nz na pe nc "
        "cs=001b ss=0023 ds=0023 es=0023 fs=003b gs=0000 efl=00000206"
    )


@pytest.mark.parametrize(
    ("eflags", "expected"),
    [
        (0x246, "iopl=0 nv up ei pl zr na pe nc"),
        (0x10297, "iopl=0 nv up ei ng nz ac pe cy"),
        (0x202, "iopl=0 nv up ei pl nz na po nc"),
        (0x3C00, "iopl=3 ov dn di pl nz na po nc"),
    ],
)
def test_flags(eflags: int, expected: str):
    assert format_flags(eflags) == expected


def test_unknown_registers_of_a_frame_are_left_out():
    registers = Registers.named(Arch.X64, {"rip": 0x7FF612345678, "rsp": 0x1000, "rbx": 5})
    assert format_registers(register_values(Arch.X64, registers)) == (
        "rbx=0000000000000005 rip=00007ff612345678 rsp=0000000000001000"
    )


def test_x64_registers_come_in_windbg_order():
    context = read_context(memory_of({0x1000: x64_context()}), 0x1000, Arch.X64)
    names = [word.partition("=")[0] for word in format_registers(register_values(Arch.X64, context.registers)).split()]
    assert " ".join(names) == "rax rbx rcx rdx rsi rdi rip rsp rbp r8 r9 r10 r11 r12 r13 r14 r15"


def test_the_instruction_at_ip():
    memory = memory_of({0x77E4BEE7: b"\x5e\xc9\xc2\x10\x00"})
    assert format_instruction(memory, Arch.X86, 0x77E4BEE7, 0x1B) == "001b:77e4bee7 5e pop esi"
    assert format_instruction(memory, Arch.X64, 0x77E4BEE9) == "0000000077e4bee9 c21000 ret 0x10"
    assert format_instruction(memory, Arch.X86, 0x1000) is None


def test_what_is_no_instruction_says_so():
    push_es = b"\x06"  # an instruction of x86 only
    assert format_instruction(memory_of({0x1000: push_es}), Arch.X64, 0x1000) == "0000000000001000 06 ???"
