# SPDX-License-Identifier: Apache-2.0
"""Threads of a Windows 10 x64 process: stuck on a C++ exception or a fault, or waiting as threads do."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.forge.cases.kernel_x64 import Kernel
from tests.forge.cases.service_code import PROGRAM_BASE, TYPES, WHAT, WHAT_AT, Program
from tests.forge.cases.windows_x64 import (
    CONTEXT_EX_AT,
    MACHINE_FRAME,
    RECORD_AT,
    System,
)
from tests.forge.chains_x64 import Chain
from tests.forge.chains_x86 import Images
from tests.forge.describe import Process, Region, Thread
from tests.forge.functions_x64 import NONVOLATILE
from tests.forge.records import context_x64, record_x64
from tests.forge.stacks import Stack
from tests.forge.truth import TruthFrame, TruthThread

CPP_EXCEPTION, ACCESS_VIOLATION = 0xE06D7363, 0xC0000005
THREAD_START = "thread_start<unsigned int (__cdecl*)(void *),1>"
NOW = 7218
_STACK_SIZE = 0x20000


@dataclass(frozen=True)
class Waiting:
    """A thread that must yield no row."""

    thread: Thread
    region: Region
    frames: tuple[TruthFrame, ...]


@dataclass(frozen=True)
class Crash:
    """A stuck thread and what there is to find."""

    thread: Thread
    region: Region
    frames: tuple[TruthFrame, ...]
    code: int
    record: int
    context: int
    registers: dict[str, int]
    thrown_at: str
    exception_type: str | None = None
    message: str | None = None

    def truth(self, process: Process) -> TruthThread:
        """Return what must be found."""
        first = next(i for i, frame in enumerate(self.frames) if frame.ip == self.registers["rip"])
        return TruthThread(
            process.pid,
            self.thread.tid,
            process.name,
            "x64",
            self.code,
            self.registers["rip"],
            self.record,
            self.context,
            self.registers,
            self.thrown_at,
            self.frames[first:],
            self.frames,
            ("KERNELBASE!UnhandledExceptionFilter",),
            self.exception_type,
            self.message,
            NOW - self.thread.wait_ticks,
        )


@dataclass
class Threads:
    """Makes threads, each with a stack and a TEB of its own."""

    system: System
    program: Program
    images: Images
    kernel: Kernel
    stack_area: int
    teb_area: int
    block: int = 0x1F4A2C01800
    """Where the C runtime keeps what a new thread runs."""
    count: int = field(default=0)

    def _begin(self, size: int = _STACK_SIZE) -> tuple[Stack, Chain, int]:
        base = self.stack_area + 0x100000 * (self.count + 1)
        teb = self.teb_area + 0x2000 * self.count
        self.count += 1
        stack = Stack(base - size, base)
        return stack, Chain(stack, base - 0x28), teb

    def _enter(self, chain: Chain, *names: str) -> Chain:
        for name in names:
            function = self.program.functions.get(name) or self.system[name]
            if name == THREAD_START:
                chain.enter(function, rbx=self.block)
            elif function.calls or function.cold:
                chain.enter(function)
            else:
                chain.enter(function, ip=function.start + 0x14)
        return chain

    def _start(self, chain: Chain) -> Chain:
        return self._enter(chain, "RtlUserThreadStart", "BaseThreadInitThunk", THREAD_START)

    def _thread(
        self, chain: Chain, tid: int, teb: int, routine: str, *, since: int, wait_reason: int = 6, service: str = ""
    ) -> tuple[Thread, tuple[TruthFrame, ...]]:
        stack = chain.stack
        registers = {name: chain.placed[-1].registers[name] for name in (*NONVOLATILE, "rsp", "rip")}
        registers |= {"rcx": registers["rip"], "r11": 0x246, "eflags": 0x246, "cs": 0x33, "ss": 0x2B}
        start = self.program.functions[routine].start if routine in self.program.functions else 0
        thread = Thread(
            tid,
            teb,
            stack.base,
            stack.limit,
            registers,
            self.system["RtlUserThreadStart"].start,
            start or self.system[routine].start,
            wait_ticks=since,
            wait_reason=wait_reason,
        )
        service = service or chain.placed[-1].function.name
        return thread, (*self.kernel.wait(thread, service, chain), *chain.frames(self.images))

    def _region(self, stack: Stack) -> Region:
        return Region(stack.limit, stack.data())

    def idle(self, tid: int, kind: str, since: int, size: int = 0x3000) -> Waiting:
        """Return a thread that waits: `main` for an event, `pool` for work, `sleep` for time."""
        stack, chain, teb = self._begin(size)
        names = {
            "main": (THREAD_START, "ledger::Service::Main", "WaitForSingleObjectEx", "NtWaitForSingleObject"),
            "sleep": (THREAD_START, "ledger::Timer::Loop", "SleepEx", "NtDelayExecution"),
            "pool": ("TppWorkerThread", "NtWaitForWorkViaWorkerFactory"),
        }[kind]
        self._enter(chain, "RtlUserThreadStart", "BaseThreadInitThunk", *names)
        routine = names[1] if kind != "pool" else names[0]
        reason = {"main": 6, "sleep": 4, "pool": 15}[kind]
        thread, frames = self._thread(chain, tid, teb, routine, since=since, wait_reason=reason)
        return Waiting(thread, self._region(stack), frames)

    def paging_in(self, tid: int, since: int) -> Waiting:
        """Return a thread that waits for a page which it touched; its trap frame's rbx, rsi and rdi are not its own."""
        stack, chain, teb = self._begin()
        self._enter(chain, "RtlUserThreadStart", "BaseThreadInitThunk", THREAD_START, "ledger::Reader::Loop")
        self._enter(chain, "ledger::Cache::Refresh", "ledger::Cache::Lookup")
        leaf = self.program["ledger::hash_bytes"]
        chain.enter(leaf, ip=leaf.start + 5)
        thread, frames = self._thread(chain, tid, teb, "ledger::Reader::Loop", since=since, service="page fault")
        thread.exception_active, thread.wait_reason = 1, 9
        thread.registers |= dict.fromkeys(("rbx", "rsi", "rdi"), 0x5EED0000)
        return Waiting(thread, self._region(stack), frames)

    def recovered(self, tid: int, since: int) -> Waiting:
        """Return a waiting thread that handled an exception before: its CONTEXT is still below the stack pointer."""
        stack, chain, teb = self._begin()
        self._enter(chain, "RtlUserThreadStart", "BaseThreadInitThunk", THREAD_START, "ledger::Timer::Loop")
        self._enter(chain, "SleepEx", "NtDelayExecution")
        old = (chain.rsp - 0x1800) & ~0xF
        registers = {**chain.placed[3].registers, "rip": PROGRAM_BASE + 0x9705, "rcx": 0x18}
        stack.at(old).raw(context_x64(registers, 0x10005F))
        stack.at(old + RECORD_AT).raw(record_x64(ACCESS_VIOLATION, 0, PROGRAM_BASE + 0x9705, (0, 0x18)))
        stack.at(old - 0x40).d64(old + RECORD_AT, old)
        thread, frames = self._thread(chain, tid, teb, "ledger::Timer::Loop", since=since, wait_reason=4)
        return Waiting(thread, self._region(stack), frames)

    def with_filter_address(self, tid: int, since: int) -> Waiting:
        """Return a waiting thread with UnhandledExceptionFilter's address, and one inside it, among its locals."""
        stack, chain, teb = self._begin()
        self._enter(chain, "RtlUserThreadStart", "BaseThreadInitThunk", THREAD_START, "ledger::Timer::Loop")
        address = self.system["UnhandledExceptionFilter"].start
        stack.at(chain.rsp + 0x20).d64(address, address + 0x3D9)
        self._enter(chain, "SleepEx", "NtDelayExecution")
        thread, frames = self._thread(chain, tid, teb, "ledger::Timer::Loop", since=since, wait_reason=4)
        return Waiting(thread, self._region(stack), frames)

    def throw(self, tid: int, heap: int, since: int) -> Crash:
        """Return a thread that threw `ledger::config_error`, a std::runtime_error, and nobody caught it."""
        stack, chain, teb = self._begin()
        self._start(chain)
        self._enter(
            chain,
            "ledger::Worker::Run",
            "ledger::Importer::ImportFile",
            "ledger::Parser::ParseRecord",
            "ledger::Parser::Require",
        )
        # Its part that seldom runs is far from its start, and has a symbol of its own: Require$cold.
        thrower = chain.placed[-1].function
        thrown_at = f"ledgersvc!{thrower.name}+{chain.placed[-1].registers['rip'] - thrower.start:#x}"
        thing = chain.rsp + 0x20
        stack.at(thing).d64(self.program.vftable, heap + WHAT_AT, 1)
        self._enter(chain, "_CxxThrowException")
        parameters = (0x19930520, thing, self.program.throw_info, PROGRAM_BASE)
        stack.at(chain.rsp + 0x28).d64(*parameters)
        raising = self.system["RaiseException"]
        chain.enter(raising)
        at_throw = {
            **chain.placed[-1].registers,
            "rax": chain.rsp + 0x20,
            "rcx": chain.rsp + 0x20,
            "rdx": 1,
            "r8": 4,
            "r9": chain.rsp + 0xF0,
            "r10": 0,
            "r11": 0x246,
            "eflags": 0x206,
        }
        record = chain.rsp + 0x20
        stack.at(record).raw(record_x64(CPP_EXCEPTION, 1, at_throw["rip"], parameters))
        rethrow = self.system["RtlRaiseException"]
        # Its frame: CONTEXT at rsp+30h
        context = chain.return_slot - rethrow.frame.size + 0x30
        chain.enter(rethrow, rbx=record, rdi=context)
        stack.at(context).raw(context_x64(at_throw, 0x10000F))
        self._dispatch(chain, record, context)
        thread, frames = self._thread(chain, tid, teb, "ledger::Worker::Run", since=since)
        return Crash(
            thread,
            self._region(stack),
            frames,
            CPP_EXCEPTION,
            record,
            context,
            at_throw,
            thrown_at,
            TYPES[0].decode(),
            WHAT.decode(),
        )

    def fault(self, tid: int, since: int) -> Crash:
        """Return a thread that read from 0x18 in a leaf function."""
        stack, chain, teb = self._begin()
        self._start(chain)
        self._enter(chain, "ledger::Reader::Loop", "ledger::Cache::Refresh", "ledger::Cache::Lookup")
        leaf = self.program["ledger::hash_bytes"]
        chain.enter(leaf, ip=leaf.start + 5)
        registers = {
            **chain.placed[-1].registers,
            "rax": 0x811C9DC5,
            "rcx": 0x18,
            "rdx": 0x10,
            "r8": 0,
            "r9": 0x7FF6A1C31000,
            "r10": 0x2C,
            "r11": 0x1F4A2C00900,
            "eflags": 0x10246,
        }
        area = (registers["rsp"] - 0x5C0) & ~0xF
        context, record = area, area + RECORD_AT
        stack.at(context).raw(context_x64(registers, 0x10005F))
        # CONTEXT_EX: offset and length of everything, of the CONTEXT, of the xstate
        stack.at(area + CONTEXT_EX_AT).d32(-CONTEXT_EX_AT, 0x4E8, -CONTEXT_EX_AT, CONTEXT_EX_AT, 0x18, 0)
        stack.at(record).raw(record_x64(ACCESS_VIOLATION, 0, registers["rip"], (0, 0x18)))
        stack.at(area + MACHINE_FRAME).d64(registers["rip"], 0x33, registers["eflags"], registers["rsp"], 0x2B)
        dispatcher = self.system["KiUserExceptionDispatch"]
        chain.interrupt(area, dispatcher, dispatcher.start + 0x2E)
        self._dispatch(chain, record, context)
        thread, frames = self._thread(chain, tid, teb, "ledger::Reader::Loop", since=since)
        return Crash(
            thread,
            self._region(stack),
            frames,
            ACCESS_VIOLATION,
            record,
            context,
            registers,
            self.images.name(registers["rip"]),
        )

    def _dispatch(self, chain: Chain, record: int, context: int) -> None:
        """Lay out the way from RtlDispatchException to the wait in UnhandledExceptionFilter."""
        system, stack = self.system, chain.stack
        outermost = chain.placed[0].registers
        dispatch = system["RtlDispatchException"]
        chain.enter(dispatch, rsi=record, rdi=context)
        working, dispatcher = chain.rsp + 0x100, chain.rsp + 0x50
        # The unwinder's own CONTEXT, all the way up.
        stack.at(working).raw(context_x64({**outermost, "rip": 0, "rsp": outermost["rsp"] + 0x50}, 0x10000B))
        ntdll, handler = system.images["ntdll"], system["__C_specific_handler"].start
        entry = ntdll.runtime_function(system["RtlUserThreadStart"].start)
        # DISPATCHER_CONTEXT: ControlPc, ImageBase, FunctionEntry, EstablisherFrame, TargetIp, ContextRecord, handler
        stack.at(dispatcher).d64(outermost["rip"], ntdll.base, entry, outermost["rsp"], 0, working, handler, 0)
        execute = system["RtlpExecuteHandlerForException"]
        chain.enter(execute)
        stack.at(chain.rsp + 0x20).d64(dispatcher)
        chain.enter(system["__C_specific_handler"], rbx=dispatcher)
        pointers = chain.rsp + 0x20
        stack.at(pointers).d64(record, context)
        chain.enter(system["RtlUserThreadStart$filt$0"], rbp=outermost["rsp"])
        chain.enter(system["UnhandledExceptionFilter"], rbx=pointers)
        chain.enter(system["WerpReportFault"], rdi=pointers)
        self._enter(
            chain,
            "WerpReportFaultInternal",
            "WaitForMultipleObjects",
            "WaitForMultipleObjectsEx",
            "NtWaitForMultipleObjects",
        )
