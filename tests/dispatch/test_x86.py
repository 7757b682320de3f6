# SPDX-License-Identifier: Apache-2.0
"""Saved contexts on x86 stacks that are laid out here, word by word.

The addresses are those of a Server 2003 thread; what a test expects is a label, or a value it wrote itself.
"""

from __future__ import annotations

import pytest

from tests.forge.stacks import Label, Stack
from tests.support.targets import make_target
from tests.support.x86_saved import CONTEXT_IP, CONTEXT_SP, put_context, put_record
from throwstack.core.frames import End, Frame, StackBounds, Trust, Walk
from throwstack.core.registers import Arch, Registers
from throwstack.dispatch.saved_exception import Route, SavedException
from throwstack.dispatch.search import FoundExceptions, SearchStart, exceptions_in_flight
from throwstack.images.modules import Module

LIMIT, BASE = 0x045B8000, 0x045C0000
KERNEL32 = Module("kernel32.dll", r"C:\WINDOWS\system32\kernel32.dll", 0x77E40000, 0x100000)
FILTER_RVA = 0x3608D
IN_FILTER = KERNEL32.base + FILTER_RVA + 0x12A


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
    return exceptions_in_flight(target, StackBounds(LIMIT, BASE), SearchStart(frames, low)).exceptions


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


def test_pointers_that_lead_to_the_same_exception_are_named_as_a_route():
    stack, *_ = filter_called_with_pointers()
    (found,) = search(stack, filter_frame(0x045BA77C), low=0x045BA77C)
    assert found.found_by == "UnhandledExceptionFilter argument, EXCEPTION_POINTERS on the stack"


def test_pointers_alone_count_where_no_frame_leads_to_an_exception():
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
def test_a_context_that_cannot_be_one_of_this_thread_is_not_taken(context: dict[str, int]):
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


def test_a_record_with_more_than_15_parameters_is_not_taken():
    stack, record, saved = Stack(LIMIT, BASE), Label("record"), Label("context")
    stack.at(0x045BA7A4).d32(record, saved)
    put_context(stack, 0x045BA888, saved)
    put_record(stack, 0x045BAB68, record, parameters=16)
    assert search(stack) == ()


def test_pointers_below_the_given_address_do_not_count():
    stack, *_ = filter_called_with_pointers()
    assert search(stack, low=0x045BA88C) == ()


NTDLL = Module("ntdll.dll", r"C:\WINDOWS\system32\ntdll.dll", 0x7C800000, 0xC0000)
NTDLL_SYMBOLS = {
    "RtlUnwind": 0x4000,
    "KiUserExceptionDispatcher": 0x1000,
    "RtlRaiseException": 0x2000,
    "ExecuteHandler2": 0x3000,
}


def ntdll_frame(symbol: str, sp: int, child_ebp: int, returns_to: int = 0) -> Frame:
    ip = NTDLL.base + NTDLL_SYMBOLS[symbol] + 0x10
    registers = Registers.named(Arch.X86, {"eip": ip, "esp": sp})
    return Frame(registers, child_ebp, returns_to, child_ebp + 4, Trust.FRAME_POINTER)


def in_flight(stack: Stack, *frames: Frame, **blocked: object) -> FoundExceptions:
    symbols = {"kernel32.dll": {"UnhandledExceptionFilter": FILTER_RVA}, "ntdll.dll": NTDLL_SYMBOLS}
    modules, walk = [KERNEL32, NTDLL], Walk(frames, End.THREAD_START)
    target = make_target(Arch.X86, modules, {LIMIT: stack.data()}, symbols, walk)
    return exceptions_in_flight(target, StackBounds(LIMIT, BASE), SearchStart(frames, LIMIT, **blocked))


def delivered(stack: Stack, at: int, *, code: int = 0xC0000005, **context: int) -> None:
    """What the kernel builds at esp of KiUserExceptionDispatcher: two pointers, the record, the CONTEXT."""
    record, saved = Label("record"), Label("context")
    stack.at(at).d32(record, saved)
    put_record(stack, at + 8, record, code=code)
    put_context(stack, at + 0x58, saved, esp=at + 0x400, **context)


@pytest.mark.parametrize("popped", [0, 4, 8])
def test_the_dispatchers_esp_points_at_record_and_context(popped: int):
    at, stack = LIMIT + 0x3000, Stack(LIMIT, BASE)
    delivered(stack, at)
    found = in_flight(stack, ntdll_frame("KiUserExceptionDispatcher", at - popped, at + 0x600))
    (only,) = found.exceptions
    assert (only.record.location, only.context.address) == (at + 8, at + 0x58)
    assert only.routes == (Route.DISPATCHER, Route.POINTERS)


def test_rtlraiseexception_has_the_context_in_its_frame_and_the_record_as_its_argument():
    ebp, stack, record, saved = 0x045BAB58, Stack(LIMIT, BASE), Label("record"), Label("context")
    stack.at(ebp + 4).d32(CONTEXT_IP, record)
    put_context(stack, 0x045BA888, saved)  # esp as the caller will have it: the argument popped
    put_record(stack, 0x045BAB68, record)
    found = in_flight(stack, ntdll_frame("RtlRaiseException", 0x045BA880, ebp, CONTEXT_IP))
    (only,) = found.exceptions
    assert (only.context.address, only.routes) == (int(saved), (Route.RAISE,))


def nested_registration(stack: Stack, node: int, record: int, context: int, *, extra: int = 0) -> None:
    """ExecuteHandler's registration: {next, handler in ntdll, the one asked}, ebp, return address, arguments."""
    asked = 0x045BFFDC
    stack.at(node).d32(0xFFFFFFFF, NTDLL.base + 0x5000, asked)
    stack.at(node + 0x14 + extra).d32(record, asked, context, node - 0x40)


@pytest.mark.parametrize("extra", [0, 0xC])
def test_a_nested_registration_leads_to_the_exception_whatever_frames_the_walk_has(extra: int):
    at, stack = LIMIT + 0x3000, Stack(LIMIT, BASE)
    delivered(stack, at)
    nested_registration(stack, at - 0x200, at + 8, at + 0x58, extra=extra)
    found = in_flight(stack, registrations=(at - 0x200,), proves_exception=False)
    (only,) = found.exceptions
    assert only.context.address == at + 0x58
    assert only.routes[0] is Route.REGISTRATION


def test_exceptions_further_out_are_found_by_their_nested_registrations():
    inner, outer, stack = LIMIT + 0x2000, LIMIT + 0x5000, Stack(LIMIT, BASE)
    for at, code in ((inner, 0xC0000094), (outer, 0xC0000005)):
        delivered(stack, at, code=code)
        nested_registration(stack, at - 0x200, at + 8, at + 0x58)
    found = in_flight(stack, registrations=(inner - 0x200, outer - 0x200))
    assert [item.record.code for item in found.exceptions] == [0xC0000094, 0xC0000005]


def asked_handler(stack: Stack, at: int) -> tuple[Frame, Frame]:
    """ExecuteHandler2, which passes record and CONTEXT of the exception at `at` to a handler, and the dispatcher."""
    ebp = at - 0x100
    stack.at(ebp + 8).d32(at + 8, 0x045BFFDC, at + 0x58)
    return ntdll_frame("ExecuteHandler2", ebp - 0x20, ebp), ntdll_frame("KiUserExceptionDispatcher", at, at + 0x600)


def test_an_exception_whose_registration_is_unlinked_was_taken_by_a_handler():
    """A C++ catch block of x86 runs below the dispatcher's frames, which are still on the stack."""
    at, stack = LIMIT + 0x3000, Stack(LIMIT, BASE)
    delivered(stack, at)
    of_block = at - 0x180
    stack.at(of_block).d32(BASE - 0x24, CONTEXT_IP)
    stack.at(BASE - 0x24).d32(0xFFFFFFFF)
    found = in_flight(stack, *asked_handler(stack, at), registrations=(of_block, BASE - 0x24), proves_exception=False)
    assert found.exceptions == ()
    assert [item.context.address for item in found.taken] == [at + 0x58]
    assert found.notes == ()


def test_an_exception_for_which_no_handler_of_a_frame_was_called_needs_no_registration():
    """Vectored handlers, the dispatcher's lock and NtRaiseException come before ExecuteHandler, or after it."""
    at, stack = LIMIT + 0x3000, Stack(LIMIT, BASE)
    delivered(stack, at)
    stack.at(BASE - 0x24).d32(0xFFFFFFFF)
    dispatcher = ntdll_frame("KiUserExceptionDispatcher", at, at + 0x600)
    found = in_flight(stack, dispatcher, registrations=(BASE - 0x24,), proves_exception=False)
    assert [item.context.address for item in found.exceptions] == [at + 0x58]
    assert found.notes == ()


@pytest.mark.parametrize("flags", [0x2, 0x4 | 0x1])
def test_a_record_with_the_flags_of_unwinding_was_taken(flags: int):
    at, stack = LIMIT + 0x3000, Stack(LIMIT, BASE)
    record, saved = Label("record"), Label("context")
    stack.at(at).d32(record, saved)
    stack.at(at + 8).mark(record).d32(0xC0000005, flags, 0, CONTEXT_IP, 0)
    put_context(stack, at + 0x58, saved, esp=at + 0x400)
    dispatcher = ntdll_frame("KiUserExceptionDispatcher", at, at + 0x600)
    unwinder = ntdll_frame("RtlUnwind", at - 0x200, at - 0x100)
    found = in_flight(stack, unwinder, dispatcher, proves_exception=False)
    assert (len(found.exceptions), len(found.taken)) == (0, 1)
    doubted = in_flight(stack, dispatcher, proves_exception=False)
    assert (len(doubted.exceptions), len(doubted.taken), len(doubted.notes)) == (1, 0, 1)


def test_the_registration_that_rtlunwind_makes_is_none_of_a_dispatch():
    """It has the record, but a CONTEXT of RtlUnwind's own: a __finally block runs."""
    at, stack = LIMIT + 0x3000, Stack(LIMIT, BASE)
    record, saved = Label("record"), Label("context")
    stack.at(at + 8).mark(record).d32(0xC0000005, 0x2, 0, CONTEXT_IP, 0)
    put_context(stack, at + 0x58, saved, esp=at + 0x400)
    nested_registration(stack, at - 0x200, at + 8, at + 0x58)
    assert in_flight(stack, registrations=(at - 0x200,), proves_exception=False).exceptions == ()


def test_where_routes_disagree_the_most_reliable_is_taken_and_a_note_names_the_other():
    at, stack = LIMIT + 0x3000, Stack(LIMIT, BASE)
    delivered(stack, at)
    other, record = Label("other"), Label("other record")
    put_context(stack, at - 0x800, other, esp=at + 0x404)
    put_record(stack, at - 0x400, record, code=0xC0000094)
    stack.at(at - 0x900 + 8).d32(record, 0x045BFFDC, other)
    found = in_flight(
        stack,
        ntdll_frame("ExecuteHandler2", at - 0x980, at - 0x900),
        ntdll_frame("KiUserExceptionDispatcher", at - 0x820, at + 0x600),
        ntdll_frame("KiUserExceptionDispatcher", at, at + 0x600),
    )
    assert found.exceptions[0].context.address == at + 0x58
    assert found.notes == (
        (
            f"ExecuteHandler arguments gives another context, {int(other):#x} with exception 0xc0000094, "
            "than KiUserExceptionDispatcher frame"
        ),
    )


def test_a_chain_of_registrations_that_breaks_off_does_not_prove_that_one_was_unlinked():
    at, stack = LIMIT + 0x3000, Stack(LIMIT, BASE)
    delivered(stack, at)
    stack.at(BASE - 0x24).d32(0x12345678)
    found = in_flight(stack, *asked_handler(stack, at), registrations=(BASE - 0x24,), proves_exception=False)
    assert [item.context.address for item in found.exceptions] == [at + 0x58]
    assert found.notes[0].endswith("the thread's exception registrations are not known, or not to their end")
