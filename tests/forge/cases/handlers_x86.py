# SPDX-License-Identifier: Apache-2.0
"""Server 2003 x86: handlers that do not return, the second chance, and exceptions that a handler has taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.forge.cases import Case
from tests.forge.cases.dispatch_x86 import ACCESS_VIOLATION, DispatchCode, Fault
from tests.forge.cases.ftp_images import Library
from tests.forge.cases.ftp_threads import (
    ApiFunctions,
    ThreadFactory,
    Waiting,
    load_images,
    service_image,
    thread_block,
)
from tests.forge.cases.ftp_throw import throwing_functions
from tests.forge.cases.x86_kernel import Kernel
from tests.forge.chains_x86 import Images
from tests.forge.describe import Process
from tests.forge.truth import Truth, TruthThread

PID = 0x4B0
_SERVICES = ("ntdll", "KERNEL32", "RPCRT4", "USER32", "MSVCR80")
_SINGLE = "WaitForSingleObject"
_UNWINDING = 0x2


@dataclass(frozen=True)
class Waits:
    """A thread whose exception's handling does not return: how it goes on after the fault, and what the row says."""

    go_on: Callable[[DispatchCode, Fault], str]
    """Returns the name of the function in which the thread waits."""
    blocked_in: str
    verdict: str


def _vectored(code: DispatchCode, fault: Fault) -> str:
    code.dispatch(fault)
    code.call_vectored(fault)
    return _SINGLE


def _filter(code: DispatchCode, fault: Fault) -> str:
    code.dispatch(fault)
    code.ask_filter(fault)
    return _SINGLE


def _lock(code: DispatchCode, fault: Fault) -> str:
    code.dispatch(fault)
    code.enter_lock(fault)
    return "NtWaitForSingleObject"


def _second_chance(code: DispatchCode, fault: Fault) -> str:
    code.second_chance(fault)
    return "NtRaiseException"


_DISPATCHED = "an exception is being dispatched, and "
WAITS = (
    Waits(_vectored, "svchost+0x1888", _DISPATCHED + "a vectored handler does not return"),
    Waits(
        _filter,
        "KERNEL32!GuardedThreadStart$filt$0",
        _DISPATCHED + "the filter of KERNEL32!GuardedThreadStart does not return",
    ),
    Waits(_lock, "ntdll!RtlpWaitForCriticalSection", _DISPATCHED + "the dispatcher's lock is not released"),
    Waits(_second_chance, "ntdll!NtRaiseException", "second chance: waits for a debugger or the error port"),
)
"""The stuck threads, in the order of their TIDs."""
ROWS = tuple((waits.blocked_in, waits.verdict) for waits in WAITS)
"""What the rows say that each thread waits in, and the verdict."""


def _in_finally(code: DispatchCode, fault: Fault) -> str:
    """Let a __finally block wait: a handler took the exception and unwinds."""
    code.dispatch(fault)
    code.unwind(fault)
    return _SINGLE


def _debug_print(code: DispatchCode, fault: Fault) -> str:
    """Let a vectored handler wait while the program tells a debugger a line of text."""
    return _vectored(code, fault)


QUIET = ((_in_finally, ACCESS_VIOLATION, _UNWINDING), (_debug_print, 0x40010006, 0))
"""The threads without a row, after those of `WAITS`: how they go on, and code and flags of their records."""


def build() -> Case:
    """Server 2003 x86: handlers that do not return, the second chance, and exceptions that a handler has taken."""
    return built([*((waits.go_on, ACCESS_VIOLATION, 0) for waits in WAITS), *QUIET])


def built(makers: list[tuple[Callable[[DispatchCode, Fault], str], int, int]], kernel: Kernel | None = None) -> Case:
    """Return the case with these threads; those of `WAITS` come first.

    `makers` say how each goes on after its fault, and code and flags of the record.
    """
    library, kernel = Library(), kernel or Kernel()
    api = ApiFunctions(library)
    start = throwing_functions(library)[0][1]
    library["KERNEL32"].name_function(start.name, library["KERNEL32"].code(start.start, start.emit()))
    library["ntdll"].name_function("KiFastSystemCallRet", library["ntdll"].code(0x7C8285EC, b"\xc3"))
    factory = ThreadFactory(api, kernel, start, 0xB9010000)
    program, _ = service_image("svchost.exe", "\\WINDOWS\\system32")
    code = DispatchCode(library, program, api)
    process = Process(PID, "svchost.exe", 0x1BC, 0x7FFDE000, create_seconds=20)
    images = Images([program, *library.images.values()])
    stuck, stacks, quiet = [], {}, []
    for index, (go_on, number, flags) in enumerate(makers):
        tid, teb = PID + 4 + 4 * index, 0x7FFDC000 - 0x1000 * index
        fault = code.fault(0x00140000 + 0x100000 * index, start, number, flags)
        made = code.wait(factory, fault, go_on(code, fault), tid=tid, teb=teb, since=7000 + index)
        process.threads.append(made.thread)
        process.regions += [made.region(), thread_block(teb, made.chain)]
        frames = (*made.kernel.frames, *made.chain.frames(images))
        if index < len(WAITS):
            stuck.append(_truth(made, fault, images, frames, WAITS[index].blocked_in))
        else:
            quiet.append((PID, tid))
            stacks[f"{PID}:{tid}"] = frames
    load_images(process, program, [(library[name], library[name].build()) for name in _SERVICES])
    machine = kernel.machine([process])
    truth = Truth("handlers-x86", "x86", tuple(stuck), tuple(quiet), stacks)
    return Case(machine, truth, [library[name] for name in _SERVICES if library[name].has_isf])


def _truth(made: Waiting, fault: Fault, images: Images, frames: tuple, blocked_in: str) -> TruthThread:
    return TruthThread(
        pid=PID,
        tid=made.thread.tid,
        process="svchost.exe",
        arch="x86",
        code=ACCESS_VIOLATION,
        address=fault.registers["eip"],
        record=fault.record,
        context=fault.context,
        registers=fault.registers,
        thrown_at=images.name(fault.registers["eip"]),
        frames=frames[-fault.depth :],
        thread_stack=frames,
        blockers=(blocked_in,),
    )
