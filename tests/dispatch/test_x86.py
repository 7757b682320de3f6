# SPDX-License-Identifier: Apache-2.0
"""Saved contexts on x86 stacks that are laid out here, word by word.

The addresses are those of a Server 2003 thread; what a test expects is a label, or a value it wrote itself.
"""

from __future__ import annotations

import struct

import pytest

from tests.forge.stacks import Label, Stack
from tests.targets import make_target
from tests.test_contexts import x86_context
from throwstack.dispatch.saved import Route, SavedException
from throwstack.dispatch.search import Blocked, exceptions_in_flight
from throwstack.frames import End, Frame, StackBounds, Trust, Walk
from throwstack.modules import Module
from throwstack.registers import Arch, Registers

LIMIT, BASE = 0x045B8000, 0x045C0000
KERNEL32 = Module("kernel32.dll", r"C:\WINDOWS\system32\kernel32.dll", 0x77E40000, 0x100000)
FILTER_RVA = 0x3608D
IN_FILTER = KERNEL32.base + FILTER_RVA + 0x12A
CONTEXT_IP, CONTEXT_SP = 0x77E4BEE7, 0x045BAB64


def put_record(stack: Stack, address: int, mark: Label, *, code: int = 0xE06D7363, parameters: int = 0) -> None:
    stack.at(address).mark(mark).d32(code, 1, 0, CONTEXT_IP, parameters)


def put_context(stack: Stack, address: int, mark: Label, **fields: int) -> None:
    """Write a CONTEXT whose eip and esp are those above (other members: see `x86_context`)."""
    data = bytearray(x86_context(**{key: value for key, value in fields.items() if key in {"flags", "cs", "ss"}}))
    struct.pack_into("<I", data, 0xB8, fields.get("eip", CONTEXT_IP))
    struct.pack_into("<I", data, 0xC4, fields.get("esp", CONTEXT_SP))
    stack.at(address).mark(mark).raw(bytes(data))


def filter_frame(child_ebp: int) -> Frame:
    registers = Registers.named(Arch.X86, {"eip": IN_FILTER, "esp": child_ebp - 0x40, "ebp": child_ebp})
    return Frame(registers, child_ebp, 0x77E792A3, child_ebp + 4, Trust.PROLOGUE)


def search(stack: Stack, *frames: Frame, low: int = LIMIT) -> tuple[SavedException, ...]:
    target = make_target(
        Arch.X86,
        [KERNEL32],
        {LIMIT: stack.data()},
        {"kernel32.dll": {"UnhandledExceptionFilter": FILTER_RVA, "RaiseException": 0xBE94}},
        Walk(frames, End.THREAD_START),
    )
    return exceptions_in_flight(target, StackBounds(LIMIT, BASE), Blocked(frames, low)).exceptions


def filter_called_with_pointers(**context: int) -> tuple[Stack, Label, Label]:
    """UnhandledExceptionFilter(EXCEPTION_POINTERS *) as the reference case has it."""
    stack, pointers, record, saved = Stack(LIMIT, BASE), Label("pointers"), Label("record"), Label("context")
    stack.at(0x045BA77C).d32(0x045BA7AC, 0x77E792A3, pointers)
    stack.at(0x045BA7A4).mark(pointers).d32(record, saved)
    put_context(stack, 0x045BA888, saved, **context)
    put_record(stack, 0x045BAB68, record)
    return stack, record, saved


def test_the_filters_argument_leads_to_record_and_context():
    stack, record, saved = filter_called_with_pointers()
    (found,) = search(stack, filter_frame(0x045BA77C), low=0x045BA77C)
    assert (found.record.location, found.context.address) == (int(record), int(saved))
    assert found.record.code == 0xE06D7363
    assert found.context.registers.sp == CONTEXT_SP
    assert found.routes[0] is Route.FILTER_ARGUMENT


def test_pointers_that_agree_are_named_too():
    stack, *_ = filter_called_with_pointers()
    (found,) = search(stack, filter_frame(0x045BA77C), low=0x045BA77C)
    assert found.found_by == "UnhandledExceptionFilter argument, EXCEPTION_POINTERS on the stack"


def test_pointers_alone_count_where_no_frame_told():
    stack, _, saved = filter_called_with_pointers()
    (found,) = search(stack)
    assert found.context.address == int(saved)
    assert found.routes == (Route.POINTERS,)


def test_a_handlers_arguments_have_the_registration_frame_between_the_pointers():
    stack, record, saved = Stack(LIMIT, BASE), Label("record"), Label("context")
    stack.at(0x045BA7D8).d32(record, 0x045BFFDC, saved, 0)
    put_context(stack, 0x045BA888, saved)
    put_record(stack, 0x045BAB68, record)
    (found,) = search(stack)
    assert (found.context.address, found.routes) == (int(saved), (Route.HANDLER_ARGUMENTS,))


@pytest.mark.parametrize(
    "context",
    [
        pytest.param({"flags": 0x10001}, id="without integer registers"),
        pytest.param({"cs": 0x08, "ss": 0x10}, id="of the kernel"),
        pytest.param({"eip": 0}, id="working copy of the dispatcher"),
        pytest.param({"eip": 0x12345678}, id="ip in no module"),
        pytest.param({"esp": 0x0012FF00}, id="sp on another stack"),
        pytest.param({"esp": 0x045BA700}, id="sp below the record of its own registers"),
    ],
)
def test_what_is_no_context_of_this_thread_is_not_taken(context: dict[str, int]):
    stack, *_ = filter_called_with_pointers(**context)
    assert search(stack, filter_frame(0x045BA77C), low=0x045BA77C) == ()


def test_a_call_through_a_null_pointer_has_its_ip_outside_code():
    stack, record, saved = Stack(LIMIT, BASE), Label("record"), Label("context")
    stack.at(0x045BA77C).d32(0, 0x77E792A3, 0x045BA7A4)
    stack.at(0x045BA7A4).d32(record, saved)
    put_context(stack, 0x045BA888, saved, eip=0)
    stack.at(0x045BAB68).mark(record).d32(0xC0000005, 0, 0, 0, 2, 8, 0)
    (found,) = search(stack, filter_frame(0x045BA77C), low=0x045BA77C)
    assert found.context.registers.ip == 0


def test_a_record_with_more_parameters_than_one_can_have_is_none():
    stack, record, saved = Stack(LIMIT, BASE), Label("record"), Label("context")
    stack.at(0x045BA7A4).d32(record, saved)
    put_context(stack, 0x045BA888, saved)
    put_record(stack, 0x045BAB68, record, parameters=16)
    assert search(stack) == ()


def test_below_the_given_address_nothing_counts():
    stack, *_ = filter_called_with_pointers()
    assert search(stack, low=0x045BA88C) == ()
