# SPDX-License-Identifier: Apache-2.0
"""Dumps of programs that ended in another failure than theirs, and of threads that are stuck without an exception."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

import throwstack
from tests.forge.__main__ import forge
from tests.forge.cases.dispatch_cases import _begin, _wait, _waiting
from tests.forge.cases.dispatch_x64 import enter
from tests.forge.cases.machine_x64 import HEAP, Site
from tests.forge.cases.service_code import PROGRAM_BASE
from tests.forge.cases.threads_x64 import Crash, Threads
from tests.forge.cases.windows_x64 import KERNELBASE, UCRT, VCRUNTIME
from tests.forge.chains_x64 import Chain
from tests.forge.functions_x64 import Call, Frame, Function
from tests.support.vol import vol

ABORT, TERMINATE, FILTER = UCRT + 0x5000, UCRT + 0x7000, PROGRAM_BASE + 0xC000
FAST_FAIL = ABORT + 0x40
HOOK, CLOSE, RUNTIMES_TERMINATE = PROGRAM_BASE + 0xC000, PROGRAM_BASE + 0xC400, VCRUNTIME + 0x3000
BLOCKED = "blocked stack: no exception was found, so these are the frames on which the thread waits"


class FurtherSite(Site):
    """The service's machine, with further functions in its images."""

    def __init__(self, case: str) -> None:
        super().__init__(case)
        images = {**self.system.images, "": self.program.image}
        for stem, function in self.further(images):
            made = function.put(images[stem], images[stem].symbols.get("__chkstk", 0), exported=bool(stem))
            self.program.functions[function.name] = made
        self._built = [(image, image.build()) for image in self.images]

    def further(self, images: dict) -> Iterable[tuple[str, Function]]:
        raise NotImplementedError


class FailsFast(FurtherSite):
    """The program's filter, that Visual Studio 2015 and later link in, calls terminate, and that calls abort."""

    def further(self, images: dict) -> Iterable[tuple[str, Function]]:
        yield "ucrtbase", Function("abort", ABORT, Frame(("rbx",), 0x20), (Call(ABORT + 0x80, TERMINATE),))
        yield "ucrtbase", Function("terminate", TERMINATE, Frame(allocation=0x28), (Call(TERMINATE + 0x40, ABORT),))
        call = Call(FILTER + 0x40, via=images[""].slot(TERMINATE))
        yield "", Function("__scrt_unhandled_exception_filter", FILTER, Frame(allocation=0x28), (call,))


class Terminates(FurtherSite):
    """The program calls terminate, and its terminate handler waits."""

    def further(self, images: dict) -> Iterable[tuple[str, Function]]:
        via = images[""].slot(KERNELBASE + 0x30FF0)
        yield "", Function("ledger::Report::OnTerminate", HOOK, Frame(("rbx",), 0x40), (Call(HOOK + 0x40, via=via),))
        call = Call(RUNTIMES_TERMINATE + 0x40, via=b"\xff\xd0")
        yield "VCRUNTIME140", Function("terminate", RUNTIMES_TERMINATE, Frame(allocation=0x28), (call,))
        via = images[""].slot(RUNTIMES_TERMINATE)
        yield "", Function("ledger::Session::Close", CLOSE, Frame(("rbx",), 0x20), (Call(CLOSE + 0x40, via=via),))


def dispatched_to_abort(threads: Threads, chain: Chain, record: int, context: int) -> None:
    """Lay out a dispatch in which the filter that is asked last ends the program."""
    system, outermost = threads.system, chain.placed[0].registers
    chain.enter(system["RtlDispatchException"], rsi=record, rdi=context)
    chain.enter(system["RtlpExecuteHandlerForException"])
    chain.enter(system["__C_specific_handler"])
    pointers = chain.rsp + 0x20
    chain.stack.at(pointers).d64(record, context)
    chain.enter(system["RtlUserThreadStart$filt$0"], rbp=outermost["rsp"])
    chain.enter(system["UnhandledExceptionFilter"], rbx=pointers)
    enter(threads, chain, "__scrt_unhandled_exception_filter", "terminate")
    chain.enter(threads.program["abort"], ip=FAST_FAIL)


@pytest.fixture(scope="module")
def uncaught(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Crash]:
    """Windows 10 x64: a C++ exception that nobody caught ended in the int 29h of abort."""
    site, out = FailsFast("cpp-fast-fail"), tmp_path_factory.mktemp("uncaught")
    process, threads = site.service(0x14B8)
    site.add(process, threads.idle(0x14BC, "main", 3000))
    thread_of = threads._thread
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threads, "_dispatch", lambda *places: dispatched_to_abort(threads, *places))
        patch.setattr(threads, "_thread", lambda *made, **more: thread_of(*made, **more, service="page fault"))
        crash = threads.throw(0x14C8, HEAP, 6400)
    crash.thread.exception_active = 1
    crash.thread.registers["rcx"] = 7
    site.add(process, crash)
    region = next(region for region in process.regions if region.base <= FAST_FAIL < region.base + len(region.data))
    at = FAST_FAIL - region.base
    region.data = region.data[:at] + b"\xcd\x29" + region.data[at + 2 :]
    forge(site.case(), out)
    return out, crash


def test_an_uncaught_cpp_exception_is_the_row_and_the_fast_fail_of_abort_a_note(uncaught: tuple[Path, Crash]):
    out, crash = uncaught
    (row,) = vol(out, "windows.unhandled").rows
    assert row["Exception"] == "C++ ledger::config_error \"configuration value 'listen_port' is missing\""
    assert (row["Record"], row["Context"], row["Thrown At"]) == (crash.record, crash.context, crash.thrown_at)
    assert row["Signature"].startswith("ledgersvc!ledger::Parser::Require (")
    assert row["Verdict"] == "failed fast"
    assert row["Notes"] == (
        "ended by fail-fast 7 FAST_FAIL_FATAL_APP_EXIT at ucrtbase!abort+0x40, "
        "raised while this exception was being reported (no CONTEXT record)"
    )


def test_the_stack_of_the_cause_is_the_first_that_is_shown(uncaught: tuple[Path, Crash]):
    rows = vol(uncaught[0], "windows.cxrstack").rows
    first, second = (row for row in rows if row["Frame"] == 0)
    assert first["Call Site"].startswith("KERNELBASE!RaiseException+")
    assert first["Notes"].startswith("original exception 0xe06d7363, context ")
    assert (
        "; cause: C++ ledger::config_error \"configuration value 'listen_port' is missing\", "
        f"thrown at {uncaught[1].thrown_at}, signature ledgersvc!ledger::Parser::Require ("
    ) in first["Notes"]
    assert second["Call Site"] == "ucrtbase!abort+0x40"
    assert second["Notes"].startswith(
        "raised while an earlier exception (the stack above) was being reported: 0xc0000409"
    )
    assert "; end: fail-fast 7 FAST_FAIL_FATAL_APP_EXIT, thrown at ucrtbase!abort+0x40, signature " in second["Notes"]


def test_the_report_has_every_exception_with_what_it_has_to_do_with_the_others(uncaught: tuple[Path, Crash]):
    out, crash = uncaught
    with throwstack.open(out / "MEMORY.DMP", symbols=[out / "isf"], offline=True) as dump:
        (found,) = throwstack.to_json(dump.report())["crashes"]
    cause, end = found["exceptions"]
    assert (cause["role"], cause["thrown_at"], cause["signature"]) == ("cause", crash.thrown_at, found["signature"])
    assert (end["role"], end["thrown_at"]) == ("end", "ucrtbase!abort+0x40")
    assert end["signature"]["text"] == "ledgersvc!ledger::Parser::Require"
    assert end["stack"]["frames"][1]["name"] == "ucrtbase!terminate+0x40"


def test_a_thread_without_an_exception_has_place_signature_and_its_blocked_stack(tmp_path: Path):
    site = Terminates("terminate")
    process, threads = site.service(0x17D4)
    site.add(process, threads.idle(0x17D8, "main", 3000))
    chain, teb = _begin(threads)
    enter(threads, chain, "ledger::Worker::Run", "ledger::Session::Close", "terminate", "ledger::Report::OnTerminate")
    _wait(threads, chain)
    waiting = _waiting(threads, chain, 0x17DC, teb, 6900)
    site.add(process, waiting)
    forge(site.case(), tmp_path)
    (row,) = vol(tmp_path, "windows.unhandled").rows
    assert (row["Verdict"], row["Exception"]) == ("C++ terminate called", None)
    assert row["Thrown At"] == "ledgersvc!ledger::Session::Close+0x40"
    assert row["Signature"].startswith("ledgersvc!ledger::Session::Close (")
    stack = vol(tmp_path, "windows.cxrstack").rows
    assert [frame["Call Site"] for frame in stack] == [
        frame.symbol for frame in waiting.frames if frame.symbol[:3] != "nt!"
    ]
    assert (stack[0]["TID"], stack[0]["Notes"]) == (0x17DC, BLOCKED)
