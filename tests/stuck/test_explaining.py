# SPDX-License-Identifier: Apache-2.0
"""Which blocking functions on a stack explain the wait: worked examples, innermost first."""

from __future__ import annotations

import pytest

from throwstack.names.blockers import blocker_named
from throwstack.stuck.explaining import explaining


def _kept(stack: str) -> str:
    """Return the blocking functions of `stack` that explain the wait. The exception was thrown after the `<`."""
    inside, _, outside = stack.partition(" < ")
    names = [*inside.split(), *outside.split()]
    blockers = [blocker_named(*name.split("!")) for name in names]
    flags = explaining(blockers, len(inside.split()))
    return " ".join(name for name, blocker, kept in zip(names, blockers, flags, strict=True) if blocker and kept)


@pytest.mark.parametrize(
    ("stack", "kept"),
    [
        # A breakpoint that was dispatched is not waited in; one that stopped the thread is.
        (
            "KERNEL32!WerpReportFault KERNELBASE!UnhandledExceptionFilter < KERNELBASE!DebugBreak app!main",
            "KERNEL32!WerpReportFault KERNELBASE!UnhandledExceptionFilter",
        ),
        ("ntdll!DbgBreakPoint KERNELBASE!DebugBreak app!main", "ntdll!DbgBreakPoint KERNELBASE!DebugBreak"),
        # An assertion that has gone on to abort shows no box, one that has not does. abort shows a box itself.
        ("ucrtbase!abort ucrtbase!_wassert app!Check", "ucrtbase!abort"),
        ("ucrtbase!__acrt_MessageBoxW ucrtbase!_wassert app!Check", "ucrtbase!__acrt_MessageBoxW ucrtbase!_wassert"),
        ("MSVCR90!__crtMessageBoxA MSVCR90!abort app!main", "MSVCR90!__crtMessageBoxA MSVCR90!abort"),
        # WatsonLastChance reports a fatal error of the CLR, or (further out) an exception without a handler.
        (
            "KERNELBASE!RaiseFailFastException coreclr!WatsonLastChance coreclr!EEPolicy::HandleFatalError app!main",
            "KERNELBASE!RaiseFailFastException coreclr!EEPolicy::HandleFatalError",
        ),
        (
            "KERNELBASE!RaiseFailFastException coreclr!WatsonLastChance app!main",
            "KERNELBASE!RaiseFailFastException coreclr!WatsonLastChance",
        ),
    ],
)
def test_explains_the_wait(stack: str, kept: str) -> None:
    assert _kept(stack) == kept
