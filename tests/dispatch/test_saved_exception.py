# SPDX-License-Identifier: Apache-2.0
"""What a record and a CONTEXT must have to be an exception of a thread, and which route counts if several find it."""

from __future__ import annotations

import pytest

from tests.forge.stacks import Stack
from tests.support.targets import make_target, with_budget
from tests.support.x64_saved import put_context, put_record
from throwstack.core.contexts import Context
from throwstack.core.exception_record import ExceptionRecord
from throwstack.core.frames import End, StackBounds, Walk
from throwstack.core.registers import Arch, Registers
from throwstack.dispatch.saved_exception import Route, SavedException, merge, rank, saved_exception
from throwstack.images.modules import Module
from throwstack.unwind.target import Target

LIMIT, BASE = 0x1F_FFF0_0000, 0x1F_FFF1_0000
APP = Module("app.exe", "", 0x7FF6_0000_0000, 0x10000)
NTDLL = Module("ntdll.dll", "", 0x7FFA_1000_0000, 0x20_0000)
NAMES = {"ntdll.dll": {"RtlRaiseException": 0x4000, "RtlRaiseStatus": 0x5000, "RtlOther": 0x6000}}
FAULT, IN_RAISE_STATUS, IN_RAISE = APP.base + 0x1234, NTDLL.base + 0x5051, NTDLL.base + 0x4051
JIT, UNMAPPED = 0x7FF6_8000_0000, 0x1234_5678
AT, SP, RECORD = LIMIT + 0x8000, LIMIT + 0x9000, LIMIT + 0xA000
CONTEXT_SIZE = 0x4D0
ACCESS_VIOLATION, DIVIDE_BY_ZERO = 0xC0000005, 0xC0000094


def process(stack: Stack, *, shift: int = 0) -> Target:
    """A process with this stack, `shift` bytes higher than it was laid out."""
    memory = {LIMIT: bytes(shift) + stack.data()[: BASE - LIMIT - shift], JIT: b"\x90" * 0x1000, 0: bytes(0x1000)}
    return make_target(Arch.X64, [NTDLL, APP], memory, NAMES, Walk((), End.THREAD_START))


def saved(
    *,
    rip: int = FAULT,
    names: int | None = None,
    rsp: int = SP,
    at: int = AT,
    record: int = RECORD,
    code: int = ACCESS_VIOLATION,
    route: Route = Route.DISPATCHER,
    **context: int,
) -> SavedException | None:
    """The exception of a CONTEXT at `at` and a record that names the instruction `names`, or else `rip`."""
    stack = Stack(LIMIT, BASE)
    put_context(stack, at, rip=rip, rsp=rsp, **context)
    put_record(stack, record, code=code, ip=rip if names is None else names)
    return saved_exception(process(stack), StackBounds(LIMIT, BASE), record, at, route=route, frame_sp=AT - 0x100)


def test_a_record_and_a_context_that_fit_are_an_exception():
    found = saved()
    assert found is not None
    assert (found.record.location, found.context.address, found.key) == (RECORD, AT, (FAULT, SP))
    assert (found.routes, found.frame_sp, found.where) == ((Route.DISPATCHER,), AT - 0x100, f"context {AT:#x}")


@pytest.mark.parametrize(
    ("flags", "cs", "is_good"), [(0x10005F, 0x33, True), (0x10005F, 0x10, False), (0x100001, 0x33, False)]
)
def test_a_context_has_the_flags_and_the_selectors_of_user_mode(flags: int, cs: int, is_good: bool):
    assert (saved(flags=flags, cs=cs) is not None) is is_good


@pytest.mark.parametrize(("record", "context"), [(UNMAPPED, AT), (RECORD, UNMAPPED)])
def test_what_cannot_be_read_is_no_exception(record: int, context: int):
    stack = Stack(LIMIT, BASE)
    put_context(stack, AT, rip=FAULT, rsp=SP)
    put_record(stack, RECORD, ip=FAULT)
    bounds = StackBounds(LIMIT, BASE)
    assert saved_exception(process(stack), bounds, record, context, route=Route.DISPATCHER, frame_sp=AT) is None


def test_each_look_costs_a_check_and_without_one_nothing_is_found():
    stack = Stack(LIMIT, BASE)
    put_context(stack, AT, rip=FAULT, rsp=SP)
    put_record(stack, RECORD, ip=FAULT)
    target, bounds = with_budget(process(stack), checks=2), StackBounds(LIMIT, BASE)
    looks = [saved_exception(target, bounds, RECORD, AT, route=Route.RAISE, frame_sp=AT) for _ in range(3)]
    assert [look is not None for look in looks] == [True, True, False]


@pytest.mark.parametrize(
    ("rsp", "is_good"),
    [(BASE, True), (BASE - 8, True), (BASE + 8, False), (LIMIT - 8, False), (AT + 0x10, True), (AT, False)],
    ids=["base", "below the base", "beyond the base", "below the limit", "above the CONTEXT", "at the CONTEXT"],
)
def test_sp_is_on_the_stack_and_above_the_context(rsp: int, is_good: bool):
    assert (saved(rsp=rsp) is not None) is is_good


@pytest.mark.parametrize(
    ("distance", "is_good"), [(0xFF0, True), (0xFFF, True), (0x1000, False)], ids=["inside", "at its end", "beyond"]
)
def test_a_context_above_its_sp_is_near_it_in_the_frame_of_a_function_that_captured_itself(
    distance: int, is_good: bool
):
    assert (saved(rip=IN_RAISE_STATUS, rsp=AT - distance) is not None) is is_good
    assert saved(rip=IN_RAISE, rsp=AT - distance) is None


@pytest.mark.parametrize("shift", [0, 1, 2, 4, 8])
def test_a_context_of_x64_is_aligned_to_16_bytes(shift: int):
    stack = Stack(LIMIT, BASE)
    put_context(stack, AT, rip=FAULT, rsp=SP)
    put_record(stack, RECORD, ip=FAULT)
    target, bounds = process(stack, shift=shift), StackBounds(LIMIT, BASE)
    found = saved_exception(target, bounds, RECORD + shift, AT + shift, route=Route.RAISE, frame_sp=AT)
    assert (found is not None) is (shift == 0)


@pytest.mark.parametrize(("place", "is_good"), [(CONTEXT_SIZE, True), (-0x98, True)], ids=["after", "before"])
def test_the_record_may_be_right_beside_the_context(place: int, is_good: bool):
    assert (saved(record=AT + place) is not None) is is_good


@pytest.mark.parametrize("place", [0, CONTEXT_SIZE - 8], ids=["its first bytes", "its last bytes"])
def test_the_record_is_not_in_the_context(place: int):
    """The CONTEXT has what a record has there: its first words and its vector registers are any numbers."""
    stack = Stack(LIMIT, BASE)
    put_record(stack, AT + place, ip=FAULT)
    data = Stack(LIMIT, BASE)
    put_context(data, AT, rip=FAULT, rsp=SP)
    words = {**data.pieces(), **stack.pieces()}
    memory = bytearray(BASE - LIMIT)
    for address, piece in words.items():
        memory[address - LIMIT : address - LIMIT + len(piece)] = piece
    target = make_target(Arch.X64, [APP], {LIMIT: bytes(memory)}, {}, Walk((), End.THREAD_START))
    bounds = StackBounds(LIMIT, BASE)
    assert saved_exception(target, bounds, AT + place, AT, route=Route.DISPATCHER, frame_sp=AT) is None


def test_a_record_has_a_code():
    assert saved(code=0) is None


@pytest.mark.parametrize("ip", [0, UNMAPPED])
@pytest.mark.parametrize(
    ("code", "is_good"),
    [
        (0xC0000005, True),  # STATUS_ACCESS_VIOLATION
        (0xC0000006, True),  # STATUS_IN_PAGE_ERROR
        (0xC000001D, True),  # STATUS_ILLEGAL_INSTRUCTION
        (0xC0000096, True),  # STATUS_PRIVILEGED_INSTRUCTION
        (0xC0000094, False),  # STATUS_INTEGER_DIVIDE_BY_ZERO: an instruction was executed
        (0xE06D7363, False),
    ],
)
def test_a_jump_to_an_address_without_code_faults_in_few_ways(ip: int, code: int, is_good: bool):
    assert (saved(rip=ip, code=code) is not None) is is_good


def test_code_that_was_made_at_run_time_may_fault_in_any_way():
    assert saved(rip=JIT, code=DIVIDE_BY_ZERO) is not None


def test_outside_images_record_and_context_name_one_instruction():
    assert saved(rip=UNMAPPED, names=FAULT) is None
    assert saved(rip=JIT, names=FAULT) is None


@pytest.mark.parametrize("route", list(Route))
def test_words_that_only_look_like_pointers_need_more_than_a_record_and_a_context(route: Route):
    """What Windows itself keeps at a known place may name two instructions. Two adjacent pointers may, for a raiser."""
    alone = route not in {Route.HANDLER_ARGUMENTS, Route.REGISTER, Route.POINTERS, Route.SCAN}
    assert (saved(route=route, names=FAULT + 4) is not None) is alone
    raised_anew = saved(route=route, rip=IN_RAISE, names=FAULT)
    assert (raised_anew is not None) is (alone or route in {Route.REGISTER, Route.POINTERS})
    assert saved(route=route) is not None


def exception(
    *routes: Route, ip: int = FAULT, sp: int = SP, at: int = AT, frame_sp: int = AT - 0x100
) -> SavedException:
    record = ExceptionRecord(ACCESS_VIOLATION, 0, ip, 0, (), RECORD, 0)
    registers = Registers.named(Arch.X64, {"rip": ip, "rsp": sp})
    return SavedException(record, Context(Arch.X64, at, 0, registers, *[0] * 7), routes, frame_sp)


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        pytest.param(Route.FAST_FAIL, Route.KERNEL_STACK, id="the trap frame has the registers themselves"),
        pytest.param(Route.KERNEL_STACK, Route.FILTER_ARGUMENT, id="user mode cannot write to the kernel's stack"),
        pytest.param(Route.FILTER_ARGUMENT, Route.DISPATCHER, id="the filter's argument is at one exact place"),
        pytest.param(Route.DISPATCHER, Route.RAISE, id="the kernel's place is exact, the raiser's is searched"),
        pytest.param(Route.RAISE, Route.FAIL_FAST_FRAME, id="a captured state over one that a program gives"),
        pytest.param(Route.FAIL_FAST_FRAME, Route.REGISTRATION, id="a frame over a chain that programs change"),
        pytest.param(Route.REGISTRATION, Route.HANDLER_ARGUMENTS, id="a linked registration over any frame's words"),
        pytest.param(Route.HANDLER_ARGUMENTS, Route.GLOBALS, id="this thread's stack over the whole process's globals"),
        pytest.param(Route.GLOBALS, Route.REGISTER, id="names over values"),
        pytest.param(Route.REGISTER, Route.POINTERS, id="what a function holds over what may be left on the stack"),
        pytest.param(Route.POINTERS, Route.SCAN, id="something points there"),
    ],
)
def test_of_two_routes_to_one_exception_the_more_reliable_gives_the_context(better: Route, worse: Route):
    """The two CONTEXTs have the same ip and sp: the one is a copy of the other."""
    one, other = exception(better, at=AT), exception(worse, at=AT - 0x1000, frame_sp=AT - 0x2000)
    for found in ([one, other], [other, one]):
        (merged,) = merge(found)
        assert (merged.routes, merged.context.address, merged.frame_sp) == ((better, worse), AT, AT - 0x2000)
    assert rank(one) < rank(other)


def test_a_route_is_named_once_and_the_best_one_ranks():
    (merged,) = merge([exception(Route.POINTERS), exception(Route.RAISE, Route.POINTERS)])
    assert merged.routes == (Route.RAISE, Route.POINTERS)
    assert merged.found_by == "RtlRaiseException frame, EXCEPTION_POINTERS on the stack"
    assert rank(merged) == rank(exception(Route.RAISE))


def test_exceptions_are_told_apart_by_ip_and_sp_and_ordered_from_the_innermost_out():
    items = [exception(Route.SCAN, sp=SP + 8), exception(Route.SCAN), exception(Route.SCAN, ip=FAULT + 1, sp=SP + 16)]
    assert [item.key for item in merge(items)] == [(FAULT, SP), (FAULT, SP + 8), (FAULT + 1, SP + 16)]


@pytest.mark.parametrize(
    ("frame_sp", "at", "expected"),
    [(SP, SP, True), (SP, SP + 0xC0, True), (SP, SP - 0x10, False), (SP - 0x600, SP + 0xC0, False)],
    ids=["at its sp", "above its sp", "in a frame further in", "found from another frame"],
)
def test_a_function_that_captured_itself_has_the_context_in_its_own_frame(frame_sp: int, at: int, expected: bool):
    assert exception(Route.RAISE, frame_sp=frame_sp, at=at).is_in_own_frame is expected
