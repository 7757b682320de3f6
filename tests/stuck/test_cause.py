# SPDX-License-Identifier: Apache-2.0
"""Which of several exceptions is the cause: published shapes of programs that ended in a second exception."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.thrown_stacks import thrown
from throwstack.core.memory import MemoryUnreadable
from throwstack.core.registers import Arch
from throwstack.dispatch.saved_exception import Route
from throwstack.images.image import ImageMap
from throwstack.images.modules import Module, ModuleMap
from throwstack.stuck.cause import led_by_cause
from throwstack.stuck.stuck_thread import ExceptionRole, StuckThread

ABORT = "[0xC0000409 7] ucrtbase!abort < ucrtbase!terminate"
RAISED = "ntdll!RtlDispatchException < ntdll!RtlRaiseException < [0xE06D7363] KERNELBASE!RaiseException"
THROWN = (
    f"ntdll!RtlpExecuteHandlerForException < {RAISED} < VCRUNTIME140!_CxxThrowException < app!ReadConfig < app!main"
)
ASKED = "ntdll!RtlUserThreadStart$filt$0 < ntdll!_C_specific_handler"
FILTER = f"KERNELBASE!UnhandledExceptionFilter < {ASKED}"
TRANSLATOR = "VCRUNTIME140!_CallSETranslator<__FrameHandler4> < VCRUNTIME140!__CxxFrameHandler4"
FAULT = "ntdll!RtlDispatchException < ntdll!KiUserExceptionDispatch < [0xC0000005] app!Parse < app!main"


def lead(text: str) -> StuckThread:
    stuck, target = thrown(text)
    return led_by_cause(target, stuck)


def codes(stuck: StuckThread) -> list[int]:
    return [exception.record.code for exception in stuck.exceptions]


CAUSES = {
    "C++, Visual Studio 2015 and later": (
        f"{ABORT} < app!__scrt_unhandled_exception_filter < {FILTER} < {THROWN}",
        0xE06D7363,
    ),
    "Environment.FailFast in a handler of AppDomain.UnhandledException": (
        f"[0x80131623] coreclr!HandleFatalError < shop!OnUnhandled < coreclr!Filter < {RAISED} < shop!Main",
        0xE06D7363,
    ),
    "the same without symbols of the program": (
        f"{ABORT} < app! < {FILTER} < {THROWN}",
        0xE06D7363,
    ),
    "out of noexcept": (
        f"{ABORT} < VCRUNTIME140_1!FindHandler<__FrameHandler4> < VCRUNTIME140_1!__CxxFrameHandler4 < {THROWN}",
        0xE06D7363,
    ),
    "out of noexcept, exports only": (
        f"[0xC0000409 7] ucrtbase! < VCRUNTIME140! < VCRUNTIME140!__CxxFrameHandler3 < ntdll! < {THROWN}",
        0xE06D7363,
    ),
    "out of noexcept, with a terminate handler of the program": (
        f"[0xC0000005] app!OnTerminate < ucrtbase!terminate < VCRUNTIME140!__CxxFrameHandler3 < {THROWN}",
        0xE06D7363,
    ),
    "the runtime's report, Windows 7": (
        f"[0x40000015] MSVCR110!abort < MSVCR110!__CxxUnhandledExceptionFilter < {FILTER} < {THROWN}",
        0xE06D7363,
    ),
    "a fault in the crash filter": (
        f"[0xC0000005] checker!HeapChecker::IsHeapCorrupt < app!CrashFilter < {FILTER} < {FAULT.replace('5', '6', 1)}",
        0xC0000006,
    ),
    "abort in the crash filter": (f"[0xC0000409 7] ucrtbase!abort < app!CrashFilter < {FILTER} < {FAULT}", 0xC0000005),
    "a fault in the program's handler of SIGSEGV": (
        f"[0xC0000094] app!OnSignal < ucrtbase!_seh_filter_exe < app!main$filt$0 < {FAULT}",
        0xC0000005,
    ),
    "out of noexcept, a runtime that is linked in, without symbols": (
        f"[0xC0000409 7] app! < app! < app! < ntdll!RtlpExecuteHandlerForException < {THROWN}",
        0xE06D7363,
    ),
    "abort in a vectored handler": (
        f"[0xC0000409 7] ucrtbase!abort < app!OnException < ntdll!RtlpCallVectoredHandlers < {FAULT}",
        0xC0000005,
    ),
    "abort in the filter of an __except block": (
        f"[0xC0000409 7] ucrtbase!abort < app!OnException < app!Run$filt$0 < ntdll!_C_specific_handler < {FAULT}",
        0xC0000005,
    ),
    "RaiseFailFastException in a vectored handler": (
        f"[0xC0000602] coreclr!WatsonFailFast < coreclr!Vectored < ntdll!RtlpCallVectoredHandlers < {FAULT}",
        0xC0000005,
    ),
    "a translator of Windows exceptions that throws": (
        f"[0xE06D7363] app!Translate < {TRANSLATOR} < {FAULT}",
        0xC0000005,
    ),
    "the dispatcher's own fast-fail: the chain of registrations is broken": (
        f"[0xC0000409 0x15] ntdll!RtlpIsValidExceptionChain < {FAULT}",
        0xC0000005,
    ),
    "the same without names": (f"[0xC0000409 0x4] ntdll! < ntdll! < {FAULT}", 0xC0000005),
    "Application Verifier reports it in a vectored handler": (
        f"[0x80000003] verifier!VerifierStopMessage < verifier!AVrfpVector < ntdll!RtlpCallVectoredHandlers < {FAULT}",
        0xC0000005,
    ),
    "the same without names of the verifier": (f"[0x80000003] verifier! < verifier! < ntdll! < {FAULT}", 0xC0000005),
    "a check that fails in a filter, and stops at an illegal instruction": (
        f"[0xC000001D] app!V8_Fatal < app!Run$filt$0 < ntdll!_C_specific_handler < {FAULT}",
        0xC0000005,
    ),
    "a handler that goes on where it must not": (
        f"[0xC0000025] ntdll!RtlRaiseException < ntdll!RtlpExecuteHandlerForException < {FAULT}",
        0xC0000005,
    ),
}


@pytest.mark.parametrize(("text", "cause"), CAUSES.values(), ids=CAUSES.keys())
def test_the_cause_is_first_and_its_end_second(text: str, cause: int):
    before, _ = thrown(text)
    stuck = lead(text)
    assert codes(stuck) == [cause, before.exceptions[0].record.code]
    assert stuck.throwing_walks == (before.throwing_walks[1], before.throwing_walks[0])
    assert [stuck.role_of(index) for index in range(2)] == [ExceptionRole.CAUSE, ExceptionRole.END]
    assert stuck.notes == ()


INDEPENDENT = {
    "in a catch block": f"[0xC0000005] app!Log < app!main$catch$0 < VCRUNTIME140!_CallSettingFrame < {THROWN}",
    "terminate, called by a catch block": (f"{ABORT} < app!main$catch$0 < VCRUNTIME140!_CallSettingFrame < {THROWN}"),
    "in a destructor while the stack is unwound": (
        f"[0xC0000005] app!~Pool < app!main$dtor$0 < VCRUNTIME140!__FrameUnwindToState < ntdll!RtlUnwindEx < {THROWN}"
    ),
    "in a filter of the program, which may have handled the original": (
        f"[0xC0000005] app!Report::Write < app!Loop$filt$0 < ntdll!_C_specific_handler < {FAULT}"
    ),
    "in a vectored handler": f"[0xC0000005] app!OnException < ntdll!RtlpCallVectoredHandlers < {FAULT}",
    "a stack cookie that the dispatch found overwritten": (
        "[0xC0000409 2] app!__report_gsfailure < app!__GSHandlerCheckCommon < app!__GSHandlerCheck"
        f" < ntdll!RtlpExecuteHandlerForException < {FAULT}"
    ),
    "a stack cookie of ntdll's that the dispatch found overwritten": (
        f"[0xC0000409 2] ntdll!__report_gsfailure < ntdll!__GSHandlerCheck < {FAULT}"
    ),
    "ntdll fails fast while it unwinds the stack for a handler": (
        f"[0xC0000409 0x27] ntdll!RtlpUnwindEpilogue < ntdll!RtlUnwindEx < ntdll!_C_specific_handler < {FAULT}"
    ),
    "a breakpoint of a reporter in a catch block": (
        f"[0x80000003] verifier!VerifierStopMessage < app!main$catch$0 < VCRUNTIME140!_CallSettingFrame < {THROWN}"
    ),
    "a breakpoint of the program in a vectored handler": (
        f"[0x80000003] app!OnException < ntdll!RtlpCallVectoredHandlers < {FAULT}"
    ),
    "abort in a destructor while the stack is unwound": (
        f"[0xC0000409 7] ucrtbase!abort < app!main$dtor$0 < app! < ntdll!RtlUnwindEx < {FAULT}"
    ),
    "abort in a __finally block, 32-bit": f"[0xC0000409 7] ucrtbase!abort < app!f < ntdll!_EH4_LocalUnwind < {FAULT}",
    "a C++ exception in a vectored handler, which nobody takes": (
        f"[0xE06D7363] KERNELBASE!RaiseException < app!OnException < ntdll!RtlpCallVectoredHandlers < {FAULT}"
    ),
    "a C++ exception in a catch block": (
        f"[0xE06D7363] KERNELBASE!RaiseException < app!Log < VCRUNTIME140!_CallSettingFrame"
        f" < VCRUNTIME140!__CxxFrameHandler3 < {FAULT}"
    ),
    "a fault in the dispatcher": f"[0xC0000005] ntdll!RtlVirtualUnwind < {FAULT}",
}


@pytest.mark.parametrize("text", INDEPENDENT.values(), ids=INDEPENDENT.keys())
def test_an_independent_exception_further_in_stays_first(text: str):
    before, _ = thrown(text)
    stuck = lead(text)
    assert (codes(stuck), stuck.notes, stuck.end_count) == (codes(before), (), 0)
    assert stuck.role_of(1) is ExceptionRole.OUTER


UNCERTAIN = {
    "a guessed frame": f"[0xC0000005] app!CrashFilter < ~{'KERNELBASE!_XcptFilter'} < {FAULT}",
    "a frame that rests on a guess": f"[0xC0000005] app!Report < ~app!CrashFilter < {FILTER} < {FAULT}",
    "a frame that rests on a frame pointer": f"[0xC0000005] app!Report < ^app!Stub < app!OnC < {FILTER} < {FAULT}",
    "a doubtful name": f"[0xC0000005] app!CrashFilter < ?KERNELBASE!UnhandledExceptionFilter < {FAULT}",
    "abort under a guessed frame": f"[0xC0000409 7] ucrtbase!abort < ~app!OnException < {FAULT}",
}


@pytest.mark.parametrize("text", UNCERTAIN.values(), ids=UNCERTAIN.keys())
def test_without_certain_names_the_order_stays_and_a_note_says_so(text: str):
    before, _ = thrown(text)
    stuck = lead(text)
    assert codes(stuck) == codes(before)
    (note,) = stuck.notes
    assert note.startswith(
        f"this exception may not be the cause, but only how {before.exceptions[1].record.code:#010x} at "
    )


@pytest.mark.parametrize(
    ("arch", "route", "cause"),
    [
        (Arch.X64, Route.DISPATCHER, 0xC0000005),
        (Arch.X86, Route.DISPATCHER, 0xC0000409),
        (Arch.X86, Route.REGISTRATION, 0xC0000005),
    ],
)
def test_on_x86_a_frame_without_a_name_may_run_a_catch_block_unless_the_registration_is_there(
    arch: Arch, route: Route, cause: int
):
    stuck, target = thrown(f"[0xC0000409 7] ucrtbase!abort < app! < {FAULT}", arch)
    inner, outer = stuck.exceptions
    stuck = replace(stuck, exceptions=(inner, replace(outer, routes=(route,))))
    assert codes(led_by_cause(target, stuck))[0] == cause


def test_a_destructor_that_throws_while_the_stack_is_unwound_is_the_cause_and_not_what_was_unwound():
    second = THROWN.replace("app!ReadConfig < app!main", "app!Pool::~Pool < app!main$dtor$0")
    stuck = lead(
        f"{ABORT} < VCRUNTIME140!__CxxFrameHandler3"
        f" < {second} < VCRUNTIME140!_CallSettingFrame < ntdll!RtlUnwindEx < {FAULT}"
    )
    assert codes(stuck) == [0xE06D7363, 0xC0000409, 0xC0000005]
    assert [stuck.role_of(index).value for index in range(3)] == ["cause", "end", "outer"]


def test_ends_are_in_the_order_in_which_they_were_raised():
    stuck = lead(
        f"[0xC0000409 7] ucrtbase!abort < app!CrashFilter < {FILTER} < ntdll!RtlDispatchException"
        f" < ntdll!KiUserExceptionDispatch < [0xC0000094] app!Report < app!CrashFilter < {FILTER} < {FAULT}"
    )
    assert codes(stuck) == [0xC0000005, 0xC0000094, 0xC0000409]
    assert stuck.end_count == 2


def test_what_is_further_in_than_an_end_is_an_end_too_though_its_neighbour_alone_does_not_show_it():
    second = "ntdll!RtlDispatchException < ntdll!KiUserExceptionDispatch < [0xC0000094] app!Report"
    stuck = lead(
        f"[0xC0000005] app!Log < app!OnException < ntdll!RtlpCallVectoredHandlers < {second}"
        f" < app!CrashFilter < {FILTER} < {THROWN}"
    )
    assert (codes(stuck), stuck.end_count) == ([0xE06D7363, 0xC0000094, 0xC0000005], 2)


def test_a_fault_in_the_block_that_caught_a_translated_exception_is_independent_of_both():
    second = f"{RAISED} < VCRUNTIME140!_CxxThrowException < app!Translate"
    stuck = lead(
        f"[0xC0000005] app!Log < app!main$catch$0 < VCRUNTIME140!_CallSettingFrame < {second}"
        f" < {TRANSLATOR} < {FAULT.replace('0xC0000005', '0xC0000006')}"
    )
    assert (codes(stuck), stuck.end_count) == ([0xC0000005, 0xE06D7363, 0xC0000006], 0)


@pytest.mark.parametrize(("runtime", "cause"), [("coreclr.dll", 1), ("codec.dll", 0)])
def test_the_runtime_of_net_ends_its_process_with_a_second_record_of_a_native_fault(runtime: str, cause: int):
    """.NET Core 2.1, x86: the frames between are guesses; the record of an access violation has two parameters."""
    stuck, target = thrown(
        "[0xC0000005] coreclr! < ~coreclr! < ~ntdll! < [0xC0000005 8 0x10] codec!Decode < shop!Read", Arch.X86
    )
    images = ImageMap(target.memory, ModuleMap([Module(runtime, "", 0x400000, 0x200)]))
    led = led_by_cause(replace(target, images=images), stuck)
    assert led.end_count == cause
    assert led.exceptions[0].record.parameters == ((8, 0x10) if cause else ())


def test_one_exception_and_none_are_left_as_they_are():
    for text in (
        f"ntdll!NtWaitForSingleObject < {FILTER} < {FAULT}",
        "ntdll!NtWaitForSingleObject < ucrtbase!terminate < app!f",
    ):
        before, target = thrown(text)
        assert led_by_cause(target, before) == before


def test_a_search_that_fails_costs_no_row(monkeypatch: pytest.MonkeyPatch):
    def fails(*_: object) -> None:
        raise MemoryUnreadable(0x401000)

    monkeypatch.setattr("throwstack.stuck.cause._Between", fails)
    stuck, target = thrown(f"{ABORT} < app!CrashFilter < {FILTER} < {FAULT}")
    found = led_by_cause(target, stuck)
    assert (found.exceptions, found.throwing_walks) == (stuck.exceptions, stuck.throwing_walks)
    assert found.notes[-1].startswith("which exception is the cause: ")
