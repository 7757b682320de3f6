# SPDX-License-Identifier: Apache-2.0
"""CONTEXT records laid out member by member, as winnt.h declares them."""

from __future__ import annotations

import pytest

from tests.support.context_records import x64_context, x86_context
from throwstack.core.contexts import read_context
from throwstack.core.memory import MemoryUnreadable, memory_of
from throwstack.core.registers import X86, Arch


def test_x86_members_are_where_winnt_h_has_them():
    data = x86_context()
    assert len(data) == X86.context_size
    context = read_context(memory_of({0x1000: data}), 0x1000, Arch.X86)
    assert context.registers.ip == 0x77E4BEE7
    assert context.registers.gpr == (0xA0, 0xC0, 0xD0, 0xB0, 0x45BAB64, 0xEB, 0x51, 0xD1)
    assert (context.cs, context.ss, context.ds, context.es, context.fs, context.gs) == (0x1B, 0x23, 0x23, 0x23, 0x3B, 0)
    assert context.eflags == 0x206


def test_x64_members_are_where_winnt_h_has_them():
    context = read_context(memory_of({0x1000: x64_context()}), 0x1000, Arch.X64)
    assert context.registers.ip == 0x7FF612345678
    assert context.registers.gpr == (0xA, 0xC, 0xD, 0xB, 0x7000, 0xBB, 0x51, 0xD1, *range(8, 16))
    assert (context.cs, context.ss, context.fs, context.gs) == (0x33, 0x2B, 0x53, 0x2B)
    assert context.eflags == 0x246


@pytest.mark.parametrize("flags", [0x10007, 0x1003F, 0x1007F, 0x8001003F])
def test_flags_of_an_x86_context(flags: int):
    assert read_context(memory_of({0x1000: x86_context(flags)}), 0x1000, Arch.X86).has_plausible_flags


@pytest.mark.parametrize("flags", [0x10000B, 0x10000F, 0x10001F, 0x10005F, 0xC810001F])
def test_flags_of_an_x64_context(flags: int):
    assert read_context(memory_of({0x1000: x64_context(flags)}), 0x1000, Arch.X64).has_plausible_flags


@pytest.mark.parametrize("flags", [0, 0x10001, 0x10002, 0x100007, 0x45BA888, 0xFFFFFFFF])
def test_flags_that_an_x86_context_cannot_have(flags: int):
    assert not read_context(memory_of({0x1000: x86_context(flags)}), 0x1000, Arch.X86).has_plausible_flags


def test_selectors_tell_user_mode_from_the_kernel():
    assert read_context(memory_of({0x1000: x86_context(cs=0x23, ss=0x2B)}), 0x1000, Arch.X86).has_user_selectors
    assert not read_context(memory_of({0x1000: x86_context(cs=0x08, ss=0x10)}), 0x1000, Arch.X86).has_user_selectors
    assert not read_context(memory_of({0x1000: x64_context(cs=0x10, ss=0x18)}), 0x1000, Arch.X64).has_user_selectors


def test_a_context_whose_second_page_is_missing_is_not_read():
    with pytest.raises(MemoryUnreadable):
        read_context(memory_of({0x1F80: x86_context()[:0x80]}), 0x1F80, Arch.X86)
