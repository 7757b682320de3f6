# SPDX-License-Identifier: Apache-2.0
"""A plan applied to a frame: the caller's registers from the slots that the plan names, as far as these can be read."""

from __future__ import annotations

import pytest

from tests.forge.stacks import Stack
from throwstack.core.frames import End, StackBounds, Trust
from throwstack.core.memory import memory_of
from throwstack.core.registers import SP, X64, Arch, Registers
from throwstack.core.stop import Stop
from throwstack.unwind.walk import Step
from throwstack.unwind.x64.apply_plan import apply_plan
from throwstack.unwind.x64.unwind_plan import UnwindPlan

LIMIT, BASE = 0x10000, 0x14000
RSP, IP, CALLER = 0x11000, 0x7FF7_0000_1010, 0x7FF7_0000_2020
RBX, RBP, RSI = 3, 5, 6
VOLATILE = ("rax", "rcx", "rdx", "r8", "r9", "r10", "r11")
NONVOLATILE = ("rbx", "rbp", "rsi", "rdi", "r12", "r13", "r14", "r15")


def frame(**known: int) -> Registers:
    """A frame's registers: each has its number as its value, but for those that are given."""
    values = {name: number for number, name in enumerate(X64.register_names)}
    return Registers.named(Arch.X64, {"rip": IP, **values, "rsp": RSP, **known})


def apply(
    plan: UnwindPlan,
    stack: Stack,
    registers: Registers | None = None,
    bounds: StackBounds | None = None,
    interrupted: Registers | None = None,
) -> Step | Stop:
    memory = memory_of({LIMIT: stack.data()})
    return apply_plan(plan, registers or frame(), bounds or StackBounds(LIMIT, BASE), memory, interrupted)


def test_the_caller_has_the_return_address_the_sp_above_it_and_the_nonvolatile_registers():
    found = apply(UnwindPlan((), (SP, 0x28)), Stack(LIMIT, BASE).at(RSP + 0x28).d64(CALLER))
    assert isinstance(found, Step)
    caller = dict(zip(X64.register_names, found.registers.gpr, strict=True))
    assert (found.registers.ip, caller["rsp"], found.slot) == (CALLER, RSP + 0x30, RSP + 0x28)
    assert [caller[name] for name in NONVOLATILE] == [3, 5, 6, 7, 12, 13, 14, 15]
    assert [caller[name] for name in VOLATILE] == [None] * 7
    assert (found.trust, found.is_interrupted, found.note) == (Trust.CFI, False, "")


def test_a_saved_register_is_read_from_its_slot():
    stack = Stack(LIMIT, BASE).at(RSP + 0x20).d64(0x1234, CALLER)
    found = apply(UnwindPlan(((RBX, SP, 0x20),), (SP, 0x28), note="a remark"), stack)
    assert isinstance(found, Step)
    assert (found.registers.gpr[RBX], found.note) == (0x1234, "a remark")


@pytest.mark.parametrize(
    ("save", "registers"),
    [
        pytest.param((RBX, SP, LIMIT - RSP - 8), frame(), id="below the stack"),
        pytest.param((RBX, SP, BASE - RSP - 7), frame(), id="not whole on the stack"),
        pytest.param((RBX, RBP, 0), Registers(IP, (*[None] * 4, RSP, *[None] * 11)), id="the base is not known"),
    ],
)
def test_a_slot_that_cannot_be_read_makes_the_register_unknown(save: tuple[int, int, int], registers: Registers):
    stack = Stack(LIMIT, BASE).at(RSP).d64(CALLER)
    found = apply(UnwindPlan((save,), (SP, 0)), stack, registers)
    assert isinstance(found, Step)
    assert found.registers.gpr[RBX] is None


def test_a_slot_on_a_page_that_is_not_in_memory_makes_the_register_unknown():
    stack = Stack(LIMIT, BASE).at(RSP).d64(CALLER)
    bounds = StackBounds(LIMIT, BASE + 0x1000)
    found = apply(UnwindPlan(((RBX, SP, BASE - RSP),), (SP, 0)), stack, bounds=bounds)
    assert isinstance(found, Step)
    assert found.registers.gpr[RBX] is None


@pytest.mark.parametrize("at", [LIMIT, BASE - 8])
def test_the_first_and_the_last_word_of_the_stack_are_on_it(at: int):
    stack = Stack(LIMIT, BASE).at(at).d64(CALLER)
    found = apply(UnwindPlan(((RBX, SP, at - RSP),), (SP, at - RSP)), stack)
    assert isinstance(found, Step)
    assert (found.registers.ip, found.registers.gpr[RBX]) == (CALLER, CALLER)


@pytest.mark.parametrize("at", [LIMIT - 8, BASE - 7])
def test_a_return_address_outside_the_stack_ends_the_walk(at: int):
    found = apply(UnwindPlan((), (SP, at - RSP)), Stack(LIMIT, BASE))
    assert found == Stop(End.STACK_BOUND, f"return address would be at {at:#x}")


def test_a_return_address_that_cannot_be_read_ends_the_walk():
    found = apply(UnwindPlan((), (SP, BASE - RSP)), Stack(LIMIT, BASE), bounds=StackBounds(LIMIT, BASE + 0x1000))
    assert isinstance(found, Stop)
    assert found.end is End.UNREADABLE


def test_a_base_that_is_not_known_ends_the_walk():
    registers = Registers(IP, (*[None] * 4, RSP, *[None] * 11))
    found = apply(UnwindPlan((), (RBP, 8)), Stack(LIMIT, BASE), registers)
    assert found == Stop(End.UNKNOWN_REGISTER, f"rbp at {IP:#x}")


def machine_frame() -> Stack:
    """What the processor pushes: rip, cs, eflags, rsp, ss."""
    return Stack(LIMIT, BASE).at(RSP).d64(CALLER, 0x33, 0x246, RSP + 0x800, 0x2B)


def test_a_machine_frame_has_the_rsp_of_the_code_that_was_interrupted():
    found = apply(UnwindPlan((), (SP, 0), is_machine_frame=True), machine_frame())
    assert isinstance(found, Step)
    assert (found.registers.ip, found.registers.sp, found.is_interrupted) == (CALLER, RSP + 0x800, True)


@pytest.mark.parametrize(("ip", "sp", "is_it"), [(0, 0, True), (1, 0, False), (0, 8, False)])
def test_the_registers_in_the_exceptions_context_are_complete(ip: int, sp: int, is_it: bool):
    """They are the caller's if ip and sp are those of the dispatcher's machine frame."""
    interrupted = frame(rip=CALLER + ip, rsp=RSP + 0x800 + sp, rax=0xAAAA)
    plan = UnwindPlan((), (SP, 0), is_machine_frame=True, note="a remark")
    found = apply(plan, machine_frame(), interrupted=interrupted)
    assert isinstance(found, Step)
    assert (found.registers == interrupted) is is_it
    assert (found.slot, found.trust, found.is_interrupted, found.note) == (RSP, Trust.CFI, True, "a remark")
