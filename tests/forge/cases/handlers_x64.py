# SPDX-License-Identifier: Apache-2.0
"""Windows 10 x64: handlers that do not return, the second chance, and exceptions that a handler has taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tests.forge.cases import Case
from tests.forge.cases.dispatch_cases import _begin, _catch, _crash, _wait, _waiting
from tests.forge.cases.dispatch_x64 import DispatchSite, ask, call_filter, call_vectored, enter, fault
from tests.forge.cases.handlers_wow64 import add_second_chance
from tests.forge.cases.threads_x64 import Crash, Threads
from tests.forge.cases.windows_x64 import SECOND_CHANCE_RETURN
from tests.forge.chains_x64 import Chain
from tests.forge.describe import Process
from tests.forge.truth import TruthThread

PID = 0x1C2C
_UNWINDING = 0x2
Place = tuple[int, int, dict[str, int]]
"""Addresses of record and CONTEXT, and the registers at the fault."""


@dataclass(frozen=True)
class InDispatch(Crash):
    """A thread whose exception is being dispatched; UnhandledExceptionFilter was not reached."""

    blocked_in: str = ""

    def truth(self, process: Process) -> TruthThread:
        """Return what must be found; `blocked_in` explains the wait."""
        return replace(Crash.truth(self, process), blockers=(self.blocked_in,))


@dataclass(frozen=True)
class Waits:
    """A thread whose exception's handling does not return: how it is laid out, and what the row must say."""

    lay_out: Callable[[Threads, Chain], Place]
    blocked_in: str
    verdict: str


def _vectored(threads: Threads, chain: Chain) -> Place:
    place = call_vectored(threads, chain)
    _wait(threads, chain)
    return place


def _filter(threads: Threads, chain: Chain) -> Place:
    place = call_filter(threads, chain, "ledger::Reader::Loop$filt$2")
    _wait(threads, chain)
    return place


def _lock(threads: Threads, chain: Chain) -> Place:
    enter(threads, chain, "ledger::Reader::Loop", "ledger::Cache::Lookup")
    place = fault(threads, chain)
    chain.enter(threads.system["RtlDispatchException"], rsi=place[0], rdi=place[1])
    enter(threads, chain, "RtlLookupFunctionEntry", "RtlLookupFunctionTable", "RtlAcquireSRWLockShared")
    enter(threads, chain, "NtWaitForAlertByThreadId")
    return place


def _second_chance(threads: Threads, chain: Chain) -> Place:
    enter(threads, chain, "ledger::Reader::Loop", "ledger::Cache::Lookup")
    start = threads.system["KiUserExceptionDispatch"].start
    place = fault(threads, chain, returns_to=start + SECOND_CHANCE_RETURN)
    enter(threads, chain, "NtRaiseException")
    return place


def _crash_reporter(threads: Threads, chain: Chain) -> Place:
    """Let the program's own filter, which UnhandledExceptionFilter calls, write a report for ever."""
    place = call_filter(threads, chain, "RtlUserThreadStart$filt$0")
    chain.enter(threads.system["UnhandledExceptionFilter"], rbx=chain.rsp + 0x20)
    enter(threads, chain, "ledger::ReportCrash")
    _wait(threads, chain)
    return place


_DISPATCHED = "an exception is being dispatched, and "
WAITS = (
    Waits(_vectored, "ledgersvc!ledger::OnException", _DISPATCHED + "a vectored handler does not return"),
    Waits(
        _filter,
        "ledgersvc!ledger::Reader::Loop$filt$2",
        _DISPATCHED + "the filter of ledgersvc!ledger::Reader::Loop does not return",
    ),
    Waits(_lock, "ntdll!RtlAcquireSRWLockShared", _DISPATCHED + "the dispatcher's lock is not released"),
    Waits(_second_chance, "ntdll!NtRaiseException", "second chance: waits for a debugger or the error port"),
    Waits(
        _crash_reporter,
        "KERNELBASE!UnhandledExceptionFilter",
        "crashed and waiting in the unhandled exception filter",
    ),
)
"""The stuck threads of the 64-bit process, in the order of their TIDs."""
ROWS = (
    *((waits.blocked_in, waits.verdict) for waits in WAITS),
    ("ntdll!NtRaiseException", "second chance: waits for a debugger or the error port"),
)
"""What the rows say that the thread waits in, and the verdict. The last thread is of a 32-bit process."""


def _in_finally(threads: Threads, chain: Chain) -> None:
    """Let a __finally block wait: a handler took the exception and unwinds, further in than the dispatcher."""
    enter(threads, chain, "ledger::Reader::Loop", "ledger::Cache::Lookup")
    frame = chain.placed[-2].registers["rsp"]
    record, context, _ = fault(threads, chain, flags=_UNWINDING)
    ask(threads, chain, record, context, frame)
    enter(threads, chain, "RtlUnwindEx", "RtlpExecuteHandlerForUnwind", "__C_specific_handler")
    enter(threads, chain, "ledger::Reader::Loop$fin$3")
    _wait(threads, chain)


def _unwinds_other_record(threads: Threads, chain: Chain) -> None:
    """Let a destructor wait: the C++ runtime unwinds with a record of its own, and the dispatched one has no mark."""
    enter(threads, chain, "ledger::Reader::Loop", "ledger::Cache::Lookup")
    frame = chain.placed[-2].registers["rsp"]
    record, context, _ = fault(threads, chain)
    ask(threads, chain, record, context, frame)
    enter(threads, chain, "RtlUnwindEx", "RtlpExecuteHandlerForUnwind", "__C_specific_handler")
    enter(threads, chain, "ledger::Reader::Loop$fin$3")
    _wait(threads, chain)


def _thread_name(threads: Threads, chain: Chain) -> None:
    """Let a vectored handler wait while the program tells a debugger a thread's name."""
    enter(threads, chain, "ledger::Reader::Loop", "ledger::Cache::Lookup")
    record, context, _ = fault(threads, chain, code=0x406D1388)
    chain.enter(threads.system["RtlDispatchException"], rsi=record, rdi=context)
    enter(threads, chain, "RtlpCallVectoredHandlers", "ledger::OnException")
    _wait(threads, chain)


def _in_catch(threads: Threads, chain: Chain) -> None:
    _catch(threads, chain, "ledger::Importer::ImportFile$catch$0")
    _wait(threads, chain)


HANDLED = (_in_finally, _unwinds_other_record, _in_catch)
"""The threads whose exceptions a handler has taken, in the order of their TIDs, after those of `WAITS`."""


def build() -> Case:
    """Windows 10 x64: handlers that do not return, the second chance, and exceptions that a handler has taken."""
    site = DispatchSite("handlers-x64")
    process, threads = site.service(PID)
    tids = iter(range(PID + 4, PID + 0x100, 4))
    for index, waits in enumerate(WAITS):
        chain, teb = _begin(threads)
        place = waits.lay_out(threads, chain)
        crash = _crash(InDispatch, threads, _waiting(threads, chain, next(tids), teb, 6000 + index), place)
        site.add(process, replace(crash, blocked_in=waits.blocked_in))
    for index, maker in enumerate((*HANDLED, _thread_name)):
        chain, teb = _begin(threads)
        maker(threads, chain)
        site.add(process, _waiting(threads, chain, next(tids), teb, 3000 + index))
    second = add_second_chance(site)
    case = site.case()
    return replace(case, truth=replace(case.truth, stuck=(*case.truth.stuck, second)))
