# SPDX-License-Identifier: Apache-2.0
"""Server 2003 x86: threads that wait, each with something on its stack that looks like an unhandled exception."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.forge.cases import Case
from tests.forge.cases.ftp_dispatch import dispatching_functions
from tests.forge.cases.ftp_images import Library
from tests.forge.cases.ftp_threads import (
    ApiFunctions,
    ThreadFactory,
    load_images,
    service_image,
    thread_block,
)
from tests.forge.cases.ftp_throw import throwing_functions
from tests.forge.cases.x86_kernel import Kernel
from tests.forge.chains_x86 import Chain, Images
from tests.forge.describe import Process
from tests.forge.functions_x86 import Call, Function, ebp_frame
from tests.forge.records import context_x86
from tests.forge.stacks import Stack
from tests.forge.truth import Truth

PID = 0x3D8
_LOCALS = 0xF00
_RAISED_AT, _SAVED_CONTEXT = 0x77E4BEE7, 0x2D0
_SELECTORS = {"cs": 0x1B, "ss": 0x23, "ds": 0x23, "es": 0x23, "fs": 0x3B, "gs": 0, "eflags": 0x206}
_SERVICES = ("ntdll", "KERNEL32", "RPCRT4", "USER32", "MSVCR80")


@dataclass(frozen=True)
class Code:
    """Functions by name: the dispatcher's, the C++ runtime's, and the program's."""

    functions: dict[str, Function]
    start_thunk: int = 0x77E617EC

    def enter(self, chain: Chain, name: str, *args: object, seh: int | None = None) -> None:
        """Enter a function that passes `args` on; `seh` is the registration that it unlinks the others down to."""
        chain.enter(self.functions[name], args=args)
        if seh is not None:
            chain.seh = seh

    def throw(self, stack: Stack, chain: Chain) -> tuple[int, int]:
        """Raise an exception and dispatch it to a handler; return the record's and the CONTEXT's address."""
        record = chain.return_slot - 0x54
        self.enter(chain, "RaiseException", record)
        slot = chain.return_slot
        at_throw = {**dict.fromkeys(("eax", "ecx", "edx"), 0), **chain.placed[-1].registers, **_SELECTORS}
        context = slot - 4 - _SAVED_CONTEXT
        stack.at(record).d32(0xE06D7363, 1, 0, _RAISED_AT, 3, 0x19930520, record + 0x40, 0x03440A54)
        stack.at(context).raw(context_x86({**at_throw, "eip": _RAISED_AT, "esp": slot + 8}, 0x10007))
        frame, working = chain.seh, context - 0x40
        self.enter(chain, "RtlRaiseException", record, context)
        self.enter(chain, "ExecuteHandler", record, frame, context, working, self.functions["_except_handler3"].start)
        self.enter(chain, "ExecuteHandler2", record, frame, context, working)
        return record, context

    def call_vectored(self, stack: Stack, chain: Chain) -> tuple[int, int]:
        """Raise an exception and ask a vectored handler; return the record's and the CONTEXT's address."""
        record = chain.return_slot - 0x54
        self.enter(chain, "RaiseException", record)
        slot = chain.return_slot
        context = slot - 4 - _SAVED_CONTEXT
        registers = {**dict.fromkeys(("eax", "ecx", "edx"), 0), **chain.placed[-1].registers, **_SELECTORS}
        stack.at(record).d32(0xE06D7363, 1, 0, _RAISED_AT, 0)
        stack.at(context).raw(context_x86({**registers, "eip": _RAISED_AT, "esp": slot + 8}, 0x10007))
        self.enter(chain, "RtlRaiseException", record, context)
        self.enter(chain, "RtlCallVectoredExceptionHandlers", 0)
        pointers = chain.placed[-1].registers["ebp"] - 0x10
        stack.at(pointers).d32(record, context)
        return record, context

    def unhandled(self, stack: Stack, chain: Chain) -> None:
        """Raise an exception that nobody handles: as far as UnhandledExceptionFilter's call of something."""
        record, context = self.throw(stack, chain)
        pointers = chain.placed[-2].registers["ebp"] - 0x40
        stack.at(pointers).d32(record, context)
        self.enter(chain, "_except_handler3", pointers, 0)
        self.enter(chain, "BaseThreadStart$filt$0", pointers)
        self.enter(chain, "UnhandledExceptionFilter", pointers)


Decoy = Callable[[Code, Stack, Chain], None]


def build() -> Case:
    """Return the machine and the truth about it."""
    library, kernel = Library(), Kernel()
    api = ApiFunctions(library)
    start = throwing_functions(library)[0][1]
    library["KERNEL32"].name_function(start.name, library["KERNEL32"].code(start.start, start.emit()))
    library["ntdll"].name_function("KiFastSystemCallRet", library["ntdll"].code(0x7C8285EC, b"\xc3"))
    factory = ThreadFactory(api, kernel, start, 0xB9010000)
    program, routines = service_image("svchost.exe", "\\WINDOWS\\system32")
    roomy = _roomy(program)
    code = _code(library, routines)
    process = Process(PID, "svchost.exe", 0x1BC, 0x7FFDE000, create_seconds=20)
    images = Images([program, *library.images.values()])
    stacks = {}
    for index, decoy in enumerate(
        (_left_in_locals, _left_below, _start_context, _in_catch, _vectored_handler_returned)
    ):
        tid, teb = PID + 4 + 4 * index, 0x7FFDC000 - 0x1000 * index
        waiting = factory.waiting(
            roomy,
            "WaitForSingleObjectEx",
            tid=tid,
            teb=teb,
            base=0x00130000 + 0x100000 * index,
            since=5000 + 100 * index,
            decoy=lambda stack, chain, decoy=decoy: decoy(code, stack, chain),
        )
        process.threads.append(waiting.thread)
        process.regions += [waiting.region(), thread_block(teb, waiting.chain)]
        stacks[f"{PID}:{tid}"] = (*waiting.kernel.frames, *waiting.chain.frames(images))
    load_images(process, program, [(library[name], library[name].build()) for name in _SERVICES])
    machine = kernel.machine([process])
    quiet = tuple((PID, thread.tid) for thread in process.threads)
    return Case(machine, Truth("decoys-x86", "x86", (), quiet, stacks), [
        library[name] for name in _SERVICES if library[name].has_isf
    ])  # fmt: skip


def _roomy(program: object) -> Function:
    """Return a thread routine with locals that nobody has written to."""
    call = Call(0x00401488, 0x77E61C7B, (0x1A4, 0xFFFFFFFF), 8, program.slot(0x77E61C7B), sets={"ebx": 1})
    function = Function("WaitWithRoom", 0x00401400, ebp_frame(_LOCALS, ("ebx", "esi", "edi")), (call,), 4)
    program.name_function(function.name, program.code(function.start, function.emit()))
    return function


def _code(library: Library, routines: dict[str, Function]) -> Code:
    """Put the dispatcher's functions and a C++ runtime's into the images."""
    functions = {}
    crt = library.runtimes["MSVCR80"]
    known = [("KERNEL32", throwing_functions(library)[-1][1]), *dispatching_functions(library)[:6]]
    known += [
        ("MSVCR80", Function("__CxxFrameHandler3", 0x78138000, ebp_frame(0x20, ("esi",)), (
            Call(0x78138060, 0x78138100, (0, 0, 0)),))),
        ("MSVCR80", Function("CallCatchBlock", 0x78138100, crt.seh_frame(0x30), (
            Call(0x78138180, 0x00401300, (0,), via=b"\xff\xd0"),))),
        ("ntdll", Function("RtlCallVectoredExceptionHandlers", 0x7C829000, ebp_frame(0x10, ("esi",)), (
            Call(0x7C829060, 0x00401300, (0,), 4, via=b"\xff\xd0"),), 8)),
    ]  # fmt: skip
    for module, function in known:
        image = library[module]
        if function.name not in image.symbols or module != "KERNEL32":
            image.name_function(function.name, function.start)
        image.code(function.start, function.emit())
        functions[function.name] = function
    functions["CatchBlock"] = routines["WaitForSingleObjectEx"]
    return Code(functions)


def _dead(chain: Chain, slot: int) -> Chain:
    """Return a chain that goes its own way from the function entered last, its first return address at `slot`."""
    registers = {name: chain.registers[name] for name in ("ebx", "esi", "edi", "ebp")}
    own = Chain(chain.stack, slot, chain.return_address, **registers)
    own.seh = chain.seh
    return own


def _left_in_locals(code: Code, stack: Stack, chain: Chain) -> None:
    """Leave a whole dispatch, UnhandledExceptionFilter included, where a live function has never written."""
    code.unhandled(stack, _dead(chain, chain.placed[-1].return_slot - 0x100))


def _left_below(code: Code, stack: Stack, chain: Chain) -> None:
    """Leave the same below the stack pointer: an __except block, or what follows it, waits."""
    code.unhandled(stack, _dead(chain, chain.return_slot - 0x400))


def _start_context(code: Code, stack: Stack, chain: Chain) -> None:
    """Leave the CONTEXT that the thread was started with, pointers to it, and an address in the filter."""
    at = chain.placed[-1].return_slot - 0x800
    start = {**dict.fromkeys(("eax", "ebx", "ecx", "edx", "esi", "edi", "ebp"), 0), **_SELECTORS}
    stack.at(at).raw(context_x86({**start, "eip": code.start_thunk, "esp": stack.base - 8}, 0x10007))
    stack.at(at - 0x40).d32(at + 0x400, at, 0x77E761B7)
    stack.at(at + 0x40C).d32(code.start_thunk)  # where a record would have its address


def _in_catch(code: Code, stack: Stack, chain: Chain) -> None:
    """Let a catch block run: below the dispatcher's frames, whose registration has been unlinked."""
    catching = chain.seh
    record, context = code.throw(stack, chain)
    code.enter(chain, "__CxxFrameHandler3", record, context, 0, seh=catching)
    code.enter(chain, "CallCatchBlock", 0)
    _wait_with_address(code, stack, chain, "CatchBlock")


def _vectored_handler_returned(code: Code, stack: Stack, chain: Chain) -> None:
    """Leave a vectored handler's frames below the stack pointer: it took the exception, and the program went on."""
    code.call_vectored(stack, _dead(chain, chain.return_slot - 0x400))


def _wait_with_address(code: Code, stack: Stack, chain: Chain, name: str) -> None:
    chain.enter(code.functions[name])
    stack.at(chain.placed[-1].return_slot - 0x40).d32(0x77E761B7)
