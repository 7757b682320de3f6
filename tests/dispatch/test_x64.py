# SPDX-License-Identifier: Apache-2.0
"""Saved contexts on x64 stacks: the kernel's delivery of a fault, and a software exception's own capture."""

from __future__ import annotations

import pytest

from tests.forge.stacks import Stack
from tests.support.targets import make_target, with_budget
from tests.support.x64_saved import APP, BASE, FAULT, LIMIT, NTDLL, frame, of_ntdll, put_context, put_record, search
from throwstack.core.frames import End, StackBounds, Walk
from throwstack.core.registers import Arch
from throwstack.dispatch.saved_exception import Route, SavedException
from throwstack.dispatch.x64 import from_dispatcher_frame, from_raise_frame


@pytest.mark.parametrize("distance", [0x4F0, 0x4D0])
def test_the_dispatchers_rsp_is_the_context_and_the_record_follows(distance: int):
    at, stack = LIMIT + 0x8000, Stack(LIMIT, BASE)
    put_context(stack, at, rip=FAULT, rsp=at + 0x700)
    put_record(stack, at + distance, code=0xC0000005, ip=FAULT, parameters=(0, 0x10))
    (found,) = search(stack, of_ntdll(0xA0FBE, at))
    assert found.context.address == at
    assert found.record.location == at + distance
    assert found.record.parameters == (0, 0x10)
    assert found.routes == (Route.DISPATCHER,)


def test_rtlraiseexception_has_the_context_in_its_frame_and_its_caller_has_the_record():
    raise_sp, caller_sp, raiser = LIMIT + 0x8000, LIMIT + 0x8600, APP.base + 0x888
    stack = Stack(LIMIT, BASE)
    put_context(stack, raise_sp + 0x60, rip=raiser, rsp=caller_sp)
    put_record(stack, caller_sp + 0x20, code=0xE06D7363, ip=raiser, parameters=(0x19930520, 1, 2, 3))
    caller = frame(raiser, caller_sp)
    (found,) = search(stack, of_ntdll(0x4010, raise_sp, raiser), caller)
    assert (found.context.address, found.record.location) == (raise_sp + 0x60, caller_sp + 0x20)
    assert found.routes == (Route.RAISE,)


def test_a_context_in_rtlraiseexceptions_frame_that_is_not_its_callers_is_not_taken():
    raise_sp, caller_sp, raiser = LIMIT + 0x8000, LIMIT + 0x8600, APP.base + 0x888
    stack = Stack(LIMIT, BASE)
    put_context(stack, raise_sp + 0x60, rip=APP.base + 0x999, rsp=caller_sp)
    put_record(stack, caller_sp + 0x20, code=0xE06D7363, ip=raiser)
    caller = frame(raiser, caller_sp)
    assert search(stack, of_ntdll(0x4010, raise_sp, raiser), caller) == ()


def test_a_context_that_is_not_aligned_to_16_bytes_is_not_taken():
    at, stack = LIMIT + 0x8008, Stack(LIMIT, BASE)
    put_context(stack, at, rip=FAULT, rsp=at + 0x700)
    put_record(stack, at + 0x4F0, code=0xC0000005, ip=FAULT)
    assert search(stack, of_ntdll(0xA0FBE, at)) == ()


@pytest.mark.parametrize("distance", [0x4D8, 0x500, 0x5C0, 0x638])
def test_a_record_is_found_at_other_distances_from_the_context_too(distance: int):
    at, stack = LIMIT + 0x8000, Stack(LIMIT, BASE)
    put_context(stack, at, rip=FAULT, rsp=at + 0x900)
    put_record(stack, at + distance, code=0xC0000005, ip=FAULT)
    (found,) = search(stack, of_ntdll(0xA0FBE, at))
    assert (found.record.location, found.routes) == (at + distance, (Route.DISPATCHER,))


def test_the_ip_inside_a_context_is_not_taken_for_a_record():
    at, stack = LIMIT + 0x8000, Stack(LIMIT, BASE)
    put_context(stack, at, rip=FAULT, rsp=at + 0x900)
    assert search(stack, of_ntdll(0xA0FBE, at)) == ()


def test_a_record_further_from_the_context_belongs_to_something_else():
    at, stack = LIMIT + 0x8000, Stack(LIMIT, BASE)
    put_context(stack, at, rip=FAULT, rsp=at + 0x900)
    put_record(stack, at + 0x640, code=0xC0000005, ip=FAULT)
    target = make_target(Arch.X64, [APP], {LIMIT: stack.data()}, {}, Walk((), End.THREAD_START))
    assert from_dispatcher_frame(target, StackBounds(LIMIT, BASE), of_ntdll(0xA0FBE, at)) is None


def test_of_two_records_the_one_after_the_context_ex_counts():
    """What is right after the CONTEXT may be left from an earlier, smaller one."""
    at, stack = LIMIT + 0x8000, Stack(LIMIT, BASE)
    put_context(stack, at, rip=FAULT, rsp=at + 0x900)
    put_record(stack, at + 0x4D0, code=0xC0000094, ip=FAULT)
    put_record(stack, at + 0x4F0, code=0xC0000005, ip=FAULT)
    (found,) = search(stack, of_ntdll(0xA0FBE, at))
    assert found.record.code == 0xC0000005


# A function that raises: its frame from `RAISE` to `CALLER`, where that of the program begins, on a stack of 256 KiB.
HIGH = LIMIT + 0x40000
RAISE, CALLER = LIMIT + 0x18000, LIMIT + 0x18600
RAISER = APP.base + 0x888
IN_RAISE, IN_RAISE_STATUS = NTDLL.base + 0x4010, NTDLL.base + 0x5051
MAX_FRAME = 0x10000
RAISERS = {"ntdll.dll": {"RtlRaiseException": 0x4000, "RtlRaiseStatus": 0x5000}}


def raised(
    stack: Stack, *, ip: int = IN_RAISE, caller: int = CALLER, missing: range | None = None, **budget: int
) -> SavedException | None:
    """What the frame of a raiser gives. The page `missing` is not in memory."""
    data = stack.data()
    memory = {LIMIT: data}
    if missing is not None:
        memory = {LIMIT: data[: missing.start - LIMIT], missing.stop: data[missing.stop - LIMIT :]}
    target = make_target(Arch.X64, [NTDLL, APP], memory, RAISERS, Walk((), End.THREAD_START))
    target = with_budget(target, **budget) if budget else target
    return from_raise_frame(target, StackBounds(LIMIT, stack.base), frame(ip, RAISE), frame(RAISER, caller))


def captured(at: int = RAISE + 0x60, *, caller: int = CALLER) -> Stack:
    """A stack on which RtlRaiseException has captured its caller's state at `at`."""
    stack = Stack(LIMIT, HIGH)
    put_context(stack, at, rip=RAISER, rsp=caller)
    return stack


@pytest.mark.parametrize(
    ("record", "is_found"),
    [
        pytest.param(CALLER, True, id="at the caller's rsp"),
        pytest.param(CALLER + MAX_FRAME - 0x18, True, id="at the end of 64 KiB"),
        pytest.param(CALLER + MAX_FRAME - 0x10, False, id="beyond"),
        pytest.param(RAISE, True, id="at the raiser's rsp"),
        pytest.param(CALLER - 0x18, True, id="at the end of its frame"),
        pytest.param(RAISE - 0x20, False, id="further in"),
    ],
)
def test_the_record_is_in_the_frame_of_the_caller_or_of_the_raiser(record: int, is_found: bool):
    """Its last word that is looked at is the instruction's address, 0x10 bytes after its start."""
    stack = captured()
    put_record(stack, record, code=0xE0000001, ip=RAISER)
    found = raised(stack)
    assert (found is not None and found.record.location) == (record if is_found else False)


@pytest.mark.parametrize(("flags", "is_found"), [(0, True), (0xFF, True), (0x100, False), (0x1000000, False)])
def test_the_flags_of_a_record_are_those_of_winnt(flags: int, is_found: bool):
    stack = captured()
    put_record(stack, CALLER + 0x20, code=0xE0000001, ip=RAISER, flags=flags)
    assert (raised(stack) is not None) is is_found


def test_a_record_may_point_to_another():
    stack = captured()
    put_record(stack, CALLER + 0x20, code=0xE0000001, ip=RAISER, nested=CALLER + 0x208)
    assert raised(stack) is not None


def test_a_code_may_be_any_number_but_0():
    for code, is_found in ((1, True), (0, False)):
        stack = captured()
        put_record(stack, CALLER + 0x20, code=code, ip=RAISER)
        assert (raised(stack) is not None) is is_found


@pytest.mark.parametrize(
    ("at", "is_found"),
    [(0, True), (MAX_FRAME - 0x10, True), (MAX_FRAME, False), (-0x10, False)],
    ids=["at rsp", "at the end of 64 KiB", "beyond", "further in"],
)
def test_the_context_is_in_the_first_64_kib_of_the_raisers_frame(at: int, is_found: bool):
    caller = RAISE + MAX_FRAME + 0x1000
    stack = captured(RAISE + at, caller=caller)
    put_record(stack, caller + 0x20, code=0xE0000001, ip=RAISER)
    assert (raised(stack, caller=caller) is not None) is is_found


@pytest.mark.parametrize(("rip", "rsp", "flags"), [(RAISER, CALLER, 0x100001), (FAULT, CALLER, 0), (RAISER, 8, 0)])
def test_a_context_that_is_not_its_callers_does_not_hide_the_one_that_is(rip: int, rsp: int, flags: int):
    stack = captured(RAISE + 0x800, caller=CALLER + 0x1000)
    put_context(stack, RAISE, rip=rip, rsp=rsp if rsp != CALLER else CALLER + 0x1000, flags=flags or 0x10005F)
    put_record(stack, CALLER + 0x1020, code=0xE0000001, ip=RAISER)
    found = raised(stack, caller=CALLER + 0x1000)
    assert found is not None
    assert found.context.address == RAISE + 0x800


@pytest.mark.parametrize(("checks", "is_found"), [(4, True), (3, False), (1, False)])
def test_each_place_that_is_looked_at_costs_a_check(checks: int, is_found: bool):
    """Three places, of 16 bytes, and then the record with the CONTEXT."""
    stack = captured(RAISE + 0x20)
    put_record(stack, CALLER + 0x20, code=0xE0000001, ip=RAISER)
    assert (raised(stack, checks=checks) is not None) is is_found


def test_a_frame_that_is_not_in_memory_gives_nothing():
    stack = captured(RAISE + 0x2000, caller=RAISE + 0x3000)
    put_record(stack, RAISE + 0x3020, code=0xE0000001, ip=RAISER)
    assert raised(stack, caller=RAISE + 0x3000) is not None
    assert raised(stack, caller=RAISE + 0x3000, missing=range(RAISE + 0x1000, RAISE + 0x2000)) is None


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        pytest.param([RAISE - 0x200], CALLER + 0x20, id="in a function that it called"),
        pytest.param([RAISE - 0x200, RAISE - 0x100], CALLER + 0x120, id="the nearest"),
        pytest.param([RAISE - MAX_FRAME], CALLER + 0x20, id="64 KiB further in"),
        pytest.param([RAISE - MAX_FRAME - 8], None, id="still further in"),
        pytest.param([RAISE + 0x58 - 8], CALLER + 0x20, id="right below the CONTEXT"),
        pytest.param([RAISE - 0x1FC], None, id="not aligned"),
    ],
)
def test_pointers_lead_to_a_record_that_names_another_instruction(pairs: list[int], expected: int | None):
    """A runtime raises a fault anew, with the address of the fault."""
    stack = captured()
    for index, pair in enumerate(pairs):
        record = CALLER + 0x20 + 0x100 * index
        put_record(stack, record, code=0xC0000005, ip=FAULT)
        words = (record, RAISE + 0x60)
        stack.at(pair).d32(*(half for word in words for half in (word & 0xFFFFFFFF, word >> 32)))
    found = raised(stack)
    assert (found.record.location if found else None) == expected


def raised_status(*records: tuple[int, int], contexts: tuple[int, ...] = (0xC0,), rsp: int = RAISE) -> Stack:
    """A stack on which RtlRaiseStatus has captured itself. `records` are (distance from rsp, instruction)."""
    stack = Stack(LIMIT, HIGH)
    for distance, ip in records:
        put_record(stack, RAISE + distance, code=0xC0000000 + distance, ip=ip)
    for distance in contexts:
        put_context(stack, RAISE + distance, rip=IN_RAISE_STATUS, rsp=rsp)
    return stack


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        (((0x20, IN_RAISE_STATUS), (0x40, RAISER), (0x60, IN_RAISE_STATUS)), 0x20),
        (((0x20, FAULT), (0x40, RAISER), (0x60, IN_RAISE_STATUS)), 0x60),
        (((0x20, FAULT), (0x40, RAISER), (0x60, FAULT)), 0x40),
        (((0x20, FAULT), (0x40, FAULT)), 0x20),
    ],
    ids=["its own", "its own, elsewhere", "the caller's", "by its place"],
)
def test_the_record_of_rtlraisestatus_names_itself_or_its_caller_or_is_at_its_place(
    records: tuple[tuple[int, int], ...], expected: int
):
    caller = CALLER + 0x1000
    found = raised(raised_status(*records), ip=IN_RAISE_STATUS, caller=caller)
    assert found is not None
    assert (found.record.location, found.context.address) == (RAISE + expected, RAISE + 0xC0)


def test_of_two_contexts_of_its_own_state_the_first_counts_and_its_callers_state_before_both():
    stack = raised_status((0x20, RAISER), contexts=(0xC0, 0x600))
    first = raised(stack, ip=IN_RAISE_STATUS, caller=CALLER + 0x1000)
    put_context(stack, RAISE + 0xC00, rip=RAISER, rsp=CALLER + 0x1000)
    callers = raised(stack, ip=IN_RAISE_STATUS, caller=CALLER + 0x1000)
    assert first is not None
    assert callers is not None
    assert (first.context.address, callers.context.address) == (RAISE + 0xC0, RAISE + 0xC00)


def test_its_own_state_has_its_own_sp():
    assert raised(raised_status((0x20, RAISER), rsp=RAISE + 0x10), ip=IN_RAISE_STATUS, caller=CALLER) is None
