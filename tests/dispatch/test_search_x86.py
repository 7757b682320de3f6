# SPDX-License-Identifier: Apache-2.0
"""The search for exceptions in flight on x86, where frames have arguments and exceptions have registrations."""

from __future__ import annotations

import pytest

from tests.forge.stacks import Label, Stack
from tests.support.targets import make_target
from tests.support.x86_saved import put_context, put_record
from throwstack.core.frames import End, Frame, StackBounds, Trust, Walk
from throwstack.core.registers import Arch, Registers
from throwstack.dispatch.saved_exception import Route
from throwstack.dispatch.search import FoundExceptions, SearchStart, exceptions_in_flight
from throwstack.images.modules import Module

LIMIT, BASE = 0x045B8000, 0x045C0000
NTDLL = Module("ntdll.dll", "", 0x7C800000, 0xC0000)
KERNEL32 = Module("kernel32.dll", "", 0x77E40000, 0x100000)
NAMES = {
    "ntdll.dll": {"KiUserExceptionDispatcher": 0x1000, "ExecuteHandler2": 0x3000},
    "kernel32.dll": {"UnhandledExceptionFilter": 0x3608D, "WaitForSingleObject": 0x50000},
}
ASKED = BASE - 0x24
OF_BLOCK = LIMIT + 0x4000
"""Where what runs a catch block has its exception registration."""


def frame(ip: int, sp: int, ebp: int) -> Frame:
    return Frame(Registers.named(Arch.X86, {"eip": ip, "esp": sp}), ebp, 0, ebp + 4, Trust.FRAME_POINTER)


def found_on(
    stack: Stack,
    *frames: Frame,
    chain: tuple[int, ...] | None = (),
    names: dict[str, dict[str, int]] = NAMES,
    **start: object,
) -> FoundExceptions:
    stack.at(ASKED).d32(0xFFFFFFFF)
    stack.at(OF_BLOCK).d32(ASKED, KERNEL32.base + 0x3608D)
    walk = Walk(frames, End.THREAD_START)
    target = make_target(Arch.X86, [KERNEL32, NTDLL], {LIMIT: stack.data()}, names, walk)
    start = {"low": LIMIT, "is_complete": True, "proves_exception": False, **start}
    return exceptions_in_flight(target, StackBounds(LIMIT, BASE), SearchStart(frames, registrations=chain, **start))


def delivered(stack: Stack, at: int, *, code: int = 0xC0000005, esp: int | None = None) -> tuple[Frame, Frame]:
    """ExecuteHandler2, which asks a handler about the exception at `at`, and the dispatcher."""
    record, context = Label("record"), Label("context")
    stack.at(at).d32(record, context)
    put_record(stack, at + 8, record, code=code)
    put_context(stack, at + 0x58, context, esp=at + 0x400 if esp is None else esp)
    stack.at(at - 0x100 + 8).d32(at + 8, ASKED, at + 0x58)
    return (
        frame(NTDLL.base + 0x3010, at - 0x120, at - 0x100),
        frame(NTDLL.base + 0x1010, at, at + 0x600),
    )


@pytest.mark.parametrize(
    ("chain", "codes", "taken"),
    [
        ((OF_BLOCK, ASKED), [0xC0000006], [0xC0000005]),
        (None, [0xC0000006, 0xC0000005], []),
        ((ASKED - 4,), [0xC0000006], []),
    ],
    ids=["known", "not known", "broken"],
)
def test_a_known_chain_of_registrations_says_that_the_outer_exception_was_taken(
    chain: tuple[int, ...] | None, codes: list[int], taken: list[int]
):
    """The inner one is proven by a function on the stack. That proves nothing of the outer one."""
    stack = Stack(LIMIT, BASE)
    inner, outer = delivered(stack, LIMIT + 0x2000, code=0xC0000006), delivered(stack, LIMIT + 0x5000)
    found = found_on(stack, *inner, *outer, chain=chain, proves_exception=True)
    assert [item.record.code for item in found.exceptions][: len(codes)] == codes
    assert [item.record.code for item in found.taken] == taken


@pytest.mark.parametrize(("holder", "is_found"), [(0x1010, True), (0x50010, False)])
def test_a_handlers_arguments_alone_do_not_lead_to_a_stale_context(holder: int, is_found: bool):
    """The CONTEXT is in the frame of the dispatcher, or in that of a function that keeps none."""
    stack, at = Stack(LIMIT, BASE), LIMIT + 0x3000
    handler, _ = delivered(stack, at)
    stack_of = NTDLL.base if is_found else KERNEL32.base
    holds = frame(stack_of + holder, at - 0x80, at + 0x600)
    outer = frame(KERNEL32.base + 0x50010, at + 0x700, at + 0x710)
    assert bool(found_on(stack, handler, holds, outer, chain=None).exceptions) is is_found


@pytest.mark.parametrize("esp", [0x340, 0x380])
def test_an_argument_that_leads_to_an_exception_further_in_does_not_hide_the_one_further_out(esp: int):
    """The filter was called for something else, and what its argument points to is left from earlier."""
    stack, at, outer = Stack(LIMIT, BASE), LIMIT + 0x3000, LIMIT + 0x5000
    delivered(stack, at, esp=at + esp, code=0xC0000006)
    _, dispatcher = delivered(stack, outer)
    ebp = at + 0x3C0
    stack.at(ebp + 4).d32(0x77E792A3, at)
    waits = frame(KERNEL32.base + 0x3608D + 0x12A, at + 0x380, ebp)
    found = found_on(stack, waits, dispatcher, chain=None)
    assert [item.record.code for item in found.exceptions] == [0xC0000005]


def test_an_argument_does_not_lead_to_an_exception_of_the_functions_own_frame():
    stack, at = Stack(LIMIT, BASE), LIMIT + 0x3000
    delivered(stack, at, esp=at + 0x384)
    stack.at(at + 0x3C4).d32(0x77E792A3, at)
    waits = frame(KERNEL32.base + 0x3608D + 0x12A, at + 0x380, at + 0x3C0)
    assert found_on(stack, waits, chain=None).exceptions == ()


def test_on_x86_a_nameless_function_of_ntdll_is_asked_for_its_arguments():
    stack = Stack(LIMIT, BASE)
    _, dispatcher = delivered(stack, LIMIT + 0x3000)
    (found,) = found_on(stack, dispatcher, chain=None, names={}).exceptions
    assert found.routes[0] is Route.DISPATCHER


@pytest.mark.parametrize(("above", "is_found"), [(0, True), (4, False)])
def test_a_registration_where_the_search_begins_counts_and_one_further_in_does_not(above: int, is_found: bool):
    stack, at = Stack(LIMIT, BASE), LIMIT + 0x3000
    delivered(stack, at)
    node = at - 0x200
    stack.at(node).d32(0xFFFFFFFF, NTDLL.base + 0x5000, ASKED)
    stack.at(node + 0x14).d32(at + 8, ASKED, at + 0x58)
    found = found_on(stack, chain=(node,), low=node + above)
    assert bool(found.exceptions) is is_found
