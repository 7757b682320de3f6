# SPDX-License-Identifier: Apache-2.0
"""Stacks with code on them that the kernel interrupted: its registers are in a CONTEXT, no `ret` leads back to it."""

from __future__ import annotations

import struct

import pytest

from tests.support.context_records import x86_context
from throwstack.core.frames import StackBounds
from throwstack.core.memory import memory_of
from throwstack.core.registers import X86, Arch, Registers
from throwstack.unwind.x86.call_frame import Place
from throwstack.unwind.x86.interrupted_context import interrupted_context

LOW = 0x100000
RECORD, CONTEXT = LOW + 0x10, LOW + 0x60
INTERRUPTED_SP = LOW + 0x400
STACK = StackBounds(LOW, LOW + 0x1000)


def context(**registers: int) -> bytes:
    data = bytearray(x86_context())
    offsets = {"ebp": 0xB4, "eip": 0xB8, "esp": 0xC4}
    for name, value in {"esp": INTERRUPTED_SP, **registers}.items():
        struct.pack_into("<I", data, offsets[name], value)
    return bytes(data)


def stack(*words: int, saved: bytes | None = None, code: int = 0xC0000005) -> dict[int, bytes]:
    data = bytearray(0x1000)
    struct.pack_into(f"<{len(words)}I", data, 0, *words)
    struct.pack_into("<I", data, RECORD - LOW, code)
    saved = context() if saved is None else saved
    data[CONTEXT - LOW : CONTEXT - LOW + len(saved)] = saved
    return {LOW: bytes(data)}


def called(call_sp: int = LOW) -> Place:
    """A frame that has made a call with esp at `call_sp`."""
    return Place(Registers.named(Arch.X86, {"eip": 0x77001234, "esp": call_sp + 8}), call_sp)


def found(data: dict[int, bytes], function: str = "KiUserExceptionDispatcher") -> int | None:
    saved = interrupted_context(function, called(), STACK, memory_of(data))
    return None if saved is None else saved.registers.ip


def test_the_exception_dispatcher_passes_record_and_context_on():
    assert found(stack(RECORD, CONTEXT)) == 0x77E4BEE7
    at_its_start = Place(Registers.named(Arch.X86, {"eip": 0x77001230, "esp": LOW}))
    memory = memory_of(stack(RECORD, CONTEXT))
    assert interrupted_context("KiUserExceptionDispatcher", at_its_start, STACK, memory) is not None


def test_the_apc_dispatcher_has_the_context_above_the_routines_arguments():
    # esp at the call of the routine: NormalContext, two system arguments, CONTEXT
    data = {LOW: bytes(12) + context().ljust(0x800, b"\0")}
    assert found(data, "KiUserApcDispatcher") == 0x77E4BEE7


@pytest.mark.parametrize(
    "data",
    [
        stack(CONTEXT, RECORD),
        stack(RECORD, CONTEXT, code=0),
        stack(RECORD, CONTEXT + 4),
        stack(RECORD, 0x7000_0000),
        stack(RECORD, CONTEXT, saved=context(esp=LOW + 8)),
        stack(RECORD, CONTEXT, saved=context(esp=STACK.base + 4)),
        stack(RECORD, CONTEXT, saved=x86_context(flags=0x100007)),
        stack(RECORD, CONTEXT, saved=x86_context(cs=0x33)),
        stack(RECORD),
        {},
    ],
)
def test_a_context_that_does_not_belong_to_this_stack_is_not_believed(data):
    assert found(data) is None


def test_frames_of_other_functions_have_interrupted_nothing():
    assert found(stack(RECORD, CONTEXT), "RtlDispatchException") is None
    assert found({}, "KiUserApcDispatcher") is None


def at(place: Place, data: dict[int, bytes], bounds: StackBounds = STACK, function: str = "KiUserExceptionDispatcher"):
    return interrupted_context(function, place, bounds, memory_of(data))


def test_the_record_is_above_the_two_pointers_and_on_the_stack():
    assert found(stack(LOW, CONTEXT)) is None  # at the first pointer itself
    assert found(stack(LOW + 8, CONTEXT, 1)) == 0x77E4BEE7
    data = stack(STACK.base - 8, CONTEXT)
    data = {LOW: data[LOW][:-8] + struct.pack("<II", 1, 0)}
    assert found(data) == 0x77E4BEE7
    assert at(called(), data, StackBounds(LOW, STACK.base - 4)) is None
    assert at(called(), data, StackBounds(LOW, STACK.base - 1)) is None


def test_the_context_is_above_the_frame():
    """One that an earlier exception has left is below it."""
    data = bytearray(0x1000)
    data[: len(context())] = context(esp=LOW + 0x800)
    struct.pack_into("<III", data, 0x400, LOW + 0x410, LOW, 0)
    struct.pack_into("<I", data, 0x410, 0xC0000005)
    assert at(called(LOW + 0x400), {LOW: bytes(data)}) is None


@pytest.mark.parametrize(("missing", "is_found"), [(0, True), (1, False)])
def test_all_of_the_context_is_on_the_stack(missing, is_found):
    data = stack(RECORD, CONTEXT, saved=context(esp=CONTEXT + 0xBC))
    bounds = StackBounds(LOW, CONTEXT + X86.context_size - missing)
    assert (at(called(), data, bounds) is not None) == is_found


@pytest.mark.parametrize(
    ("sp", "is_found"), [(CONTEXT + 0xB8, False), (CONTEXT + 0xB9, True), (STACK.base, True), (STACK.base + 1, False)]
)
def test_esp_of_the_interrupted_code_is_above_the_eip_that_the_kernel_saved(sp, is_found):
    assert (found(stack(RECORD, CONTEXT, saved=context(esp=sp))) is not None) == is_found


def test_the_apc_dispatcher_has_called_the_routine():
    data = {LOW: bytes(12) + context().ljust(0x800, b"\0")}
    assert at(called(), data, function="KiUserApcDispatcher") is not None
    before = Place(Registers.named(Arch.X86, {"eip": 0x77001230, "esp": LOW}))
    assert at(before, data, function="KiUserApcDispatcher") is None
