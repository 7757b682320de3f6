# SPDX-License-Identifier: Apache-2.0
"""Who has not come back to the dispatcher, by the functions between it and the wait."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.targets import make_target
from throwstack.core.contexts import Context
from throwstack.core.exception_record import ExceptionRecord
from throwstack.core.frames import End, Frame, Trust, Walk
from throwstack.core.registers import Arch, Registers
from throwstack.dispatch.saved_exception import Route, SavedException
from throwstack.images.modules import Module
from throwstack.stuck.dispatch_state import DispatchState, NotBack, dispatch_state

NTDLL = Module("ntdll.dll", r"C:\Windows\System32\ntdll.dll", 0x7FFB00000000, 0x100000)
APP = Module("app.exe", r"C:\app.exe", 0x7FF600000000, 0x100000)
X86_APP = replace(APP, base=0x400000)
X86_NTDLL = replace(NTDLL, base=0x77000000)
SP, CONTEXT = 0x10000, 0x18000


def state(*functions: str, arch: Arch = Arch.X64, trust: Trust = Trust.CFI) -> DispatchState:
    """The state of a dispatch with these functions on the stack, innermost first, `ntdll!X` or `app!X`."""
    modules = (NTDLL, APP) if arch is Arch.X64 else (X86_NTDLL, X86_APP)
    symbols: dict[str, dict[str, int]] = {"ntdll.dll": {}, "app.exe": {}}
    frames = []
    for index, function in enumerate(functions):
        label, _, name = function.partition("!")
        module = modules[0] if label == "ntdll" else modules[1]
        rva = 0x1000 * (index + 1)
        symbols[module.name][name or f"other{index}"] = rva
        given = Registers(module.base + rva + 0x10, (SP + 0x100 * index,) * len(arch.register_names))
        frames.append(Frame(given, SP + 0x100 * index, 0, None, trust))
    target = make_target(arch, list(modules), {}, symbols, Walk((), End.THREAD_START))
    registers = Registers(APP.base + 0x9000, (CONTEXT + 0x1000,) * len(arch.register_names))
    record = ExceptionRecord(0xC0000005, 0, registers.ip, 0, (), CONTEXT + 0x4F0, 0)
    context = Context(arch, CONTEXT, 0, registers, *(0,) * 7)
    return dispatch_state(target, frames, SavedException(record, context, (Route.DISPATCHER,), CONTEXT))


START = ("ntdll!RtlDispatchException", "ntdll!KiUserExceptionDispatch")
SEARCH = ("ntdll!__C_specific_handler", "ntdll!RtlpExecuteHandlerForException", *START)


@pytest.mark.parametrize(
    ("functions", "waits_for", "function"),
    [
        (("ntdll!NtRaiseException", "ntdll!KiUserExceptionDispatch"), NotBack.SECOND_CHANCE, ""),
        (("ntdll!ZwRaiseException", "ntdll!RtlRaiseException"), NotBack.SECOND_CHANCE, ""),
        (("ntdll!NtWait", "app!OnException", "ntdll!RtlpCallVectoredHandlers", *START), NotBack.VECTORED_HANDLER, ""),
        (("ntdll!NtWait", "ntdll!RtlpCallVectoredHandlers", *START), NotBack.LOCK, ""),
        (("ntdll!NtWait", "ntdll!RtlEnterCriticalSection", *START), NotBack.LOCK, ""),
        (("ntdll!NtWait", "app!Wait", "app!Loop$filt$12", *SEARCH), NotBack.EXCEPTION_FILTER, "app!Loop"),
        (("ntdll!NtWait", "app!?filt$0@0@main@@", *SEARCH), NotBack.EXCEPTION_FILTER, "app!main"),
        (("ntdll!NtWait", "app!Loop$fin$0", *SEARCH), NotBack.TERMINATION_HANDLER, ""),
        (("ntdll!NtWait", *SEARCH), NotBack.UNKNOWN, ""),
        # A C++ runtime asks no filter: what it calls while it searches is not known.
        (
            ("ntdll!NtWait", "app!Odd", "app!__CxxFrameHandler3", "ntdll!RtlpExecuteHandlerForException", *START),
            NotBack.UNKNOWN,
            "",
        ),
        (("ntdll!NtWait", "app!Any", *START), NotBack.UNKNOWN, ""),
    ],
)
def test_the_functions_inside_the_dispatcher_tell_who_has_not_come_back(
    functions: tuple[str, ...], waits_for: NotBack, function: str
):
    found = state(*functions)
    assert (found.waits_for, found.function) == (waits_for, function)


def test_on_x86_only_a_vectored_handler_is_called_without_executehandler():
    stack = ("ntdll!NtWait", "app!Any", "ntdll!Unnamed", "ntdll!KiUserExceptionDispatcher")
    assert state(*stack, arch=Arch.X86).waits_for is NotBack.VECTORED_HANDLER
    assert state(*stack, arch=Arch.X86, trust=Trust.SCAN).waits_for is NotBack.UNKNOWN


def test_what_explains_the_wait_is_the_function_that_was_called():
    assert state("ntdll!NtWait", "app!Wait", "app!Loop$filt$0", *SEARCH).blocked_in == ("app", "Loop$filt$0")
    assert state("ntdll!NtWait", *SEARCH).blocked_in[0] == "ntdll"
