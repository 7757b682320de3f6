# SPDX-License-Identifier: Apache-2.0
"""Saved contexts on x64 stacks: the kernel's delivery of a fault, and a software exception's own capture."""

from __future__ import annotations

import pytest

from tests.forge.stacks import Stack
from tests.support.targets import make_target
from tests.support.x64_saved import frame, put_context, put_record
from throwstack.core.frames import End, Frame, StackBounds, Walk
from throwstack.core.registers import Arch
from throwstack.dispatch.saved_exception import Route, SavedException
from throwstack.dispatch.search import SearchStart, exceptions_in_flight
from throwstack.images.modules import Module

LIMIT, BASE = 0x1F_FFF0_0000, 0x1F_FFF1_0000
NTDLL = Module("ntdll.dll", r"C:\Windows\System32\ntdll.dll", 0x7FFA_1000_0000, 0x20_0000)
APP = Module("app.exe", r"C:\app.exe", 0x7FF6_0000_0000, 0x10000)
SYMBOLS = {"ntdll.dll": {"KiUserExceptionDispatch": 0xA0F90, "RtlRaiseException": 0x4000, "ZwX": 0xB0000}}
FAULT = APP.base + 0x1234


def of_ntdll(rva: int, sp: int, return_address: int = 0) -> Frame:
    return frame(NTDLL.base + rva, sp, return_address, sp + 0x100)


def search(stack: Stack, *frames: Frame, low: int = LIMIT) -> tuple[SavedException, ...]:
    target = make_target(Arch.X64, [NTDLL, APP], {LIMIT: stack.data()}, SYMBOLS, Walk(frames, End.THREAD_START))
    return exceptions_in_flight(target, StackBounds(LIMIT, BASE), SearchStart(frames, low)).exceptions


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


@pytest.mark.parametrize("distance", [0x4D8, 0x500, 0x5C0])
def test_a_record_is_found_at_other_distances_from_the_context_too(distance: int):
    at, stack = LIMIT + 0x8000, Stack(LIMIT, BASE)
    put_context(stack, at, rip=FAULT, rsp=at + 0x900)
    put_record(stack, at + distance, code=0xC0000005, ip=FAULT)
    (found,) = search(stack, of_ntdll(0xA0FBE, at))
    assert found.record.location == at + distance


def test_the_ip_inside_a_context_is_not_taken_for_a_record():
    at, stack = LIMIT + 0x8000, Stack(LIMIT, BASE)
    put_context(stack, at, rip=FAULT, rsp=at + 0x900)
    assert search(stack, of_ntdll(0xA0FBE, at)) == ()
