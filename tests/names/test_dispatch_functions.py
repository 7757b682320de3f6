# SPDX-License-Identifier: Apache-2.0
"""What the functions of the dispatcher do, by name."""

from __future__ import annotations

import pytest

from throwstack.names.dispatch_functions import DispatchRole, functions_of, role_of, searched_in


@pytest.mark.parametrize(
    ("symbol", "role"),
    [
        ("KiUserExceptionDispatcher", DispatchRole.DISPATCHER),
        ("KiUserExceptionDispatch", DispatchRole.DISPATCHER),
        ("_RtlRaiseException@4", DispatchRole.RAISER),
        ("ZwRaiseException", DispatchRole.SECOND_CHANCE),
        ("RtlpCallVectoredHandlers", DispatchRole.CALLS_VECTORED),
        ("RtlpExecuteHandlerForException", DispatchRole.RUNS_HANDLER),
        ("RtlpExecuteHandlerForUnwind", DispatchRole.UNWINDER),
        ("RcConsolidateFrames", DispatchRole.CATCHER),
        ("RaiseException", None),  # it only calls RtlRaiseException
        ("NtWaitForSingleObject", None),
    ],
)
def test_the_role_of_a_function(symbol: str, role: DispatchRole | None):
    assert role_of(symbol) is role


def test_a_name_has_one_role():
    names = [name for role in DispatchRole for name in functions_of(role)]
    assert len(names) == len(set(names))


def test_a_dispatch_is_searched_for_in_ntdll_and_in_the_clr():
    """With exports only, these of ntdll are known: the dispatcher calls all the others."""
    assert {"KiUserExceptionDispatcher", "RtlRaiseException", "NtRaiseException"} <= set(searched_in("ntdll"))
    assert "RaiseTheExceptionInternalOnly" in searched_in("mscorwks")
    assert searched_in("KERNEL32") == ()


def test_what_runs_after_an_exception_was_taken_makes_no_suspect():
    assert not set(searched_in("ntdll")) & functions_of(DispatchRole.UNWINDER, DispatchRole.CATCHER)
