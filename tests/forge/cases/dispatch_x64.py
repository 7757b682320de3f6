# SPDX-License-Identifier: Apache-2.0
"""Windows 10 x64: functions in which exceptions are handled, filtered, caught or end the process, and a site with them.

What a dispatch leaves on a stack is laid out as `threads_x64` does for a crash; here handlers run, or have run.
"""

from __future__ import annotations

from tests.forge.cases.machine_x64 import Site
from tests.forge.cases.service_code import PROGRAM_BASE
from tests.forge.cases.threads_x64 import ACCESS_VIOLATION, Threads
from tests.forge.cases.windows_x64 import (
    CONTEXT_EX_AT,
    KERNELBASE,
    MACHINE_FRAME,
    NTDLL,
    RECORD_AT,
    UCRT,
    VCRUNTIME,
    dispatcher_codes,
    system_call,
)
from tests.forge.chains_x64 import Chain
from tests.forge.functions_x64 import Call, Frame, Function
from tests.forge.images import ImageBuilder, pdb_of
from tests.forge.pe_format import AMD64
from tests.forge.records import context_x64, record_x64

MSCOREE = 0x7FFB30000000
IN_FILTER = 0x3D9
"""Behind the call that UnhandledExceptionFilter waits in."""
_AFTER = 0x80
"""Where each function's only call ends."""
_EXPORTED = frozenset(
    (
        *("RtlLookupFunctionEntry", "RtlLookupFunctionTable", "RtlAcquireSRWLockShared"),
        *("RtlUnwindEx", "NtWaitForAlertByThreadId"),
    )
)
"""What ntdll exports of the functions that are new."""


class DispatchSite(Site):
    """A machine whose program has filters, a catch block, a vectored handler, and ends through the CLR's mscoree."""

    def __init__(self, case: str) -> None:
        """Build the images once more, with the functions that are new."""
        super().__init__(case)
        mscoree = ImageBuilder("mscoree.dll", MSCOREE, 0x4000, 0x1000, 0x1000, AMD64, pdb_of("mscoree.dll"))
        self.images.append(mscoree)
        images = {**self.system.images, "mscoree": mscoree, "": self.program.image}
        for stem, functions in _functions(images).items():
            image = images[stem]
            chkstk = image.symbols.get("__chkstk", 0)
            for function in functions:
                exported = not image.has_isf or stem == "ucrtbase" or function.name in _EXPORTED
                self.program.functions[function.name] = function.put(image, chkstk, exported=exported)
        self._built = [(image, image.build()) for image in self.images]


def _functions(images: dict[str, ImageBuilder]) -> dict[str, list[Function]]:
    wait = KERNELBASE + 0x30FF0
    shutdown, leave, give_up = MSCOREE + 0x2000, UCRT + 0x6000, UCRT + 0x5000
    program = images[""]

    def function(name: str, start: int, frame: Frame, *, target: int = 0, **call: object) -> Function:
        return Function(name, start, frame, (Call(start + _AFTER, target, **call),))

    def at(rva: int) -> int:
        return PROGRAM_BASE + rva

    waits = program.slot(wait)
    handler = {"via": b"\xff\xd0"}
    lookup, table, lock = NTDLL + 0x31000, NTDLL + 0x31400, NTDLL + 0x31800
    unwind, run_unwind = NTDLL + 0x32000, NTDLL + 0xA2200
    return {
        "ntdll": [
            function("RtlLookupFunctionEntry", lookup, Frame(("rbx", "rsi"), 0x48), target=table),
            function("RtlLookupFunctionTable", table, Frame(("rbx",), 0x40), target=lock),
            function("RtlAcquireSRWLockShared", lock, Frame(("rbx", "rdi"), 0x58), target=NTDLL + 0x9F080),
            system_call("NtWaitForAlertByThreadId", NTDLL + 0x9F080, 0x1C3, is_listed=False),
            function("RtlUnwindEx", unwind, Frame(("rbp", "rbx", "rsi", "rdi"), 0x618), target=run_unwind),
            function("RtlpExecuteHandlerForUnwind", run_unwind, Frame(allocation=0x28), **handler),
            function("RtlpCallVectoredHandlers", NTDLL + 0x30000, Frame(("rbx", "rsi", "rdi"), 0x30), **handler),
            # Its unwind codes are as the dispatcher's: the frame is the CONTEXT of the function that catches.
            Function("RcConsolidateFrames", NTDLL + 0xA2400, code=b"\x90" * 0x2C + b"\xff\xd0\xcc",
                     codes=dispatcher_codes()),
        ],
        "VCRUNTIME140": [
            function("_CxxCallCatchBlock", VCRUNTIME + 0x3000, Frame(("rbx", "rsi", "rdi"), 0x60), **handler),
        ],
        "ucrtbase": [
            function("abort", give_up, Frame(("rbx",), 0x20), target=leave),
            function("exit", leave, Frame(("rbx",), 0x30), via=images["ucrtbase"].slot(shutdown)),
        ],
        "mscoree": [
            function("CorExitProcess", shutdown, Frame(("rbx", "rdi"), 0x38), via=images["mscoree"].slot(wait)),
        ],
        "": [
            function("ledger::Reader::Loop$filt$0", at(0xC000), Frame(("rbp",), 0x20), target=at(0xC200)),
            function("ledger::Report::Write", at(0xC200), Frame(("rbx", "rsi"), 0x38), target=at(0x9700)),
            function("ledger::Importer::ImportFile$catch$0", at(0xC400), Frame(("rbp",), 0x20), via=waits),
            function("ledger::Importer::ImportFile$catch$1", at(0xC500), Frame(("rbp",), 0x20), target=at(0xC800)),
            function("ledger::OnException", at(0xC600), Frame(("rbx",), 0x40), via=waits),
            function("ledger::Shutdown", at(0xC800), Frame(("rbx",), 0x20), via=program.slot(leave)),
            function("ledger::Reader::Loop$filt$2", at(0xD300), Frame(("rbp",), 0x20), via=waits),
            function("ledger::Reader::Loop$fin$3", at(0xD200), Frame(("rbp",), 0x20), via=waits),
            function("ledger::ReportCrash", at(0xD100), Frame(("rbx", "rdi"), 0x48), via=waits),
            function("ledger::Reader::Loop$filt$1", at(0xCA00), Frame(("rbp",), 0x20), via=program.slot(give_up)),
            function("ledger::Cache::Wait", at(0xCC00), Frame(allocation=0x8008), via=waits),
            function("ledger::Cache::Leave", at(0xCE00), Frame(allocation=0x8008), target=at(0xC800)),
        ],
    }  # fmt: skip


def fault(
    threads: Threads, chain: Chain, *, returns_to: int = 0, flags: int = 0, code: int = ACCESS_VIOLATION
) -> tuple[int, int, dict[str, int]]:
    """Let the program read from 0x18 in a leaf function, and the kernel deliver the fault.

    Returns the record's and the CONTEXT's address, and the registers at the fault. `returns_to` is where in the
    dispatcher its call returns to, by default that of RtlDispatchException. `flags` and `code` are the record's.
    """
    stack, leaf = chain.stack, threads.program["ledger::hash_bytes"]
    chain.enter(leaf, ip=leaf.start + 5)
    registers = {**chain.placed[-1].registers, "rax": 0x811C9DC5, "rcx": 0x18, "eflags": 0x10246}
    context = (registers["rsp"] - 0x5C0) & ~0xF
    record = context + RECORD_AT
    stack.at(context).raw(context_x64(registers, 0x10005F))
    stack.at(context + CONTEXT_EX_AT).d32(-CONTEXT_EX_AT, 0x4E8, -CONTEXT_EX_AT, CONTEXT_EX_AT, 0x18, 0)
    stack.at(record).raw(record_x64(code, flags, registers["rip"], (0, 0x18)))
    stack.at(context + MACHINE_FRAME).d64(registers["rip"], 0x33, registers["eflags"], registers["rsp"], 0x2B)
    dispatcher = threads.system["KiUserExceptionDispatch"]
    chain.interrupt(context, dispatcher, returns_to or dispatcher.start + 0x2E)
    return record, context, registers


def ask(threads: Threads, chain: Chain, record: int, context: int, frame: int) -> None:
    """Lay out the way from RtlDispatchException to the C handler of the function whose rsp is `frame`."""
    system, stack = threads.system, chain.stack
    chain.enter(system["RtlDispatchException"], rsi=record, rdi=context)
    working, dispatcher = chain.rsp + 0x100, chain.rsp + 0x50
    stack.at(working).raw(context_x64({"rip": 0, "rsp": frame}, 0x10000B))
    chain.enter(system["RtlpExecuteHandlerForException"])
    stack.at(chain.rsp + 0x20).d64(dispatcher)
    chain.enter(system["__C_specific_handler"], rbx=dispatcher)
    stack.at(chain.rsp + 0x20).d64(record, context)


def call_filter(threads: Threads, chain: Chain, name: str) -> tuple[int, int, dict[str, int]]:
    """Let the reader's loop fault, and its __except filter `name` be asked; return what `fault` does."""
    enter(threads, chain, "ledger::Reader::Loop", "ledger::Cache::Lookup")
    frame = chain.placed[-2].registers["rsp"]
    record, context, registers = fault(threads, chain)
    ask(threads, chain, record, context, frame)
    enter(threads, chain, name)
    return record, context, registers


def enter(threads: Threads, chain: Chain, *names: str) -> Chain:
    """Enter functions of the program or the system one by one."""
    return threads._enter(chain, *names)


def dead(chain: Chain, slot: int) -> Chain:
    """Return a chain that goes its own way from what `chain` entered last, its first return address at `slot`."""
    registers = {name: value for name, value in chain.registers.items() if name not in {"rsp", "rip"}}
    return Chain(chain.stack, slot, chain.placed[-1].registers["rip"], **registers)


def unhandled(threads: Threads, chain: Chain) -> None:
    """Lay out a fault and its whole dispatch up to the wait for WER."""
    enter(threads, chain, "ledger::Reader::Loop", "ledger::Cache::Lookup")
    record, context, _ = fault(threads, chain)
    threads._dispatch(chain, record, context)


def call_vectored(threads: Threads, chain: Chain) -> tuple[int, int, dict[str, int]]:
    """Let the program fault, and its vectored handler be asked; return what `fault` does."""
    enter(threads, chain, "ledger::Reader::Loop", "ledger::Cache::Lookup")
    record, context, registers = fault(threads, chain)
    chain.enter(threads.system["RtlDispatchException"], rsi=record, rdi=context)
    enter(threads, chain, "RtlpCallVectoredHandlers", "ledger::OnException")
    # EXCEPTION_POINTERS, and the filter's address: the handler knows it
    stack, filter_start = chain.stack, threads.system["UnhandledExceptionFilter"].start
    stack.at(chain.rsp + 0x20).d64(record, context, filter_start + IN_FILTER)
    return record, context, registers
