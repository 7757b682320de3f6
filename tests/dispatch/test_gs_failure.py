# SPDX-License-Identifier: Apache-2.0
"""Record and CONTEXT of a stack-cookie failure, in global variables of the module that found it."""

from __future__ import annotations

import pytest

from tests.forge.stacks import Stack
from tests.support.targets import make_target
from tests.support.x64_saved import frame, put_context, put_record
from throwstack.core.frames import End, StackBounds, Walk
from throwstack.core.registers import Arch
from throwstack.dispatch.gs_failure import from_gs_failure_frame
from throwstack.dispatch.saved_exception import Route, SavedException
from throwstack.images.modules import Module
from throwstack.names.symbols import Name

LIMIT, BASE = 0x1F_FFF0_0000, 0x1F_FFF1_0000
SP = LIMIT + 0x8000
APP = Module("app.exe", "", 0x7FF6_0000_0000, 0x10000)
FAULT, IN_REPORT = APP.base + 0x1234, APP.base + 0x2050
RECORD, CONTEXT = APP.base + 0x5000, APP.base + 0x5100
GLOBALS = {"GS_ExceptionRecord": 0x5000, "GS_ContextRecord": 0x5100}


def saved_by(function: str, symbols: dict[str, int], ip: int = IN_REPORT) -> SavedException | None:
    """What the frame of `function` gives in a program whose globals have these names."""
    data = Stack(APP.base + 0x5000, APP.base + 0x6000)
    put_context(data, CONTEXT, rip=FAULT, rsp=SP + 0x100)
    put_record(data, RECORD, code=0xC0000409, ip=FAULT)
    memory = {LIMIT: Stack(LIMIT, BASE).data(), APP.base + 0x5000: data.data()}
    target = make_target(Arch.X64, [APP], memory, {"app.exe": symbols}, Walk((), End.THREAD_START))
    return from_gs_failure_frame(target, StackBounds(LIMIT, BASE), frame(ip, SP), Name(ip, "app", function))


@pytest.mark.parametrize("prefix", ["", "_"], ids=["x64", "as x86 decorates it"])
@pytest.mark.parametrize("function", ["__report_gsfailure", "__report_securityfailure"])
def test_a_function_that_reports_it_has_saved_both_in_globals(function: str, prefix: str):
    found = saved_by(function, {prefix + symbol: rva for symbol, rva in GLOBALS.items()})
    assert found is not None
    assert (found.record.location, found.context.address) == (RECORD, CONTEXT)
    assert (found.routes, found.frame_sp) == ((Route.GLOBALS,), SP)


@pytest.mark.parametrize("missing", GLOBALS)
def test_without_the_name_of_one_of_them_there_is_no_exception(missing: str):
    symbols = {symbol: rva for symbol, rva in GLOBALS.items() if symbol != missing}
    assert saved_by("__report_gsfailure", symbols) is None


@pytest.mark.parametrize("function", ["main", "_invoke_watson"], ids=["ordinary", "blocks for another reason"])
def test_the_globals_say_nothing_where_another_function_runs(function: str):
    assert saved_by(function, GLOBALS) is None


def test_a_frame_outside_all_modules_has_no_globals():
    assert saved_by("__report_gsfailure", GLOBALS, ip=0x1234_0000) is None
