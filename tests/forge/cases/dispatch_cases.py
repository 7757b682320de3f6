# SPDX-License-Identifier: Apache-2.0
"""Windows 10 x64: exceptions in the handling of exceptions, threads that only look stuck, processes that cannot end."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tests.forge.cases import Case
from tests.forge.cases.dispatch_x64 import (
    IN_FILTER,
    DispatchSite,
    ask,
    call_filter,
    call_vectored,
    dead,
    enter,
    fault,
    unhandled,
)
from tests.forge.cases.threads_x64 import ACCESS_VIOLATION, THREAD_START, Crash, Threads, Waiting
from tests.forge.cases.windows_x64 import MACHINE_FRAME
from tests.forge.chains_x64 import Chain
from tests.forge.describe import Process
from tests.forge.records import context_x64
from tests.forge.truth import TruthFrame, TruthThread

PID = 0x17D4
_ROUTINE = "ledger::Worker::Run"


@dataclass(frozen=True)
class Outer:
    """An exception that was being handled when the one of the row was raised."""

    code: int
    record: int
    context: int
    frames: tuple[TruthFrame, ...]


@dataclass(frozen=True)
class Shutdown(Crash):
    """A thread whose filter ends the process."""

    def truth(self, process: Process) -> TruthThread:
        """Return what must be found; the blocker is another than a crash's."""
        found = Crash.truth(self, process)
        return replace(found, blockers=("ucrtbase!abort", "mscoree!CorExitProcess"))


def _begin(threads: Threads) -> tuple[Chain, int]:
    _, chain, teb = threads._begin()
    enter(threads, chain, "RtlUserThreadStart", "BaseThreadInitThunk", THREAD_START)
    return chain, teb


def _waiting(threads: Threads, chain: Chain, tid: int, teb: int, since: int) -> Waiting:
    thread, frames = threads._thread(chain, tid, teb, _ROUTINE, since=since)
    return Waiting(thread, threads._region(chain.stack), frames)


def _crash(kind: type[Crash], threads: Threads, made: Waiting, place: tuple[int, int, dict[str, int]]) -> Crash:
    """Return a thread laid out as a waiting one as stuck on the fault at `place` (see `fault`)."""
    record, context, registers = place
    thrown_at = threads.images.name(registers["rip"])
    return kind(made.thread, made.region, made.frames, ACCESS_VIOLATION, record, context, registers, thrown_at)


def _wait(threads: Threads, chain: Chain) -> None:
    enter(threads, chain, "WaitForSingleObjectEx", "NtWaitForSingleObject")


def nested_with_outer() -> tuple[Case, Outer]:
    """Return the case `nested`, and what there is to find of the exception further out."""
    site = DispatchSite("nested")
    process, threads = site.service(PID)
    site.add(process, threads.idle(PID + 4, "main", 3000))
    chain, teb = _begin(threads)
    enter(threads, chain, "ledger::Reader::Loop", "ledger::Cache::Refresh", "ledger::Cache::Lookup")
    frame = chain.placed[3].registers["rsp"]
    outer = fault(threads, chain)
    depth = len(chain.placed) - 1
    ask(threads, chain, *outer[:2], frame)
    enter(threads, chain, "ledger::Reader::Loop$filt$0", "ledger::Report::Write")
    inner = fault(threads, chain)
    threads._dispatch(chain, *inner[:2])
    crash = _crash(Crash, threads, _waiting(threads, chain, PID + 8, teb, 6900), inner)
    site.add(process, crash)
    return site.case(), Outer(ACCESS_VIOLATION, outer[0], outer[1], crash.frames[-depth:])


def nested() -> Case:
    """Windows 10 x64: a fault in the filter that was asked about a fault; nobody handles the second one."""
    return nested_with_outer()[0]


def decoys() -> Case:
    """Windows 10 x64: threads that wait, each with something on its stack that looks like an unhandled exception."""
    site = DispatchSite("decoys-x64")
    process, threads = site.service(PID)
    makers = (_left_in_locals, _left_below, _start_context, _in_catch, _vectored_handler_returned)
    for index, maker in enumerate(makers):
        chain, teb = _begin(threads)
        maker(threads, chain)
        site.add(process, _waiting(threads, chain, PID + 8 + 4 * index, teb, 3000 + index))
    return site.case()


def _left_in_locals(threads: Threads, chain: Chain) -> None:
    """Leave a whole dispatch, UnhandledExceptionFilter included, where a live function has never written."""
    enter(threads, chain, "ledger::Cache::Wait")
    unhandled(threads, dead(chain, chain.rsp + 0x7008))
    _wait(threads, chain)


def _left_below(threads: Threads, chain: Chain) -> None:
    """Leave the same below the stack pointer: an __except block, or what follows it, waits."""
    enter(threads, chain, "ledger::Timer::Loop", "SleepEx", "NtDelayExecution")
    unhandled(threads, dead(chain, ((chain.rsp - 0x200) & ~0xF) + 8))


def _start_context(threads: Threads, chain: Chain) -> None:
    """Leave the CONTEXT that the thread was started with, pointers to it, and an address in the filter."""
    enter(threads, chain, "ledger::Cache::Wait")
    system, stack, at = threads.system, chain.stack, (chain.rsp + 0x4000) & ~0xF
    start = {
        "rip": system["RtlUserThreadStart"].start,
        "rsp": stack.base - 0x28,
        "rcx": threads.program[_ROUTINE].start,
    }
    stack.at(at).raw(context_x64(start, 0x10001F))
    stack.at(at - 0x40).d64(at + 0x800, at, system["UnhandledExceptionFilter"].start + IN_FILTER)
    stack.at(at + 0x810).d64(start["rip"])  # where a record would have its address
    _wait(threads, chain)


def _catch(threads: Threads, chain: Chain, block: str) -> None:
    """Let a catch block run: on top of the stack that threw, its caller the function that catches.

    RtlUnwindEx has gone back to that function and calls the block through RcConsolidateFrames, whose frame is all that
    is between: the dead stack with its dispatch.
    """
    enter(threads, chain, "ledger::Worker::Run", "ledger::Importer::ImportFile")
    catching = chain.placed[-1]
    thrown = dead(chain, chain.return_slot)
    unhandled(threads, thrown)
    area = (thrown.rsp - 0x1000) & ~0xF
    consolidate = threads.program["RcConsolidateFrames"]
    chain.stack.at(area).raw(context_x64(catching.registers, 0x10000F))
    chain.stack.at(area + MACHINE_FRAME).d64(catching.registers["rip"], 0x33, 0x246, catching.registers["rsp"], 0x2B)
    chain.interrupt(area, consolidate, consolidate.start + 0x2E)
    enter(threads, chain, "_CxxCallCatchBlock", block)


def _in_catch(threads: Threads, chain: Chain) -> None:
    _catch(threads, chain, "ledger::Importer::ImportFile$catch$0")
    _wait(threads, chain)


def _vectored_handler_returned(threads: Threads, chain: Chain) -> None:
    """Leave a vectored handler's frames below the stack pointer: it took the exception, and the program went on."""
    enter(threads, chain, "ledger::Timer::Loop", "SleepEx", "NtDelayExecution")
    gone = dead(chain, ((chain.rsp - 0x200) & ~0xF) + 8)
    call_vectored(threads, gone)


def shutdown_hang() -> Case:
    """Windows 10 x64: CorExitProcess called by a filter's abort, and twice with no exception behind it."""
    site = DispatchSite("shutdown-hang")
    process, threads = site.service(PID)
    site.add(process, threads.idle(PID + 4, "main", 3000))
    chain, teb = _begin(threads)
    place = call_filter(threads, chain, "ledger::Reader::Loop$filt$1")
    enter(threads, chain, "abort", "exit", "CorExitProcess")
    _wait(threads, chain)
    site.add(process, _crash(Shutdown, threads, _waiting(threads, chain, PID + 8, teb, 6900), place))
    without = (PID + 0xC, PID + 0x10)
    for tid, maker in zip(without, (_plain_shutdown, _shutdown_in_catch), strict=True):
        chain, teb = _begin(threads)
        maker(threads, chain)
        made = _waiting(threads, chain, tid, teb, 7100)
        process.threads.append(made.thread)
        process.regions.append(made.region)
    case = site.case()
    return replace(case, truth=replace(case.truth, hanging=tuple((PID, tid) for tid in without)))


def _plain_shutdown(threads: Threads, chain: Chain) -> None:
    """End the process; a dispatch of long ago is in the locals of the function that does."""
    enter(threads, chain, "ledger::Cache::Leave")
    unhandled(threads, dead(chain, chain.rsp + 0x7008))
    enter(threads, chain, "ledger::Shutdown", "exit", "CorExitProcess")
    _wait(threads, chain)


def _shutdown_in_catch(threads: Threads, chain: Chain) -> None:
    _catch(threads, chain, "ledger::Importer::ImportFile$catch$1")
    enter(threads, chain, "ledger::Shutdown", "exit", "CorExitProcess")
    _wait(threads, chain)
