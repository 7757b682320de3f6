# SPDX-License-Identifier: Apache-2.0
"""The table of blockers and the order in which they are named."""

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
    triage_blockers_in,
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


def test_the_blockers_of_the_reference_case_are_named():
    named = ", ".join(f"{module}!{symbol}" for module, symbol in blocked_in(REFERENCE))
    assert named == "KERNEL32!UnhandledExceptionFilter, MSVCR71!abort, mscorwks!CorExitProcess"


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


@pytest.mark.parametrize(
    ("module", "symbols"),
    [
        ("VCRUNTIME140", {"_purecall", "__std_terminate"}),
        ("MSVCR71", {"_purecall", "_amsg_exit", "abort"}),
        ("ucrtbased", {"_invoke_watson", "_invalid_parameter_noinfo_noreturn", "_CrtDbgReportW"}),
        ("libstdc___6", {"_ZSt9terminatev"}),  # libstdc++-6.dll
        ("coreclr", {"EEPolicy::HandleFatalError", "EEPolicy::HandleFatalStackOverflow", "EEPolicy::LogFatalError"}),
        ("USER32", {"MessageBoxW", "SoftModalMessageBox"}),
        ("verifier", {"VerifierStopMessage"}),
    ],
)
def test_triage_searches_for_what_never_comes_back_after_a_failure(module: str, symbols: set[str]):
    assert symbols <= {blocker.symbol for blocker in triage_blockers_in(module)}


def test_every_line_of_the_table_is_complete():
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
        ("libstdc___6", "std::terminate", BlockerKind.TERMINATE),
        ("app", "__std_terminate", BlockerKind.TERMINATE),
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


def test_filter_explains_before_what_lies_further_out():
    stack = [("KERNEL32", "UnhandledExceptionFilter"), ("app", "OnDetach"), ("ntdll", "LdrShutdownProcess")]
    assert blocked_in(stack) == (("KERNEL32", "UnhandledExceptionFilter"), ("ntdll", "LdrShutdownProcess"))
    assert blocked_in([("app", "main")]) == ()


def test_few_modules_can_have_blockers_for_which_triage_looks():
    for blocker in triage_blockers():
        assert not blocker.is_in("someapp"), blocker
    assert blocker_named("someapp", "abort") is not None
