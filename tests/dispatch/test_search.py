# SPDX-License-Identifier: Apache-2.0
"""The search for exceptions in flight: which of the ways count when, and how it goes on from one exception outwards."""

from __future__ import annotations

import pytest

from tests.forge.stacks import Label, Stack
from tests.support.targets import make_target
from tests.support.x64_saved import frame, put_context, put_record
from tests.unwind.x64 import assembler as asm
from throwstack.core.frames import End, Frame, StackBounds, Trust, Walk
from throwstack.core.registers import Arch, Registers
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


def test_exception_pointers_spilled_by_a_filter_confirm_the_dispatchers_frame():
    at, stack, pointers = LIMIT + 0x8000, Stack(LIMIT, BASE), Label("pointers")
    stack.at(LIMIT + 0x7000).mark(pointers).d64(at + 0x4F0, at)
    put_context(stack, at, rip=FAULT, rsp=at + 0x700)
    put_record(stack, at + 0x4F0, code=0xC0000005, ip=FAULT)
    (found,) = search(stack, of_ntdll(0xA0FBE, at))
    assert found.found_by == "KiUserExceptionDispatcher frame, EXCEPTION_POINTERS on the stack"


def test_pointers_alone_count_only_where_record_and_context_name_one_instruction():
    at, stack = LIMIT + 0x8000, Stack(LIMIT, BASE)
    stack.at(LIMIT + 0x7000).d64(at + 0x4F0, at)
    put_context(stack, at, rip=FAULT, rsp=at + 0x700)
    put_record(stack, at + 0x4F0, code=0xC0000005, ip=FAULT + 4)
    assert search(stack) == ()


def test_of_nested_exceptions_the_innermost_comes_first():
    inner, outer, stack = LIMIT + 0x4000, LIMIT + 0x9000, Stack(LIMIT, BASE)
    for at, code in ((inner, 0xC0000094), (outer, 0xC0000005)):
        put_context(stack, at, rip=FAULT, rsp=at + 0x700)
        put_record(stack, at + 0x4F0, code=code, ip=FAULT)
    found = search(stack, of_ntdll(0xA0FBE, inner), of_ntdll(0xA0FBE, outer))
    assert [item.record.code for item in found] == [0xC0000094, 0xC0000005]


def frames_of_dispatch(at: int, code_sp: int) -> tuple[Frame, Frame]:
    """The dispatcher's frame, and that of the program further out."""
    outer = frame(FAULT, code_sp)
    return of_ntdll(0xA0FBE, at), outer


def with_register(name: str, value: int) -> Frame:
    """A frame of ntdll, called by the dispatcher, that keeps `value` in a nonvolatile register."""
    sp = LIMIT + 0x1000
    return Frame(
        Registers.named(Arch.X64, {"rip": NTDLL.base + 0xB0010, "rsp": sp, name: value}), sp, 0, None, Trust.CFI
    )


@pytest.mark.parametrize("name", ["rbx", "rbp", "rsi", "rdi", "r12", "r13", "r14", "r15"])
def test_a_nonvolatile_register_may_lead_to_the_pointers(name: str):
    at, stack = LIMIT + 0x8000, Stack(LIMIT, BASE)
    stack.at(LIMIT + 0x800).d64(at + 0x4F0, at)  # below every frame, so that nothing but the register leads there
    put_context(stack, at, rip=FAULT, rsp=at + 0x700)
    put_record(stack, at + 0x4F0, code=0xC0000005, ip=FAULT)
    (found,) = search(stack, with_register(name, LIMIT + 0x800), low=LIMIT + 0x1000)
    assert (found.context.address, found.routes) == (at, (Route.REGISTER,))


def test_two_nonvolatile_registers_may_hold_record_and_context():
    at, stack = LIMIT + 0x8000, Stack(LIMIT, BASE)
    put_context(stack, at, rip=FAULT, rsp=at + 0x700)
    put_record(stack, at + 0x4F0, code=0xC0000005, ip=FAULT)
    sp = LIMIT + 0x1000
    values = {"rip": NTDLL.base + 0xB0010, "rsp": sp, "rsi": at + 0x4F0, "rdi": at}
    (found,) = search(stack, Frame(Registers.named(Arch.X64, values), sp, 0, None, Trust.CFI), low=sp)
    assert found.routes == (Route.REGISTER,)


def test_a_scan_finds_a_context_whose_instruction_a_record_names():
    at, stack = LIMIT + 0x8000, Stack(LIMIT, BASE)
    put_context(stack, at, rip=FAULT, rsp=at + 0x700, flags=0x8010001F)
    put_record(stack, at + 0x620, code=0xC0000005, ip=FAULT)
    (found,) = search(stack)
    assert (found.context.address, found.record.location) == (at, at + 0x620)
    assert found.routes == (Route.SCAN,)


@pytest.mark.parametrize(
    ("code", "address", "flags"),
    [
        pytest.param(0, FAULT, 0, id="no code"),
        pytest.param(7, FAULT, 0, id="a small number for a code"),
        pytest.param(0xC0000005, FAULT + 1, 0, id="another instruction"),
        pytest.param(0xC0000005, FAULT, 0x12345, id="flags that no record has"),
    ],
)
def test_a_context_that_no_record_names_is_no_exception(code: int, address: int, flags: int):
    at, stack = LIMIT + 0x8000, Stack(LIMIT, BASE)
    put_context(stack, at, rip=FAULT, rsp=at + 0x700)
    stack.at(at + 0x620).d32(code, flags).d64(0, address)
    assert search(stack) == ()


def test_a_context_among_the_locals_of_another_function_is_stale():
    at, stack = LIMIT + 0x8000, Stack(LIMIT, BASE)
    stack.at(LIMIT + 0x7000).d64(at + 0x4F0, at)
    put_context(stack, at, rip=FAULT, rsp=at + 0x700)
    put_record(stack, at + 0x4F0, code=0xC0000005, ip=FAULT)
    waits = of_ntdll(0xB0010, LIMIT + 0x1000)
    roomy = frame(FAULT, LIMIT + 0x6000)
    outer = frame(FAULT, BASE - 0x40)
    assert search(stack, waits, roomy, outer, low=LIMIT + 0x1000) == ()
    # Where the walk did not get that far, nobody knows.
    assert len(search(stack, waits, low=LIMIT + 0x1000)) == 1


def test_an_exception_whose_dispatcher_unwinds_to_a_handler_was_taken_unless_a_function_proves_the_contrary():
    at, stack = LIMIT + 0x8000, Stack(LIMIT, BASE)
    put_context(stack, at, rip=FAULT, rsp=at + 0x700)
    put_record(stack, at + 0x4F0, code=0xC0000005, ip=FAULT)
    frames = (of_ntdll(0xC0010, LIMIT + 0x4000), *frames_of_dispatch(at, at + 0x700))
    symbols = {"ntdll.dll": {**SYMBOLS["ntdll.dll"], "RtlUnwindEx": 0xC0000}}
    target = make_target(Arch.X64, [NTDLL, APP], {LIMIT: stack.data()}, symbols, Walk((), End.THREAD_START))
    blocked = SearchStart(frames, LIMIT, is_complete=True, proves_exception=False)
    found = exceptions_in_flight(target, StackBounds(LIMIT, BASE), blocked)
    assert found.exceptions == ()
    assert found.notes == (
        (
            f"exception 0xc0000005 at {FAULT:#x} was dispatched further out, and a handler seems to have taken it "
            f"(context {at:#x})"
        ),
    )
    (only,) = exceptions_in_flight(target, StackBounds(LIMIT, BASE), SearchStart(frames, LIMIT)).exceptions
    assert only.context.address == at


def test_a_frame_that_is_only_near_the_export_rtlunwindex_does_not_show_that_a_handler_took_the_exception():
    """On Windows 7 RtlDispatchException is not exported, and the nearest export before it is RtlUnwindEx."""
    at, stack = LIMIT + 0x8000, Stack(LIMIT, BASE)
    put_context(stack, at, rip=FAULT, rsp=at + 0x700)
    put_record(stack, at + 0x4F0, code=0xC0000005, ip=FAULT)
    ntdll = asm.ImageBuilder(b"\x90" * 0x100, exports={"RtlUnwindEx": 0x1000, "KiUserExceptionDispatcher": 0x1080})
    for begin in (0x1000, 0x1040, 0x1080):
        ntdll.add(begin, begin + 0x40, asm.unwind_info([], 0))
    memory = {LIMIT: stack.data(), NTDLL.base: ntdll.build()}

    def exceptions(rva: int) -> int:
        frames = (of_ntdll(rva, LIMIT + 0x4000), of_ntdll(0x1090, at))
        target = make_target(Arch.X64, [NTDLL, APP], memory, {}, Walk((), End.THREAD_START))
        assert [target.symbols.name(item.ip).symbol for item in frames] == ["RtlUnwindEx", "KiUserExceptionDispatcher"]
        start = SearchStart(frames, LIMIT, is_complete=True, proves_exception=False)
        return len(exceptions_in_flight(target, StackBounds(LIMIT, BASE), start).exceptions)

    assert exceptions(0x1010) == 0  # RtlUnwindEx itself
    assert exceptions(0x1050) == 1  # RtlDispatchException


def test_the_context_of_a_gs_failure_is_in_globals_of_the_module_that_found_it():
    sp, stack = LIMIT + 0x8000, Stack(LIMIT, BASE)
    data = Stack(APP.base + 0x5000, APP.base + 0x6000)
    put_context(data, APP.base + 0x5100, rip=FAULT, rsp=sp + 0x100)
    put_record(data, APP.base + 0x5000, code=0xC0000409, ip=FAULT)
    symbols = {
        "app.exe": {"__report_gsfailure": 0x2000, "GS_ExceptionRecord": 0x5000, "GS_ContextRecord": 0x5100},
    }
    reports = frame(APP.base + 0x2050, sp)
    memory = {LIMIT: stack.data(), APP.base + 0x5000: data.data()}
    target = make_target(Arch.X64, [NTDLL, APP], memory, symbols, Walk((), End.THREAD_START))
    (found,) = exceptions_in_flight(target, StackBounds(LIMIT, BASE), SearchStart((reports,), sp)).exceptions
    assert (found.context.address, found.record.code) == (APP.base + 0x5100, 0xC0000409)
    assert found.routes == (Route.GLOBALS,)
