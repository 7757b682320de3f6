# SPDX-License-Identifier: Apache-2.0
"""Registers by name, and the facts of each architecture against the layouts of winnt.h."""

from __future__ import annotations

import pytest

from throwstack.core.registers import BP, SP, X64, X86, Arch, Registers


def test_registers_are_named_in_encoding_order() -> None:
    found = Registers.named(Arch.X86, {"eip": 0x401000, "esp": 0x12FF00, "edi": 7})
    assert (found.ip, found.sp, found.gpr[7]) == (0x401000, 0x12FF00, 7)
    assert found.bp is None


def test_a_register_of_the_other_architecture_is_no_register() -> None:
    found = Registers.named(Arch.X64, {"rip": 1, "esp": 0x12FF00})
    with pytest.raises(ValueError, match="stack pointer"):
        assert found.sp


def test_the_architecture_of_a_windows() -> None:
    assert Arch.of(is_64bit=True) is Arch.X64
    assert Arch.of(is_64bit=False) is Arch.X86
    assert (Arch.X64.facts, Arch.X86.facts) == (X64, X86)


@pytest.mark.parametrize("facts", [X86, X64])
def test_the_facts_of_an_architecture_fit_together(facts) -> None:
    assert SP not in facts.nonvolatile
    assert BP in facts.nonvolatile
    assert facts.sp_name == facts.register_names[SP]
    assert facts.context_ip_at + facts.pointer_size <= facts.context_size
    # EXCEPTION_RECORD32 and 64: the parameters follow the head, and the instruction's address is a pointer in it
    assert facts.record_head.size == {4: 20, 8: 32}[facts.pointer_size]
    assert facts.record_address_at == 8 + facts.pointer_size
