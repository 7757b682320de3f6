# SPDX-License-Identifier: Apache-2.0
"""What single frames and registrations of x86 give: arguments, captured states, and their bounds.

A frame of these tests goes from `SP` to its saved ebp at `EBP`; its function returns to `CONTEXT_IP`. Unless a test
says otherwise, the stack has one exception, with `RECORD` and `CONTEXT`.
"""

from __future__ import annotations

import pytest

from tests.forge.stacks import Label, Stack
from tests.support.targets import make_target, with_budget
from tests.support.x86_saved import CONTEXT_IP, put_context, put_record
from throwstack.core.frames import End, Frame, StackBounds, Trust, Walk
from throwstack.core.registers import Arch, Registers
from throwstack.dispatch.saved_exception import Route, SavedException
from throwstack.dispatch.x86 import from_frame, from_registrations, from_unnamed_frame, is_whole_chain
from throwstack.images.modules import Module
from throwstack.names.symbols import Name
from throwstack.unwind.target import Target

LIMIT, BASE = 0x045B8000, 0x045C0000
KERNEL32 = Module("kernel32.dll", "", 0x77E40000, 0x100000)
NTDLL = Module("ntdll.dll", "", 0x7C800000, 0xC0000)
SP, EBP = LIMIT + 0x2000, LIMIT + 0x4000
RECORD, CONTEXT = LIMIT + 0x5000, LIMIT + 0x5100
MAX_FRAME = 0x1000


def process(stack: Stack, **budget: int) -> Target:
    walk = Walk((), End.THREAD_START)
    target = make_target(Arch.X86, [KERNEL32, NTDLL], {LIMIT: stack.data()}, {}, walk)
    return with_budget(target, **budget) if budget else target


def thrown(context: int = CONTEXT, **members: int) -> Stack:
    stack = Stack(LIMIT, BASE)
    put_record(stack, RECORD, Label("record"))
    put_context(stack, context, Label("context"), **{"esp": LIMIT + 0x6000, **members})
    return stack


def gives(stack: Stack, name: str, *arguments: int, module: str = "ntdll", **budget: int) -> SavedException | None:
    """What the frame of the function `name` gives. Without a name, it is one of an ntdll without names."""
    stack.at(EBP + 4).d32(CONTEXT_IP, *arguments)
    target = process(stack, **budget)
    frame = Frame(Registers.named(Arch.X86, {"eip": 0, "esp": SP}), EBP, CONTEXT_IP, EBP + 4, Trust.FRAME_POINTER)
    bounds = StackBounds(LIMIT, BASE)
    if not name:
        return from_unnamed_frame(target, bounds, frame)
    return from_frame(target, bounds, frame, Name(0, module, name))


@pytest.mark.parametrize(
    ("module", "name", "is_handler"),
    [
        ("ntdll", "ExecuteHandler2", True),
        ("NTDLL", "RtlDispatchException", True),
        ("msvcr71", "_except_handler3", True),
        ("app", "__CxxFrameHandler3", True),
        ("app", "main", False),
    ],
)
def test_handlers_and_functions_of_ntdll_are_given_record_and_context(module: str, name: str, is_handler: bool):
    asked = gives(thrown(), name, RECORD, 0x045BFFDC, CONTEXT, module=module)
    beside = gives(thrown(), name, RECORD, CONTEXT, module=module)
    for found in (asked, beside):
        assert (found is not None and found.routes == (Route.HANDLER_ARGUMENTS,)) is is_handler


@pytest.mark.parametrize("at_esp", [True, False])
def test_a_nameless_function_of_ntdll_may_be_the_dispatcher_or_one_that_asks_a_handler(at_esp: bool):
    stack = thrown()
    if at_esp:
        stack.at(SP).d32(RECORD, CONTEXT)
    found = gives(stack, "", *([] if at_esp else [RECORD, 0x045BFFDC, CONTEXT]))
    assert found is not None
    assert found.routes == ((Route.DISPATCHER if at_esp else Route.HANDLER_ARGUMENTS),)


def test_a_nameless_function_of_ntdll_may_be_one_that_raises():
    found = gives(thrown(SP + 0x1800, esp=EBP + 8), "", RECORD)
    assert found is not None
    assert (found.routes, found.context.address) == ((Route.RAISE,), SP + 0x1800)


@pytest.mark.parametrize("name", ["RtlRaiseException", "RaiseFailFastException"])
@pytest.mark.parametrize(
    ("context", "members"),
    [
        pytest.param(CONTEXT, {}, id="none in the frame"),
        pytest.param(SP + 0x1800, {"eip": CONTEXT_IP + 1, "esp": EBP + 8}, id="of another instruction"),
        pytest.param(SP + 0x1800, {"esp": EBP}, id="esp before the return"),
        pytest.param(SP + 0x1800, {"esp": EBP + 13}, id="esp further out by a byte"),
        pytest.param(SP + 0x1800, {"esp": EBP + 16}, id="esp further out"),
        pytest.param(SP + 0x1800, {"esp": EBP + 8, "flags": 0x10001}, id="without integer registers"),
    ],
)
def test_a_raiser_without_its_callers_state_in_its_frame_gives_nothing(
    name: str, context: int, members: dict[str, int]
):
    assert gives(thrown(context, **members), name, RECORD, 0) is None


@pytest.mark.parametrize("esp", [EBP + 4, EBP + 8, EBP + 12], ids=["at the return address", "returned", "popped"])
@pytest.mark.parametrize("name", ["RtlRaiseException", "RaiseFailFastException"])
def test_the_state_of_a_raisers_caller_has_the_return_address_and_perhaps_the_argument_popped(name: str, esp: int):
    found = gives(thrown(SP + 0x1800, esp=esp), name, RECORD, 0)
    assert found is not None
    assert (found.record.location, found.context.address) == (RECORD, SP + 0x1800)


@pytest.mark.parametrize(("below", "is_found"), [(MAX_FRAME, True), (MAX_FRAME + 4, False)])
def test_the_context_is_in_the_last_4_kib_of_a_raisers_frame(below: int, is_found: bool):
    found = gives(thrown(EBP + 4 - below, esp=EBP + 8), "RtlRaiseException", RECORD)
    assert (found is not None) is is_found


@pytest.mark.parametrize(("checks", "is_found"), [(4, True), (3, False), (1, False)])
def test_each_place_in_the_frame_that_is_looked_at_costs_a_check(checks: int, is_found: bool):
    """Three places, of a word each, and then the record with the CONTEXT."""
    found = gives(thrown(EBP + 4 - MAX_FRAME + 8, esp=EBP + 8), "RtlRaiseException", RECORD, checks=checks)
    assert (found is not None) is is_found


@pytest.mark.parametrize(
    ("record", "is_found"),
    [(SP, True), (SP + MAX_FRAME - 16, True), (SP + MAX_FRAME - 12, False), (SP - 16, False)],
    ids=["at esp", "at the end of 4 KiB", "beyond", "further in"],
)
def test_a_record_that_raisefailfastexception_builds_is_in_the_first_4_kib_of_its_frame(record: int, is_found: bool):
    """Its last word that is looked at is the instruction's address, 12 bytes after its start."""
    stack = Stack(LIMIT, BASE)
    put_context(stack, EBP - 0x800, Label("context"), esp=EBP + 8)
    put_record(stack, record, Label("record"))
    found = gives(stack, "RaiseFailFastException", 0, 0, module="kernelbase")
    assert (found is not None and found.record.location) == (record if is_found else False)


def test_raisefailfastexception_is_given_a_record_that_can_be_one():
    stack = thrown()
    stack.at(LIMIT + 0x7000).d32(7, 0, 0, CONTEXT_IP, 0)
    assert gives(stack, "RaiseFailFastException", LIMIT + 0x7000, CONTEXT) is None
    assert gives(thrown(), "RaiseFailFastException", 0x10, CONTEXT) is None
    assert gives(thrown(), "RaiseFailFastException", RECORD, CONTEXT) is not None


ASKED, NODE = 0x045BFFDC, LIMIT + 0x1000


def registered(
    stack: Stack, *, handler: int = NTDLL.base + 0x5000, asked: int = ASKED, extra: int = 8
) -> list[SavedException]:
    """The exceptions of one registration, `extra` bytes after which ExecuteHandler's arguments are."""
    stack.at(NODE).d32(0xFFFFFFFF, handler, asked)
    stack.at(NODE + 12 + extra).d32(RECORD, ASKED, CONTEXT)
    return list(from_registrations(process(stack), StackBounds(LIMIT, BASE), (NODE,)))


def test_a_nested_registration_has_the_handler_of_ntdll_and_the_registration_that_was_asked():
    (found,) = registered(thrown())
    assert (found.record.location, found.context.address, found.frame_sp) == (RECORD, CONTEXT, NODE)
    assert registered(thrown(), handler=KERNEL32.base + 0x5000) == []
    assert registered(thrown(), handler=0x1234) == []
    assert registered(thrown(), asked=ASKED + 4) == []


@pytest.mark.parametrize(("extra", "is_found"), [(0, True), (8, True), (0x30, True), (0x34, False)])
def test_the_arguments_are_after_the_registration_within_64_bytes_of_its_start(extra: int, is_found: bool):
    assert bool(registered(thrown(), extra=extra)) is is_found


@pytest.mark.parametrize("flags", [0x2, 0x4])
def test_a_record_that_is_being_unwound_is_no_exception_in_flight(flags: int):
    stack = Stack(LIMIT, BASE)
    stack.at(RECORD).d32(0xC0000005, flags, 0, CONTEXT_IP, 0)
    put_context(stack, CONTEXT, Label("context"), esp=LIMIT + 0x6000)
    assert registered(stack) == []


def test_a_registration_whose_arguments_lead_nowhere_does_not_end_the_search():
    stack = thrown(flags=0x10001)  # no CONTEXT
    outer, context = NODE + 0x100, CONTEXT + 0x800
    put_context(stack, context, Label("outer"), esp=LIMIT + 0x7000)
    stack.at(outer).d32(0xFFFFFFFF, NTDLL.base + 0x5000, ASKED)
    stack.at(outer + 0x14).d32(RECORD, ASKED, context)
    assert registered(stack) == []
    chain = (0x1000, NODE, outer)
    found = list(from_registrations(process(stack), StackBounds(LIMIT, BASE), chain))
    assert [item.context.address for item in found] == [context]


@pytest.mark.parametrize(("last", "is_whole"), [(0xFFFFFFFF, True), (0xFFFFFFFE, False)])
def test_a_whole_chain_ends_with_its_mark(last: int, is_whole: bool):
    stack = Stack(LIMIT, BASE).at(NODE).d32(NODE + 0x100).at(NODE + 0x100).d32(last)
    assert is_whole_chain(process(stack), (NODE, NODE + 0x100)) is is_whole


def test_an_empty_chain_is_whole_and_one_that_cannot_be_read_is_not():
    assert is_whole_chain(process(Stack(LIMIT, BASE)), ())
    assert not is_whole_chain(process(Stack(LIMIT, BASE)), (0x1000,))
