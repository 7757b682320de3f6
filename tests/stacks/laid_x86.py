# SPDX-License-Identifier: Apache-2.0
"""Lays a published x86 stack out: code for every function, frames from the outermost inwards, exception registrations.

Functions have frames with ebp, which is what published stacks mostly show. What the dispatcher leaves is where Windows
leaves it: the two pointers, record and CONTEXT at esp of KiUserExceptionDispatcher; the CONTEXT in the frame of
RtlRaiseException; the arguments of ExecuteHandler, and its registration, which is first in the thread's chain until the
handler returns. RtlUnwind unlinks that registration: a catch block and a termination handler run without it. What runs
a catch block registers a handler of its own, in case the block throws. While a termination handler runs, what is
registered further out than the throw is still there. Frames that are unwound are below the live ones that are further
out, and what was registered for them is unlinked.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from itertools import takewhile

from tests.forge.chains_x86 import Chain
from tests.forge.code import Emitter
from tests.forge.functions_x86 import Call, Function, Shape, ebp_frame, frameless, raw
from tests.forge.records import context_x86
from tests.forge.stacks import Stack
from tests.stacks import callbacks_x86 as callbacks
from tests.stacks.boxes_x86 import box_arguments
from tests.stacks.planned_code import FUNCLET, PlannedCode, PlannedFunction
from tests.stacks.published import DISPATCHERS, RAISERS
from tests.stacks.raised_objects import RaisedObjects

_LIMIT, _BASE = 0x02000000, 0x02040000
_SELECTORS = {"cs": 0x23, "ss": 0x2B, "ds": 0x2B, "es": 0x2B, "fs": 0x53, "gs": 0x2B, "eflags": 0x246}
_VOLATILE = dict.fromkeys(("eax", "ecx", "edx"), 0)
_ESP_IN_CONTEXT = 0xC4
_STOP, _INT29, _CALL_OF_STUB = b"\x8b\x00", b"\xcd\x29", b"\xff\x12"
_ENDS_SEARCH = frozenset(
    (
        *("RtlUnwind", "_global_unwind2", "_CallSettingFrame", "CallCatchBlock", "_UnwindNestedFrames", "CatchIt"),
        *("System.@HandleAnyException", "System.@HandleFinally"),
    )
)
_HAS_TRY = frozenset(("LdrLoadDll", "LdrpCallInitRoutine", "UserCallWinProcCheckWow"))
"""Functions of Windows with an exception registration of their own, whose handler is in their module."""
_RUNS_BLOCK = frozenset(("CallCatchBlock", "System.@HandleAnyException"))
_OWN_CONTEXT = {"RaiseFailFastException": 0xC0000602, "_call_reportfault": 0x40000015}
_OWN_CONTEXT |= {"_invoke_watson": 0xC0000417, "__acrt_call_reportfault": 0x40000015, "RtlRaiseStatus": 0xC0000005}
_ROOM, _COOKIE = 0x340, 0x5BF4A31C
_CATCH = "_catch"
_SHAPES = {
    "ExecuteHandler": frameless(0, ("ebx", "esi", "edi")),
    # It calls a filter with ebp of the frame that has the __try block: its own ebp is on the stack.
    "_except_handler3": raw(0x28, {-4: "ebp", -0x28: lambda ebp: ebp}, "558bec83ec2055", "5dc9", ebp=-4),
    "_EH4_CallFilterFunc": raw(
        0x10, {-4: "ebp", -8: "esi", -12: "edi", -16: "ebx"}, "555657538bea33c033db33d233f633ff", "5b5f5e5d"
    ),
}


class LaidX86:
    """A published stack in memory. `registers` are those with which the thread goes on; `exception_list` is fs:[0]."""

    def __init__(self, code: PlannedCode, raised: RaisedObjects) -> None:
        """Lay out `code.stack`; `raised` gives the records' contents."""
        self._code = code
        self._raised = raised
        self._contexts: list[tuple[int, int]] = []
        self._pointers = 0
        self._running: list[int] = []
        self._ended = 0  # how many of these RtlUnwind has unlinked
        self._nodes: dict[int, int] = {}
        self.stack = Stack(_LIMIT, _BASE)
        self._functions = {function.start: self._function(function) for function in code.functions.values()}
        for planned in code.functions.values():
            made = self._functions[planned.start]
            code.image(planned).code(planned.start, self._bytes(planned, made))
        chain = self._lay()
        self.exception_list = chain.seh
        registers = {**chain.placed[-1].registers, **_VOLATILE, "eflags": 0x246}
        if code.stack.fast_fail is not None:
            registers["ecx"] = code.stack.fast_fail
        self.registers = registers

    # -- code

    def _bytes(self, planned: PlannedFunction, made: Function) -> bytes:
        if planned.name in DISPATCHERS and planned.frames:
            return self._dispatcher(planned)
        if planned.name == callbacks.DISPATCHER:
            return callbacks.code(planned.start, self._code.goes_on(planned.frames[0]), self._handler())
        if not planned.frames:
            return self._unused(planned)
        filters = self._code.functions.get((planned.module, planned.name + FUNCLET))
        code = Emitter(planned.start).emit(made.emit())
        # A function's filters are parts of it: no filling is between.
        return bytes((code.pad_to(filters.start) if filters else code).data)

    def _unused(self, planned: PlannedFunction) -> bytes:
        target = self._code.by_name("kernelbase", planned.name)
        if planned.module.lower() != "kernel32" or target is None:
            return b"\x33\xc0\xc3"
        return b"\xff\x25" + self._code.image(planned).slot(target.start).to_bytes(4, "little")

    def _dispatcher(self, planned: PlannedFunction) -> bytes:
        """Return KiUserExceptionDispatcher's code: both pointers pushed for a call of what is further in."""
        code = Emitter(planned.start).emit("8b4c24048b1c24")
        for index in planned.frames:
            inner = self._inner(index)
            assert inner is not None
            is_second = self._name(inner).endswith("RaiseException")
            pushes = "5b596a005153" if is_second else "5153"
            code.pad_to(self._code.goes_on(index) - 5 - len(pushes) // 2).emit(pushes).call(self._code.starts(inner))
        return bytes(code.emit("0ac074045b59cccc").data)

    def _name(self, index: int) -> str:
        return self._code.of_frame[index].name

    def _inner(self, index: int) -> int | None:
        """Return the frame that frame `index` called, or None for the innermost. Unwound frames call unwound ones."""
        frames = self._code.stack.frames
        if frames[index].is_unwound:
            return index - 1 if index and frames[index - 1].is_unwound else None
        return next((inner for inner in range(index - 1, -1, -1) if not frames[inner].is_unwound), None)

    @property
    def _innermost(self) -> list[int]:
        """Return the two innermost live frames."""
        return [index for index, frame in enumerate(self._code.stack.frames) if not frame.is_unwound][:2]

    def _function(self, planned: PlannedFunction) -> Function:
        last, *caller = self._innermost
        stub = planned.frames == [last] or (planned.frames == caller and self._name(last) == "KiFastSystemCallRet")
        stub = stub or self._is_called_back(planned.frames[0] if planned.frames else None)
        if stub and planned.name == "KiFastSystemCallRet":
            return Function(planned.name, planned.start, raw(0, {}, "", ""))
        if stub and planned.name.startswith(("Nt", "Zw")) and self._code.stack.fast_fail is None:
            return self._stub(planned)
        calls = tuple(self._call(index) for index in planned.frames)
        return Function(planned.name, planned.start, self._shape(planned), calls, _POPS.get(planned.name, 0))

    def _is_called_back(self, index: int | None) -> bool:
        """Say whether frame `index` is a system call's stub from which the kernel called back."""
        inner = None if index is None else self._inner(index)
        return inner is not None and self._name(inner) == callbacks.DISPATCHER

    def _stub(self, planned: PlannedFunction) -> Function:
        """Return a system call's stub: `mov eax,n; mov edx,...; call [edx]` or `call edx`, which goes on at +0xc."""
        last = self._innermost[0]
        inner = None if planned.frames == [last] else last
        call = b"\xff\xd2" if inner is None else _CALL_OF_STUB
        code = Call(planned.start + callbacks.RETURNS, self._code.starts(last), via=call, code=b"", after=b"")
        return Function(planned.name, planned.start, raw(0, {}, "b85b000000ba0003fe7f", ""), (code,))

    def _shape(self, planned: PlannedFunction) -> Shape:
        name = planned.name
        if name == "ExecuteHandler2":
            words = {-4: "ebp", -8: 0, -12: self._handler(), -16: "seh"}
            prologue = "558becff750c5264ff350000000064892500000000"
            return raw(0x10, words, prologue, "648b2500000000648f05000000008be55d", ebp=-4, seh=-16)
        if name in _SHAPES:
            return _SHAPES[name]
        if name == "RtlRaiseException" or name in _OWN_CONTEXT:
            return ebp_frame(_ROOM)
        return (
            frameless()
            if name.endswith(FUNCLET)
            else ebp_frame(0x60 if name == "RaiseException" else 0x20 + 4 * (len(name) % 5))
        )

    def _handler(self) -> int:
        planned = self._code.by_name("ntdll", "_except_handler4")
        assert planned is not None
        return planned.start

    def _call(self, index: int) -> Call:
        at, inner = self._code.goes_on(index), self._inner(index)
        if inner is None or self._name(inner) in DISPATCHERS:
            stop = _INT29 if inner is None and self._code.stack.fast_fail is not None else _STOP
            return Call(at + len(stop), 0, via=stop)
        target, name = self._code.starts(inner), self._name(inner)
        pops = _POPS.get(name, 0)
        args = (0,) * _ARGUMENTS.get(name, pops // 4)
        if self._name(index) == "ExecuteHandler2":
            return Call(at, target, (0,) * 4, code=bytes.fromhex("ff7514ff7510ff750cff75088b4d18"), via=b"\xff\xd1")
        if self._name(index) == "ExecuteHandler":
            return Call(at, target, args, pops, code=bytes.fromhex("ff742420") * 5)
        if name.endswith(FUNCLET):
            code = b"\x8d\x6b\x10" if self._name(index) == "_except_handler3" else b""
            return Call(at, target, (), code=code, via=b"\xff\xd1", sets={"ebx": 0, "esi": 0, "edi": 0})
        image = self._code.image(self._code.of_frame[index])
        is_near = image is self._code.image(self._code.of_frame[inner])
        return Call(at, target, args, pops, via="direct" if is_near else image.slot(target))

    # -- frames

    def _lay(self) -> Chain:
        main, dead = Chain(self.stack, _BASE - 0x20), None
        for index in range(len(self._code.stack.frames) - 1, -1, -1):
            if self._code.stack.frames[index].is_unwound and dead is None:
                dead, ended = self._dead(main), self._ended
                live = self._contexts[:], self._pointers, self._running[:], {**self._nodes}
            elif not self._code.stack.frames[index].is_unwound and dead is not None:
                main.return_slot, dead, self._ended = dead.return_slot - 0x400, None, ended
                self._contexts, self._pointers, self._running, self._nodes = live
            chain = main if dead is None else dead
            if self._name(index) in DISPATCHERS:
                self._interrupt(chain, index)
            elif self._name(index) == callbacks.DISPATCHER:
                callbacks.call_back(chain, self._code.goes_on(index), self._handler())
            else:
                self._lay_frame(chain, index)
        return main

    @staticmethod
    def _dead(chain: Chain) -> Chain:
        """Return a chain of frames that `chain` had further in and that were unwound."""
        last = chain.placed[-1].registers
        kept = {name: last[name] for name in ("ebx", "esi", "edi", "ebp")}
        dead = Chain(chain.stack, min(chain.return_slot, last["esp"]) - 0x10, last["eip"], **kept)
        dead.seh, dead.placed = chain.seh, list(chain.placed)
        return dead

    def _lay_frame(self, chain: Chain, index: int) -> None:
        name, function, inner = self._name(index), self._functions[self._code.starts(index)], self._inner(index)
        if name in _ENDS_SEARCH and len(self._running) > self._ended:
            chain.seh, self._ended = self._unlinked(chain.seh, index), len(self._running)
        if index + 1 < len(self._code.of_frame) and self._name(index + 1) == "ExecuteHandler2" and self._contexts:
            self._pointers = chain.return_slot - 0x14
            self.stack.at(self._pointers).d32(*self._contexts[-1])
        if inner is None:
            is_stub = function.shape.size == 0 and function.calls
            chain.enter(function, ip=function.calls[0].returns_to if is_stub else self._stop(function, index))
            return
        if self._is_called_back(index):
            chain.enter(function, ip=function.start + callbacks.RETURNS)
            return
        if self._name(inner) in DISPATCHERS:
            chain.enter(function, ip=self._code.goes_on(index))
            self._register(chain, index)
            return
        at = self._code.goes_on(index)
        call = next(one for one in function.calls if one.returns_to == at or one.via == _CALL_OF_STUB)
        if name == "ExecuteHandler2":
            words = {**function.shape.words, -8: self._running[-1]}
            function = replace(function, shape=replace(function.shape, words=words))
        if name.endswith(FUNCLET):
            chain.registers["ebp"] = self._nodes.get(self._owner(index), self._running[-1]) + 0x10
        chain.enter(function, call, args=self._arguments(chain, index, inner))
        if name in _RUNS_BLOCK:
            self._register_at(chain, -0x1C, function.start)
        self._register(chain, index)
        self._fill(chain, index)

    def _further_in(self, index: int) -> Iterator[int]:
        """Return the frames further in than `index`, up to the next dispatch."""
        return takewhile(lambda i: self._name(i) not in DISPATCHERS | RAISERS, range(index - 1, -1, -1))

    def _unlinked(self, first: int, index: int) -> int:
        """Return the first registration that is left when frame `index` ends a search; `first` is the first before."""
        if not any(self._name(i).endswith("_finally") for i in self._further_in(index)):
            return self._running[-1]
        thrown = self.stack.word(self._contexts[-1][1] + _ESP_IN_CONTEXT) or 0
        while first < thrown:
            first = self.stack.word(first) or _BASE
        return first

    def _stop(self, function: Function, index: int) -> int:
        return function.start if function.shape.size == 0 else self._code.goes_on(index)

    def _owner(self, index: int) -> int:
        """Return the frame of the function of which frame `index` is the filter or the catch block."""
        name = self._name(index).removesuffix(FUNCLET).removesuffix(_CATCH)
        return next((i for i in range(index + 1, len(self._code.of_frame)) if self._name(i) == name), -1)

    def _register(self, chain: Chain, index: int) -> None:
        """Register a handler in the frame of the outermost function, and of functions whose handlers run further in."""
        owners = {self._owner(i) for i in range(index) if self._name(i).endswith((FUNCLET, _CATCH))}
        if index == len(self._code.of_frame) - 1 or index in owners:
            self._nodes[index] = self._register_at(chain, -0x10, self._handler())
        elif self._name(index) in _HAS_TRY:
            is_ntdll = self._code.of_frame[index].module == "ntdll"
            node = self._register_at(chain, -0x10, self._handler() if is_ntdll else self._code.starts(index))
            self.stack.at(node + 8).d32(_COOKIE ^ self._handler(), 0)  # the scope table, as it is kept, and the level

    def _register_at(self, chain: Chain, offset: int, handler: int) -> int:
        """Register a handler in the frame entered last, at `offset` from its ebp; return where."""
        node = chain.placed[-1].registers["ebp"] + offset
        self.stack.at(node).d32(chain.seh, self._own_handler(chain.placed[-1].function.name, handler))
        chain.seh = node
        return node

    def _own_handler(self, function: str, other: int) -> int:
        """Return the handler that runs the filter or block of `function` further in; `other` if there is none."""
        names = [one.name for one in self._code.of_frame]
        runs = next((i for i, name in enumerate(names) if name in {function + FUNCLET, function + _CATCH}), len(names))
        asks = next((i for i in range(runs, len(names)) if names[i] == "ExecuteHandler2"), 0)
        return self._code.starts(asks - 1) if asks else other

    def _arguments(self, chain: Chain, index: int, inner: int) -> tuple[object, ...]:
        """Return what frame `index` passes to frame `inner`."""
        name, caller = self._name(inner), self._name(index)
        record, context = self._contexts[-1] if self._contexts else (0, 0)
        own = chain.return_slot  # frame `index` has its return address here
        found: tuple[object, ...] = ()
        if caller == "RtlRaiseException":
            return self._raise(chain, own, index)
        if caller == "__report_gsfailure":
            self._pointers = self._fail_cookie(chain, index)
            found = (self._pointers,)
        elif name == "RtlRaiseException":
            found = (own - 0x60,)
        elif name in {"ExecuteHandler", "ExecuteHandler2"}:
            handler = inner - (2 if name == "ExecuteHandler" else 1)
            found = record, self._running[-1], context, own - 0x18, self._code.starts(max(handler, 0))
        elif caller == "ExecuteHandler2":
            found = record, self._running[-1], context, own - 0x18
        elif caller in _OWN_CONTEXT and name == "UnhandledExceptionFilter":
            found = (own - 0x10,)
        elif name in {"UnhandledExceptionFilter", "ReportFault", "__crtUnhandledException"} and self._pointers:
            found = (self._pointers, *(0,) * (_ARGUMENTS.get(name, 1) - 1))
        elif name == "RtlDispatchException":
            found = record, context
        elif name.startswith("MessageBox"):
            found = box_arguments(self.stack, _BASE, name, self._code.stack.box, _ARGUMENTS.get(name, 4))
        return found

    def _raise(self, chain: Chain, slot: int, index: int) -> tuple[object, ...]:
        """Save record and CONTEXT as RtlRaiseException, which is frame `index`, does; return what it passes on."""
        flags = self._code.stack.flags(index, raised=True)
        caller = chain.placed[-1].registers
        context, record = slot - 4 - _ROOM, self.stack.word(slot + 4) or 0
        code, parameters = self._raised.next(0xC0000005)
        self.stack.at(record).d32(code, flags, 0, chain.return_address, len(parameters), *parameters)
        registers = {**_VOLATILE, **caller, **_SELECTORS, "eip": chain.return_address, "esp": slot + 8}
        self.stack.at(context).raw(context_x86(registers, 0x1007F))
        self._begin_dispatch(index, record, context)
        return (record, context)

    def _begin_dispatch(self, index: int, record: int, context: int) -> None:
        """Begin the dispatch of frame `index`. It runs the handler whose filter or catch block is next further in."""
        self._contexts.append((record, context))
        owners = [self._owner(i) for i in self._further_in(index) if self._name(i).endswith((FUNCLET, _CATCH))]
        running = next((owner for owner in owners if owner in self._nodes), max(self._nodes))
        self._running.append(self._nodes[running])

    def _fill(self, chain: Chain, index: int) -> None:
        """Write what a function keeps in its frame, now that it is entered."""
        name, placed = self._name(index), chain.placed[-1]
        slot = placed.return_slot
        if name in _OWN_CONTEXT:
            caller = chain.placed[-2].registers if len(chain.placed) > 1 else placed.registers
            record, context = slot - 0x70, slot - 4 - _ROOM
            code, parameters = self._raised.next(_OWN_CONTEXT[name])
            self.stack.at(record).d32(code, 1, 0, placed.return_address, len(parameters), *parameters)
            registers = {**_VOLATILE, **caller, **_SELECTORS, "eip": placed.return_address, "esp": slot + 4}
            self.stack.at(context).raw(context_x86(registers, 0x1007F))
            self.stack.at(slot - 0x10).d32(record, context)
            self._pointers = slot - 0x10
            self._contexts.append((record, context))

    def _fail_cookie(self, chain: Chain, index: int) -> int:
        """Save record and CONTEXT in global variables, as __report_gsfailure does; return where their pointers are."""
        at, caller = chain.return_address, chain.placed[-1].registers
        registers = {**_VOLATILE, **caller, **_SELECTORS, "eip": at, "esp": chain.return_slot + 4}
        record = struct.pack("<5I", 0xC0000409, 1, 0, at, 0).ljust(0x50, b"\0")
        record_at = self._code.put_global(index, "GS_ExceptionRecord", record)
        context_at = self._code.put_global(index, "GS_ContextRecord", context_x86(registers, 0x1007F))
        return self._code.put_global(index, "GS_ExceptionPointers", struct.pack("<II", record_at, context_at))

    def _interrupt(self, chain: Chain, index: int) -> None:
        """Let the kernel enter KiUserExceptionDispatcher for a fault in the function entered last."""
        at = {**_VOLATILE, **chain.placed[-1].registers, **_SELECTORS}
        esp = (at["esp"] - 0x58 - 0x2CC - 0x10) & ~3
        record, context = esp + 8, esp + 0x58
        code, parameters = self._raised.next(0xC0000005)
        flags = self._code.stack.flags(index, raised=False)
        self.stack.at(record).d32(code, flags, 0, at["eip"], len(parameters), *parameters)
        self.stack.at(context).raw(context_x86(at, 0x1007F))
        self._begin_dispatch(index, record, context)
        inner = self._inner(index)
        assert inner is not None
        pushed = (record, context, *((0,) if self._name(inner).endswith("RaiseException") else (record, context)))
        self.stack.at(esp + 8 - 4 * len(pushed)).d32(*pushed)
        chain.return_slot = esp + 4 - 4 * len(pushed)
        chain.return_address = self._code.goes_on(index)
        chain.registers["ebx"] = record
        chain.placed.append(replace(chain.placed[-1], registers={**at, "esp": esp, "eip": chain.return_address}))


_WITH_ONE_ARGUMENT = ("UnhandledExceptionFilter", "RtlRaiseException", "RtlExitUserProcess", "ExitProcess")
_POPS = {
    **dict.fromkeys(("MessageBoxIndirectA", "MessageBoxIndirectW", *_WITH_ONE_ARGUMENT), 4),
    **dict.fromkeys(("RtlDispatchException", "ReportFault"), 8),
    **dict.fromkeys(("RaiseException", "MessageBoxA", "MessageBoxW"), 16),
    **dict.fromkeys(("ExecuteHandler", "ExecuteHandler2", "MessageBoxExA", "MessageBoxExW"), 20),
    **dict.fromkeys(("MessageBoxTimeoutA", "MessageBoxTimeoutW"), 24),
}
_ARGUMENTS = {"__crtUnhandledException": 1, "_EH4_CallFilterFunc": 0}
_ARGUMENTS |= {name: pops // 4 for name, pops in _POPS.items()}
