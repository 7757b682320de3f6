# SPDX-License-Identifier: Apache-2.0
"""Server 2003 x86: the dispatch of a fault, from KiUserExceptionDispatcher to what it waits for.

ntdll's functions have the forms of the real ones: the dispatcher pushes the two pointers that the kernel left at esp,
ExecuteHandler2 registers a handler of its own while it calls one, RtlUnwind unlinks it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tests.forge.cases.ftp_dispatch import dispatching_functions
from tests.forge.cases.ftp_images import Library
from tests.forge.cases.ftp_threads import ApiFunctions, ThreadFactory, Waiting, returning
from tests.forge.cases.ftp_throw import ALL
from tests.forge.cases.ftp_wait import system_call
from tests.forge.chains_x86 import Chain
from tests.forge.code import dword
from tests.forge.functions_x86 import Call, Function, ebp_frame, frameless, raw
from tests.forge.images import ImageBuilder
from tests.forge.records import context_x86
from tests.forge.stacks import Stack

ACCESS_VIOLATION = 0xC0000005
_SELECTORS = {"cs": 0x1B, "ss": 0x23, "ds": 0x23, "es": 0x23, "fs": 0x3B, "gs": 0, "eflags": 0x10246}
_DELIVERED, _RECORD_AT, _CONTEXT_AT, _EIP_IN_CONTEXT = 0x324, 0x8, 0x58, 0xB8
"""What the kernel puts on a faulting thread's stack: how much, and where the record and the CONTEXT are in it."""
_STACK_SIZE = 0x3000
_DISPATCHER, _DISPATCH, _SECOND = 0x7C828A00, 0x7C829100, 0x7C827A00
_ENTER, _WAIT, _UNWIND, _VECTORED = 0x7C829300, 0x7C829400, 0x7C829500, 0x7C829000
_EXECUTE, _HANDLER = 0x7C82872C, 0x77E61A60
_GUARD, _GUARD_FILTER, _FINALLY = 0x77E65000, 0x77E65100, 0x77E65200
_ROUTINE, _FAULTS, _VECTORED_HANDLER = 0x00401400, 0x00401700, 0x00401800


@dataclass
class Fault:
    """A fault on a thread that is being laid out, as the kernel delivers it."""

    chain: Chain
    at: int
    """The dispatcher's esp."""
    registers: dict[str, int]
    depth: int
    """How many frames the stack that faulted has."""
    guard: int
    """The registration of the function that has the __try block."""

    @property
    def record(self) -> int:
        """Return the record's address."""
        return self.at + _RECORD_AT

    @property
    def context(self) -> int:
        """Return the CONTEXT's address."""
        return self.at + _CONTEXT_AT


class DispatchCode:
    """The functions through which exceptions go, and threads that are laid out with them."""

    def __init__(
        self, library: Library, program: ImageBuilder, api: ApiFunctions, selectors: dict[str, int] | None = None
    ) -> None:
        """Put the code into the images. `selectors` are those of the threads, by default a 32-bit system's."""
        self.api = api
        self._selectors = {**_SELECTORS, **(selectors or {})}
        wait = (0x1A4, 0xFFFFFFFF)
        single = 0x77E61C7B
        kernel32 = library.runtimes["KERNEL32"]
        table = library["KERNEL32"].place_data(dword(0xFFFFFFFF) + dword(_GUARD_FILTER) + dword(_FINALLY))
        known = {function.name: function for _, function in dispatching_functions(library)[:4]}
        execute, handler = known["ExecuteHandler2"], known["_except_handler3"]
        execute = replace(execute, start=_EXECUTE)
        self.functions = self._put(library, {
            "ntdll": (
                # mov ecx,[esp+4]; mov ebx,[esp]; push ecx; push ebx; call RtlDispatchException; (no handler took it:)
                # pop ebx; pop ecx; push 0; push ecx; push ebx; call NtRaiseException
                Function("KiUserExceptionDispatcher", _DISPATCHER, raw(0, {}, "8b4c24048b1c24", ""), (
                    Call(_DISPATCHER + 0xE, _DISPATCH, pops=8, code=b"\x51\x53", after=b"", args=(0, 0)),
                    Call(_DISPATCHER + 0x29, _SECOND, pops=12, code=bytes.fromhex("5b596a005153"), after=b"",
                         args=(0, 0, 0)))),
                Function("RtlDispatchException", _DISPATCH, ebp_frame(0x80, ALL), (
                    Call(_DISPATCH + 0x20, _VECTORED, pops=8, code=bytes.fromhex("ff750cff7508"), after=b""),
                    Call(_DISPATCH + 0x40, _ENTER, (0x7C8A0000,), 4),
                    Call(_DISPATCH + 0x80, _EXECUTE, pops=0x14, after=b"",
                         code=bytes.fromhex("ff75fcff75f8ff750cff75f4ff7508"))), 8),
                Function("RtlCallVectoredExceptionHandlers", _VECTORED, ebp_frame(0x10, ("esi",)), (
                    Call(_VECTORED + 0x60, _VECTORED_HANDLER, (0,), 4, via=b"\xff\xd0"),), 8),
                Function("RtlEnterCriticalSection", _ENTER, ebp_frame(0, ("esi",)), (
                    Call(_ENTER + 0x30, _WAIT, (0x7C8A0000,), 4),), 4),
                Function("RtlpWaitForCriticalSection", _WAIT, ebp_frame(0x20, ALL), (
                    Call(_WAIT + 0x60, 0x7C827CFF, (0x44, 0, 0), 12, after=b""),), 4),
                Function("RtlUnwind", _UNWIND, ebp_frame(0x370, ALL), (
                    Call(_UNWIND + 0x100, _EXECUTE, pops=0x14, after=b"",
                         code=bytes.fromhex("ff75fcff75f8ff750cff75f4ff75f0")),), 16),
                system_call("NtRaiseException", _SECOND, 0xB5, 12),
                execute,
            ),
            "KERNEL32": (
                Function("GuardedThreadStart", _GUARD, kernel32.seh_frame(0xC, 0, table), (
                    Call(_GUARD + 0x40, _ROUTINE, (0,), 4, code=b"\xff\x75\x0c", via=b"\xff\x55\x08"),), 8),
                # Filter and __finally block run with the ebp of their function.
                Function("GuardedThreadStart$filt$0", _GUARD_FILTER, frameless(), (
                    Call(_GUARD_FILTER + 0x30, single, wait, 8),)),
                Function("GuardedThreadStart$fin$1", _FINALLY, frameless(), (
                    Call(_FINALLY + 0x30, single, wait, 8),)),
                handler,
            ),
        })  # fmt: skip
        for function in (
            Function("ReadLoop", _ROUTINE, ebp_frame(0x40, ALL), (Call(_ROUTINE + 0x60, _FAULTS, (0x18,)),), 4),
            Function("ReadValue", _FAULTS, ebp_frame(8, ("esi",))),
            Function("OnException", _VECTORED_HANDLER, ebp_frame(0x20, ALL), (
                Call(_VECTORED_HANDLER + 0x88, single, wait, 8, program.slot(single)),), 4),
        ):  # fmt: skip
            program.name_function(function.name, program.code(function.start, function.emit()))
            self.functions[function.name] = function

    @staticmethod
    def _put(library: Library, of_modules: dict[str, tuple[Function, ...]]) -> dict[str, Function]:
        """Put functions into their images, and export those that ntdll exports; return them by name."""
        found = {}
        for module, functions in of_modules.items():
            image = library[module]
            for function in functions:
                exported = function.name in {
                    *("KiUserExceptionDispatcher", "NtRaiseException", "RtlEnterCriticalSection", "RtlUnwind"),
                }
                image.name_function(function.name, image.code(function.start, function.emit()), exported=exported)
                found[function.name] = function
        return found

    def fault(self, base: int, start: Function, code: int, flags: int) -> Fault:
        """Begin a thread whose stack ends at `base` and let it fault; `code` and `flags` are the record's."""
        stack = Stack(base - _STACK_SIZE, base)
        routine, guard = self.functions["ReadLoop"], self.functions["GuardedThreadStart"]
        stack.at(base - 12).d32(guard.start, 0)
        chain = Chain(stack, base - 0x10).enter(start, returning(start, guard), args=(routine.start, 0))
        chain.enter(guard)
        registration = chain.seh
        chain.enter(routine)
        faults = self.functions["ReadValue"]
        chain.enter(faults, ip=faults.start + 7)
        registers = {**dict.fromkeys(("eax", "ecx", "edx"), 0x18), **chain.placed[-1].registers, **self._selectors}
        at = registers["esp"] - _DELIVERED
        stack.at(at + _RECORD_AT).d32(code, flags, 0, registers["eip"], 2, 0, 0x18)
        stack.at(at + _CONTEXT_AT).raw(context_x86(registers, 0x1003F))
        return Fault(chain, at, registers, len(chain.placed), registration)

    def dispatch(self, fault: Fault) -> None:
        """Let KiUserExceptionDispatcher call RtlDispatchException."""
        dispatcher, pointers = self.functions["KiUserExceptionDispatcher"], (fault.record, fault.context)
        fault.chain.stack.at(fault.at).d32(*pointers)
        eip_at = fault.context + _EIP_IN_CONTEXT
        fault.chain.interrupt(dispatcher, dispatcher.calls[0], eip_at, fault.at - 8, pointers)

    def second_chance(self, fault: Fault) -> None:
        """Let KiUserExceptionDispatcher call NtRaiseException: no handler took the exception."""
        dispatcher, arguments = self.functions["KiUserExceptionDispatcher"], (fault.record, fault.context, 0)
        eip_at = fault.context + _EIP_IN_CONTEXT
        fault.chain.interrupt(dispatcher, dispatcher.calls[1], eip_at, fault.at - 4, arguments)

    def call_vectored(self, fault: Fault) -> None:
        """Let RtlDispatchException call a vectored handler."""
        chain, dispatch = fault.chain, self.functions["RtlDispatchException"]
        chain.enter(dispatch, dispatch.calls[0], args=(fault.record, fault.context))
        chain.enter(self.functions["RtlCallVectoredExceptionHandlers"])
        chain.enter(self.functions["OnException"])

    def enter_lock(self, fault: Fault) -> None:
        """Let RtlDispatchException wait for a critical section."""
        dispatch = self.functions["RtlDispatchException"]
        fault.chain.enter(dispatch, dispatch.calls[1])
        fault.chain.enter(self.functions["RtlEnterCriticalSection"])
        fault.chain.enter(self.functions["RtlpWaitForCriticalSection"])

    def ask_filter(self, fault: Fault) -> None:
        """Let RtlDispatchException ask the filter of GuardedThreadStart."""
        self._handler(fault, "GuardedThreadStart$filt$0")
        fault.chain.enter(self.functions["GuardedThreadStart$filt$0"])

    def unwind(self, fault: Fault) -> None:
        """Let the handler of GuardedThreadStart take the exception, and a __finally block run before."""
        chain = fault.chain
        self._handler(fault, "RtlUnwind")
        chain.seh = fault.guard
        chain.enter(self.functions["RtlUnwind"], args=(fault.record, fault.guard, fault.at - 0x400, 0, _HANDLER))
        self._execute(fault)
        self._except_handler(fault, "GuardedThreadStart$fin$1")
        chain.enter(self.functions["GuardedThreadStart$fin$1"])

    def _handler(self, fault: Fault, calls: str) -> None:
        dispatch = self.functions["RtlDispatchException"]
        arguments = (fault.record, fault.guard, fault.context, fault.at - 0x40, _HANDLER)
        fault.chain.enter(dispatch, dispatch.calls[2], args=arguments)
        self._execute(fault)
        self._except_handler(fault, calls)

    def _execute(self, fault: Fault) -> None:
        """Enter ExecuteHandler2, which registers a handler of ntdll for the one that it calls."""
        execute = self.functions["ExecuteHandler2"]
        shape = replace(execute.shape, words={**execute.shape.words, -8: fault.guard})
        arguments = (fault.record, fault.guard, fault.context, fault.at - 0x40)
        fault.chain.enter(replace(execute, shape=shape), args=arguments)

    def _except_handler(self, fault: Fault, calls: str) -> None:
        """Enter _except_handler3, which calls a filter or a __finally block with the ebp of its function."""
        handler = self.functions["_except_handler3"]
        pointers = {-8: fault.context, -12: fault.record}
        shape = replace(handler.shape, words={**handler.shape.words, **pointers})
        (call,) = handler.calls
        call = replace(call, sets={**call.sets, "ebp": fault.guard + 0x10}, target=self.functions[calls].start)
        saved = fault.chain.placed[-1].return_slot
        fault.chain.enter(replace(handler, shape=shape, calls=(call,)), args=(saved, 0))

    def wait(self, factory: ThreadFactory, fault: Fault, name: str, *, tid: int, teb: int, since: int) -> Waiting:
        """Return the thread, which waits in `name`: WaitForSingleObject, or a system call."""
        chain, routine, functions = fault.chain, self.functions["ReadLoop"], self.api.functions
        if name == "WaitForSingleObject":
            chain.enter(functions[name], args=(0x1A4, 0xFFFFFFFF, 0))
            chain.enter(functions["WaitForSingleObjectEx"], args=(0x1A4, 0, lambda ebp: ebp - 0x28))
            name = "NtWaitForSingleObject"
        stub = functions.get(name) or self.functions[name]
        return factory.in_service(chain, stub, routine, tid=tid, teb=teb, since=since)
