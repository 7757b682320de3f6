# SPDX-License-Identifier: Apache-2.0
"""The search for exceptions in flight: which of the ways count when, and how it goes on from one exception outwards."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.forge.stacks import Label, Stack
from tests.support.targets import make_target
from tests.support.x64_saved import (
    APP,
    BASE,
    FAULT,
    LIMIT,
    NTDLL,
    SYMBOLS,
    frame,
    of_ntdll,
    put_context,
    put_record,
    search,
)
from tests.unwind.x64 import assembler as asm
from throwstack.core.frames import End, Frame, StackBounds, Trust, Walk
from throwstack.core.registers import Arch, Registers
from throwstack.dispatch.saved_exception import Route
from throwstack.dispatch.search import FoundExceptions, SearchStart, exceptions_in_flight


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
    assert (found.exceptions, found.notes) == ((), ())
    assert [item.context.address for item in found.taken] == [at]
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


MORE = {"ntdll.dll": {**SYMBOLS["ntdll.dll"], "RtlUnwindEx": 0xC0000, "RtlRaiseStatus": 0xD0000}}


def delivered(stack: Stack, at: int, *, rsp: int | None = None, code: int = 0xC0000005) -> Frame:
    """The kernel delivers a fault: CONTEXT and record at rsp of the dispatcher, whose frame is returned."""
    put_context(stack, at, rip=FAULT, rsp=at + 0x700 if rsp is None else rsp)
    put_record(stack, at + 0x4F0, code=code, ip=FAULT)
    return of_ntdll(0xA0FBE, at)


def found_on(
    stack: Stack,
    *frames: Frame,
    low: int = LIMIT,
    proves: bool = False,
    is_complete: bool = True,
    names: dict[str, dict[str, int]] = MORE,
    walk: tuple[Frame, ...] | None = None,
) -> FoundExceptions:
    """What is found from `frames`. All walks from CONTEXTs have the frames `walk`, by default the same."""
    walked = Walk(frames if walk is None else walk, End.THREAD_START)
    target = make_target(Arch.X64, [NTDLL, APP], {LIMIT: stack.data()}, names, walked)
    start = SearchStart(frames, low, is_complete=is_complete, proves_exception=proves)
    return exceptions_in_flight(target, StackBounds(LIMIT, BASE), start)


def test_16_exceptions_that_led_to_one_another_are_found():
    stack = Stack(LIMIT, BASE)
    frames = [delivered(stack, LIMIT + 0x800 * index) for index in range(1, 18)]
    found = found_on(stack, *frames)
    assert [item.context.address for item in found.exceptions] == [frame.sp for frame in frames[:16]]
    assert len(found.walks) == 16


def test_a_fault_of_the_dispatcher_itself_has_the_next_dispatch_at_its_sp():
    stack = Stack(LIMIT, BASE)
    outer = delivered(stack, LIMIT + 0x9000)
    inner = delivered(stack, LIMIT + 0x4000, rsp=LIMIT + 0x9000, code=0xC0000006)
    found = found_on(stack, inner, outer)
    assert [item.record.code for item in found.exceptions] == [0xC0000006, 0xC0000005]
    assert found.notes == ()


@pytest.mark.parametrize(("below", "is_taken"), [(8, False), (0, True), (-8, True)])
def test_what_proves_a_crash_says_it_of_an_exception_that_was_thrown_further_out(below: int, is_taken: bool):
    """One that was thrown further in, by the program's crash filter, may be taken in there."""
    at, stack = LIMIT + 0x8000, Stack(LIMIT, BASE)
    dispatcher = delivered(stack, at)
    found = found_on(stack, of_ntdll(0xC0010, LIMIT + 0x4000), dispatcher, low=at + 0x700 - below, proves=True)
    assert (len(found.exceptions), len(found.taken)) == ((0, 1) if is_taken else (1, 0))
    assert len(found.taken_walks) == is_taken


def test_pointers_alone_count_for_the_first_exception_and_only_if_a_function_proves_it():
    inner, outer, stack = LIMIT + 0x2000, LIMIT + 0x8000, Stack(LIMIT, BASE)
    delivered(stack, outer)
    stack.at(LIMIT + 0x7000).d64(outer + 0x4F0, outer)
    assert len(found_on(stack, proves=True).exceptions) == 1
    assert found_on(stack, proves=False).exceptions == ()
    dispatcher = delivered(stack, inner, code=0xC0000006)
    found = found_on(stack, dispatcher, low=LIMIT + 0x6000, proves=True)
    assert [item.record.code for item in found.exceptions] == [0xC0000006]


def test_no_handler_is_said_to_have_taken_what_pointers_lead_to():
    at, stack = LIMIT + 0x8000, Stack(LIMIT, BASE)
    delivered(stack, at)
    stack.at(LIMIT + 0x7000).d64(at + 0x4F0, at)
    found = found_on(stack, of_ntdll(0xC0010, LIMIT + 0x4000), proves=True, is_complete=False)
    assert (len(found.exceptions), found.taken, found.notes) == (1, (), ())


def test_an_exception_that_led_to_another_is_reported_although_the_stack_is_being_unwound_for_it():
    """A handler took the outer one; then the __finally block faulted, and that is what the thread is stuck on."""
    inner, outer, stack = LIMIT + 0x2000, LIMIT + 0x8000, Stack(LIMIT, BASE)
    frames = (
        delivered(stack, inner, code=0xC0000006),
        frame(FAULT, inner + 0x700),
        of_ntdll(0xC0010, LIMIT + 0x5000),
        delivered(stack, outer),
    )
    assert [item.record.code for item in found_on(stack, *frames).exceptions] == [0xC0000006, 0xC0000005]
    assert [item.record.code for item in found_on(stack, *frames[2:]).taken] == [0xC0000005]


def test_frames_further_out_than_the_throw_do_not_confirm_it():
    at, stack = LIMIT + 0x8000, Stack(LIMIT, BASE)
    dispatcher = delivered(stack, at)
    stack.at(LIMIT + 0x7000).d64(at + 0x4F0, at)
    inside, thrower = frame(FAULT, at + 0x6F0, rbx=LIMIT + 0x7000), frame(FAULT, at + 0x700, rbx=LIMIT + 0x7000)
    (with_inside,) = found_on(stack, dispatcher, inside).exceptions
    (without,) = found_on(stack, dispatcher, thrower).exceptions
    assert with_inside.routes == (Route.DISPATCHER, Route.REGISTER, Route.POINTERS)
    assert without.routes == (Route.DISPATCHER, Route.POINTERS)


def test_a_raiser_that_is_the_last_frame_of_a_walk_has_no_caller_whose_state_it_captured():
    stack = Stack(LIMIT, BASE)
    for name, rva in {"RtlRaiseException": 0x4010, "RaiseFailFastException": 0xE0010, "": 0x4010}.items():
        names = {"ntdll.dll": {name: rva - 0x10}} if name else {}
        assert found_on(stack, of_ntdll(rva, LIMIT + 0x1000, FAULT), names=names).exceptions == ()


@pytest.mark.parametrize("is_interrupted", [True, False])
def test_a_nameless_function_of_ntdll_is_the_dispatcher_if_what_is_further_out_was_interrupted(is_interrupted: bool):
    """Where nothing of ntdll has a name: the machine frame of the dispatcher tells it from RtlRaiseException."""
    at, caller_sp, stack = LIMIT + 0x8000, LIMIT + 0x8700, Stack(LIMIT, BASE)
    dispatcher = delivered(stack, at)
    outer = replace(frame(FAULT, caller_sp), is_interrupted=is_interrupted)
    (found,) = found_on(stack, dispatcher, outer, names={}).exceptions
    # The CONTEXT has the caller's state as well: then RtlRaiseException's frame would give it.
    assert found.routes == ((Route.DISPATCHER,) if is_interrupted else (Route.RAISE,))


def test_nobody_takes_what_raisefailfastexception_reports():
    caller_sp, stack = LIMIT + 0x8600, Stack(LIMIT, BASE)
    put_record(stack, LIMIT + 0x8030, code=0xC0000602, ip=FAULT)
    put_context(stack, LIMIT + 0x80D0, rip=FAULT, rsp=caller_sp)
    names = {"ntdll.dll": {**MORE["ntdll.dll"], "RaiseFailFastException": 0xE0000}}
    fails = of_ntdll(0xE0010, LIMIT + 0x8000, FAULT)
    found = found_on(stack, of_ntdll(0xC0010, LIMIT + 0x4000), fails, frame(FAULT, caller_sp), names=names)
    assert (len(found.exceptions), found.taken) == (1, ())
    assert found.exceptions[0].routes[0] is Route.FAIL_FAST_FRAME


def test_on_x64_no_registrations_are_asked_for():
    stack = Stack(LIMIT, BASE)
    guessed = replace(of_ntdll(0xB0010, LIMIT + 0x4000), trust=Trust.SCAN)
    found = found_on(stack, of_ntdll(0xB0010, LIMIT + 0x2000), guessed, delivered(stack, LIMIT + 0x8000))
    assert found.notes[0].endswith(f"the stack between was guessed, from {guessed.ip:#x} on")


def test_of_several_that_pointers_lead_to_the_innermost_counts():
    stack = Stack(LIMIT, BASE)
    for index, at in enumerate((LIMIT + 0xA000, LIMIT + 0x9000, LIMIT + 0x8000)):
        delivered(stack, at)
        stack.at(LIMIT + 0x1000 * (index + 1)).d64(at + 0x4F0, at)  # those to the outermost first
    (found,) = found_on(stack, proves=True).exceptions
    assert found.context.address == LIMIT + 0x8000


def test_frames_further_in_than_the_search_begins_lead_to_nothing():
    at, stack = LIMIT + 0x8000, Stack(LIMIT, BASE)
    delivered(stack, at, code=7)  # a scan would not take it for one
    stack.at(LIMIT + 0x800).d64(at + 0x4F0, at)
    waits = frame(NTDLL.base + 0xB0010, LIMIT + 0x1000, rbx=LIMIT + 0x800)
    assert len(found_on(stack, waits, low=LIMIT + 0x1000, proves=True, is_complete=False).exceptions) == 1
    assert found_on(stack, waits, low=LIMIT + 0x1008, proves=True, is_complete=False).exceptions == ()


def test_the_note_on_routes_that_disagree_names_the_innermost_of_the_others():
    stack = Stack(LIMIT, BASE)
    places = [LIMIT + 0x8000, LIMIT + 0x9000, LIMIT + 0xA000]
    frames = [delivered(stack, at, rsp=LIMIT + 0xB000 + 8 * index) for index, at in enumerate(places)]
    found = found_on(stack, *frames)
    assert found.exceptions[0].context.address == places[0]
    assert f"{places[1]:#x}" in found.notes[0]
    assert f"{places[2]:#x}" not in found.notes[0]
