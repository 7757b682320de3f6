# SPDX-License-Identifier: Apache-2.0
"""Verdicts: what the blockers of a thread mean, in words and as a code."""

from __future__ import annotations

import pytest

from throwstack.names.blockers import BlockerKind, blocked_in, blocker_named
from throwstack.report.verdict import VerdictCode, verdict
from throwstack.stuck.dispatch_state import DispatchState, NotBack


def _kinds(names: list[tuple[str, str]]) -> list[BlockerKind]:
    return [found.kind for found in (blocker_named(*name) for name in names) if found is not None]


F, S, A, W = BlockerKind.UNHANDLED_FILTER, BlockerKind.SHUTDOWN, BlockerKind.ABORT, BlockerKind.WER
E, X, T = BlockerKind.ERROR_BOX, BlockerKind.FAIL_FAST, BlockerKind.TERMINATION
H, M = BlockerKind.HARD_ERROR, BlockerKind.MESSAGE_BOX


@pytest.mark.parametrize(
    ("kinds", "has_exception", "words"),
    [
        ([W, F], True, "crashed and waiting for WER"),
        ([F], False, "crashed and waiting in the unhandled exception filter"),
        ([S, A, F], True, "crashed inside shutdown"),
        ([S], False, "hangs in shutdown without an exception"),
        ([E, A], False, "abort called, error box shown"),
        ([M, A], False, "abort called, error box shown"),
        ([M], False, "error box shown"),
        ([H, F], True, "crashed, error box shown"),
        ([BlockerKind.JIT_DEBUGGER, F], True, "crashed and waiting for a debugger"),
        ([A, F], True, "crashed and stuck in abort"),
        ([A], False, "abort called"),
        ([BlockerKind.PURE_CALL, A], False, "pure virtual function called"),
        # What is waited for in a shutdown is the box, and why the process ends is the failure.
        ([S, E], False, "hangs in shutdown without an exception, error box shown"),
        ([S, A, E, F], True, "crashed inside shutdown, error box shown"),
        ([S, BlockerKind.PURE_CALL], False, "pure virtual function called, hangs in shutdown"),
        ([S, W], True, "crashed inside shutdown"),
        ([S, T], False, "hangs in shutdown without an exception"),
        ([F, T], True, "crashed and stuck in TerminateProcess"),
        ([F, W, T], True, "crashed and stuck in TerminateProcess"),
        ([A, T], False, "abort called"),
        ([X], True, "failed fast"),
        ([X], False, "failed fast"),
        ([X, H], False, "failed fast"),  # NtRaiseHardError below RaiseFailFastException shows nothing
        ([X, H], True, "failed fast"),
        ([X, E], False, "failed fast, error box shown"),
        ([X, W], True, "crashed and waiting for WER"),
        ([X, BlockerKind.CLR_WATSON], False, "crashed and waiting for WER"),
        ([], True, "crashed"),
        ([], False, ""),
    ],
)
def test_verdicts(kinds: list[BlockerKind], has_exception: bool, words: str):
    assert verdict(kinds, has_exception=has_exception).text == words


def test_text_of_a_box_is_shown_escaped():
    found = verdict([BlockerKind.ERROR_BOX], has_exception=False, box_text="R6025\n- pure virtual function call")
    assert found.text == r'error box shown: "R6025\n- pure virtual function call"'
    forged = verdict([BlockerKind.ERROR_BOX], has_exception=False, box_text='no", hangs in shutdown')
    assert forged.text == r'error box shown: "no\", hangs in shutdown"'


def test_the_text_of_a_box_is_shown_whatever_the_blocker_is_called():
    """No C runtime exports the function that shows the box, so that its kind is often not found."""
    found = verdict([A], has_exception=False, box_text="Runtime Error!")
    assert (found.text, found.shows_box) == ('abort called, error box shown: "Runtime Error!"', True)


@pytest.mark.parametrize(
    ("kinds", "has_exception", "code", "is_in_shutdown", "shows_box"),
    [
        ([W, F], True, VerdictCode.CRASHED_WAITING_FOR_WER, False, False),
        ([S, A, E, F], True, VerdictCode.CRASHED_IN_SHUTDOWN, True, True),
        ([S], False, VerdictCode.HANGS_IN_SHUTDOWN, True, False),
        ([S, BlockerKind.PURE_CALL], False, VerdictCode.PURE_CALL, True, False),
        ([E, A], False, VerdictCode.ABORT, False, True),
        ([E], False, VerdictCode.ERROR_BOX, False, True),
        ([H, X], True, VerdictCode.FAILED_FAST, False, False),
        ([H, F], True, VerdictCode.CRASHED, False, True),
        ([], False, VerdictCode.UNKNOWN, False, False),
    ],
)
def test_codes(kinds: list[BlockerKind], has_exception: bool, code: VerdictCode, is_in_shutdown: bool, shows_box: bool):
    found = verdict(kinds, has_exception=has_exception)
    assert (found.code, found.is_in_shutdown, found.shows_box) == (code, is_in_shutdown, shows_box)


@pytest.mark.parametrize(
    ("waits_for", "code"),
    [
        (NotBack.KERNEL, VerdictCode.STOPPED),
        (NotBack.SECOND_CHANCE, VerdictCode.SECOND_CHANCE),
        (NotBack.VECTORED_HANDLER, VerdictCode.VECTORED_HANDLER),
        (NotBack.EXCEPTION_FILTER, VerdictCode.EXCEPTION_FILTER),
        (NotBack.TERMINATION_HANDLER, VerdictCode.TERMINATION_HANDLER),
        (NotBack.LOCK, VerdictCode.DISPATCHER_LOCK),
        (NotBack.UNKNOWN, VerdictCode.IN_DISPATCH),
        (NotBack.NOBODY, VerdictCode.HANDLED),
    ],
)
def test_who_has_not_come_back_to_a_dispatch_is_the_verdict(waits_for: NotBack, code: VerdictCode):
    found = verdict([], has_exception=True, dispatch=DispatchState(waits_for, ("a", "f")))
    assert (found.code, found.text) == (code, code.value)


def test_a_filter_is_named_by_its_function():
    state = DispatchState(NotBack.EXCEPTION_FILTER, ("app", "Loop$filt$0"), "app!Loop\n")
    found = verdict([], has_exception=True, dispatch=state)
    assert found.text == r"an exception is being dispatched, and the filter of app!Loop\n does not return"


def test_a_box_is_said_with_the_dispatch_that_it_holds_up_and_not_with_one_that_was_handled():
    found = [
        verdict([], has_exception=True, box_text="Sorry", dispatch=DispatchState(waits_for, ("app", "OnFault")))
        for waits_for in (NotBack.VECTORED_HANDLER, NotBack.NOBODY)
    ]
    held_up, handled = (code.value for code in (VerdictCode.VECTORED_HANDLER, VerdictCode.HANDLED))
    assert [item.text for item in found] == [f'{held_up}, error box shown: "Sorry"', handled]
    assert [item.shows_box for item in found] == [True, False]


def test_a_blocking_function_says_more_than_the_dispatch():
    state = DispatchState(NotBack.EXCEPTION_FILTER, ("app", "Loop$filt$0"))
    assert verdict([A], has_exception=True, dispatch=state).code is VerdictCode.CRASHED_IN_ABORT


WINDOWS = {
    "Windows 7, 32-bit": "ntdll!NtWaitForMultipleObjects KERNELBASE!WaitForMultipleObjectsEx "
    "KERNEL32!WaitForMultipleObjectsExImplementation KERNEL32!WaitForMultipleObjects KERNEL32!WerpReportFaultInternal "
    "KERNEL32!WerpReportFault KERNEL32!BasepReportFault KERNEL32!UnhandledExceptionFilter ntdll!__RtlUserThreadStart",
    "Windows 10": "ntdll!NtWaitForMultipleObjects KERNELBASE!WaitForMultipleObjectsEx "
    "KERNELBASE!WaitForMultipleObjects kernel32!WerpReportFaultInternal kernel32!WerpReportFault "
    "KERNELBASE!UnhandledExceptionFilter ntdll!RtlUserThreadStart$filt$0 ntdll!_C_specific_handler",
    "Windows XP": "ntdll!KiFastSystemCallRet ntdll!NtWaitForSingleObject kernel32!WaitForSingleObjectEx "
    "faultrep!InternalGenerateMinidumpEx faultrep!StartManifestReportImmediate faultrep!ReportFault "
    "kernel32!UnhandledExceptionFilter",
    "a thread pool's worker": "ntdll!NtWaitForMultipleObjects ntdll!WerpWaitForCrashReporting "
    "ntdll!RtlReportExceptionHelper ntdll!RtlReportException ntdll!TppWorkerpInnerExceptionFilter",
    "a DllMain": "ntdll!NtAlpcSendWaitReceivePort ntdll!SendMessageToWERService ntdll!ReportExceptionInternal "
    "ntdll!RtlReportExceptionHelper ntdll!RtlReportException ntdll!LdrpCalloutExceptionFilter",
}


@pytest.mark.parametrize("stack", WINDOWS.values(), ids=WINDOWS.keys())
def test_waits_for_error_reporting_read_as_such(stack: str):
    """The first three as debuggers showed them, shortened; the last two by which functions of ntdll call which."""
    module_and_symbol = [tuple(name.split("!")) for name in stack.split()]
    kinds = [blocker_named(*name).kind for name in blocked_in(module_and_symbol)]
    assert verdict(kinds, has_exception=True).text == "crashed and waiting for WER"


def test_a_fatal_error_of_the_clr_is_no_terminate():
    stack = [("KERNELBASE", "RaiseFailFastException"), ("coreclr", "EEPolicy::HandleFatalError")]
    assert verdict(_kinds(stack), has_exception=False).text == "failed fast"
    assert verdict(_kinds(stack[1:]), has_exception=False).text == "failed fast"
