# SPDX-License-Identifier: Apache-2.0
"""The table of blockers, the order in which they are named, and the verdicts."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from throwstack.names.blockers import (
    BlockerKind,
    blocked_in,
    blocker_named,
    blockers,
    triage_blockers,
    verdict,
)

REFERENCE = [
    ("ntdll", "KiFastSystemCallRet"),
    ("ntdll", "NtWaitForMultipleObjects"),
    ("KERNEL32", "WaitForMultipleObjectsEx"),
    ("USER32", "RealMsgWaitForMultipleObjectsEx"),
    ("ole32", "CCliModalLoop::BlockFn"),
    ("ole32", "CoWaitForMultipleHandles"),
    ("mscorwks", "NT5WaitRoutine"),
    ("mscorwks", "CLREvent::Wait"),
    ("mscorwks", "CorExitProcess"),
    ("mscorwks", "WaitForEndOfShutdown"),
    ("mscorwks", "EEShutDown"),
    ("mscorwks", "DisableRuntime"),
    ("mscoree", "CorExitProcess"),
    ("MSVCR71", "__crtExitProcess"),
    ("MSVCR71", "doexit"),
    ("MSVCR71", "_exit"),
    ("MSVCR71", "raise"),
    ("MSVCR71", "abort"),
    ("KERNEL32", "UnhandledExceptionFilter"),
    ("KERNEL32", "BaseThreadStart"),
]


def _kinds(names: list[tuple[str, str]]) -> list[BlockerKind]:
    return [found.kind for found in (blocker_named(*name) for name in names) if found is not None]


def test_the_blockers_and_the_verdict_of_the_reference_case():
    named = ", ".join(f"{module}!{symbol}" for module, symbol in blocked_in(REFERENCE))
    assert named == "KERNEL32!UnhandledExceptionFilter, MSVCR71!abort, mscorwks!CorExitProcess"
    assert verdict(_kinds(REFERENCE), has_exception=True) == "crashed inside shutdown"


def test_only_filters_prove_an_exception():
    proofs = {blocker.symbol for blocker in blockers() if blocker.proves_exception}
    assert "UnhandledExceptionFilter" in proofs
    assert not proofs & {
        "CorExitProcess",
        "abort",
        "terminate",
        "NtRaiseHardError",
        "ExitProcess",
        "RaiseFailFastException",
    }


def test_triage_finds_filter_shutdown_and_hard_errors():
    symbols = {blocker.symbol for blocker in triage_blockers()}
    assert {"UnhandledExceptionFilter", "CorExitProcess", "NtRaiseHardError", "abort"} <= symbols


def test_every_line_is_complete_and_says_why():
    for blocker in blockers():
        assert blocker.modules
        assert all(pattern == pattern.lower() for pattern in blocker.modules)
        assert not blocker.symbol.isspace()
    table = files("throwstack.names") / "data" / "blockers.tsv"
    for line in table.read_text("utf-8").splitlines():
        assert line.startswith("#") or re.search(r"\t[A-Z].{10,150}\.$", line) or not line, line
    assert len({(blocker.symbol, blocker.modules) for blocker in blockers()}) == len(blockers())


@pytest.mark.parametrize(
    ("module", "symbol", "kind"),
    [
        ("KERNELBASE", "UnhandledExceptionFilter", BlockerKind.UNHANDLED_FILTER),
        ("kernel32", "_UnhandledExceptionFilter@4", BlockerKind.UNHANDLED_FILTER),
        ("MSVCR120", "abort", BlockerKind.ABORT),
        ("ucrtbase", "abort", BlockerKind.ABORT),
        ("app", "_purecall", BlockerKind.PURE_CALL),
        ("app", "?terminate@@YAXXZ", BlockerKind.TERMINATE),
        ("coreclr", "WatsonLastChance", BlockerKind.CLR_WATSON),
    ],
)
def test_a_blocker_is_found_by_its_name_however_it_is_decorated(module: str, symbol: str, kind: BlockerKind):
    found = blocker_named(module, symbol)
    assert found is not None
    assert found.kind is kind


@pytest.mark.parametrize(
    ("module", "symbol"),
    [
        ("app", "UnhandledExceptionFilter"),
        ("app", "terminate"),
        ("kernel32", "CorExitProcess"),
        ("ntdll", ""),
        ("", ""),
    ],
)
def test_a_function_of_the_same_name_in_another_module_is_no_blocker(module: str, symbol: str):
    assert blocker_named(module, symbol) is None


F, S, A, W = BlockerKind.UNHANDLED_FILTER, BlockerKind.SHUTDOWN, BlockerKind.ABORT, BlockerKind.WER
E, X, T = BlockerKind.ERROR_BOX, BlockerKind.FAIL_FAST, BlockerKind.TERMINATION


@pytest.mark.parametrize(
    ("kinds", "has_exception", "words"),
    [
        ([W, F], True, "crashed and waiting for WER"),
        ([F], False, "crashed and waiting in the unhandled exception filter"),
        ([S, A, F], True, "crashed inside shutdown"),
        ([S], False, "hangs in shutdown without an exception"),
        ([BlockerKind.ERROR_BOX, A], False, "error box shown"),
        ([BlockerKind.HARD_ERROR, F], True, "crashed, error box shown"),
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
        ([X, W], True, "crashed and waiting for WER"),
        ([X, BlockerKind.CLR_WATSON], False, "crashed and waiting for WER"),
        ([], True, "crashed"),
        ([], False, ""),
    ],
)
def test_the_verdict_on_a_combination_of_kinds(kinds: list[BlockerKind], has_exception: bool, words: str):
    assert verdict(kinds, has_exception) == words


def test_the_verdict_has_the_text_of_the_box_escaped():
    words = verdict([BlockerKind.ERROR_BOX], has_exception=False, box_text="R6025\n- pure virtual function call")
    assert words == r'error box shown: "R6025\n- pure virtual function call"'


def test_the_filter_explains_a_wait_better_than_blockers_further_out():
    stack = [("KERNEL32", "UnhandledExceptionFilter"), ("app", "OnDetach"), ("ntdll", "LdrShutdownProcess")]
    assert blocked_in(stack) == (("KERNEL32", "UnhandledExceptionFilter"), ("ntdll", "LdrShutdownProcess"))
    assert blocked_in([("app", "main")]) == ()


def test_few_modules_can_have_blockers_for_which_triage_looks():
    for blocker in triage_blockers():
        assert not blocker.is_in("someapp"), blocker
    assert blocker_named("someapp", "abort") is not None


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
def test_a_stack_that_waits_for_error_reporting_has_that_verdict(stack: str):
    """The first three as debuggers showed them, shortened; the last two by which functions of ntdll call which."""
    module_and_symbol = [tuple(name.split("!")) for name in stack.split()]
    kinds = [blocker_named(*name).kind for name in blocked_in(module_and_symbol)]
    assert verdict(kinds, has_exception=True) == "crashed and waiting for WER"


def test_a_fatal_error_of_the_clr_is_not_called_terminate():
    stack = [("KERNELBASE", "RaiseFailFastException"), ("coreclr", "EEPolicy::HandleFatalError")]
    assert verdict(_kinds(stack), has_exception=False) == "failed fast"
    assert verdict(_kinds(stack[1:]), has_exception=False) == "failed fast"
