# SPDX-License-Identifier: Apache-2.0
"""Lays a published x64 stack out: code with unwind data for every function, and the frames from the outermost inwards.

What the dispatcher leaves is where Windows leaves it: CONTEXT, CONTEXT_EX, record and machine frame at rsp of
KiUserExceptionDispatch; the CONTEXT in the frame of RtlRaiseException and the record in its caller's; a working CONTEXT
and a DISPATCHER_CONTEXT in the frame of RtlDispatchException; EXCEPTION_POINTERS in the frame of the C handler; the
MSGBOXPARAMS of a message box in the frame of the innermost MessageBox function.
"""

from __future__ import annotations

from tests.forge.cases.windows_x64 import CONTEXT_EX_AT, MACHINE_FRAME, RECORD_AT, dispatcher_codes, system_call
from tests.forge.chains_x64 import Chain
from tests.forge.code import Emitter, rel32
from tests.forge.functions_x64 import Call, Frame, Function, unwind_info
from tests.forge.records import context_x64, record_x64
from tests.forge.stacks import Stack
from tests.stacks.planned_code import PlannedCode, PlannedFunction
from tests.stacks.published import DISPATCHERS
from tests.stacks.raised_objects import RaisedObjects

_LIMIT, _BASE = 0x2000000000, 0x2000040000
_CALLS_ITSELF_A_STUB = ("Nt", "Zw")
_CONTEXT_IN_RAISE, _CONTEXT_IN_STATUS, _RECORD_IN_CALLER = 0x30, 0xC0, 0x20
_CONTEXT_IN_DISPATCH, _DISPATCHER_CONTEXT = 0x100, 0xC0
"""Where RtlDispatchException has its own; its record is before both if it raises an exception itself."""
_LARGE = {"RtlDispatchException": 0x7B0, "RtlRaiseException": 0x550, "RtlRaiseStatus": 0x5F0}
_LARGE |= dict.fromkeys(("RaiseFailFastException", "_call_reportfault", "__acrt_call_reportfault"), 0x5F0)
_MACHINE_FRAMES = DISPATCHERS | {"RcConsolidateFrames", "RcFrameConsolidation"}
_HANDLERS = frozenset({"_C_specific_handler", "__C_specific_handler"})
_INT29, _STOP = b"\xcd\x29", b"\x48\x8b\x00"
_BOX_STRINGS = _LIMIT + 0x1000


class LaidX64:
    """A published stack in memory. `registers` are those with which the thread goes on."""

    exception_list = None

    def __init__(self, code: PlannedCode, raised: RaisedObjects) -> None:
        """Lay out `code.stack`; `raised` gives the records' contents."""
        self._code = code
        self._raised = raised
        self.stack = Stack(_LIMIT, _BASE)
        self._functions: dict[int, Function] = {}
        for function in code.functions.values():
            self._functions[function.start] = self._put(function)
        chain = self._lay()
        registers = {**chain.placed[-1].registers, "eflags": 0x246}
        if code.stack.fast_fail is not None:
            registers |= {"rcx": code.stack.fast_fail}
        self.registers = registers

    # -- code

    def _put(self, function: PlannedFunction) -> Function:
        image = self._code.image(function)
        if not function.frames:
            image.code(function.start, b"\xc3" if function.name != "UnhandledExceptionFilter" else self._stub(function))
            return Function(function.name, function.start, is_leaf=True)
        if function.name in _MACHINE_FRAMES:
            return self._put_dispatcher(function)
        inner = [self._inner(index) for index in function.frames]
        if inner == [None] and function.name.startswith(_CALLS_ITSELF_A_STUB) and self._code.stack.fast_fail is None:
            made = system_call(function.name, function.start, 0x5B, is_listed=True)
            return made.put(image)
        calls = tuple(self._call(index) for index in function.frames)
        large = max((self._room(index) for index in function.frames), default=0)
        made = Function(function.name, function.start, Frame(("rbx",), large), calls)
        symbols = dict(image.symbols)
        made.put(image)
        image.symbols = symbols
        return made

    def _stub(self, function: PlannedFunction) -> bytes:
        """Return kernel32's filter where it is only a jump to KERNELBASE's."""
        target = self._code.by_name("kernelbase", "UnhandledExceptionFilter")
        if target is None or function.module.lower() != "kernel32":
            return b"\xc3"
        slot = self._code.image(function).slot(target.start)
        return b"\x48\xff\x25" + rel32(function.start + 7, slot)

    def _room(self, index: int) -> int:
        frames = self._code.stack.frames
        name = frames[index].function
        if name in _LARGE:
            return _LARGE[name]
        inner = self._inner(index)
        if inner is not None and frames[inner].function == "RtlRaiseException":
            return 0xD0
        return 0x60 + 0x10 * (index % 4)

    def _call(self, index: int) -> Call:
        at, inner = self._code.goes_on(index), self._inner(index)
        if inner is None or self._is_fault(inner):
            is_fast = inner is None and self._code.stack.fast_fail is not None
            stop = _INT29 if is_fast else _STOP
            return Call(at + len(stop), via=stop)
        target, image = self._code.starts(inner), self._code.image(self._code.of_frame[index])
        is_near = image is self._code.image(self._code.of_frame[inner])
        return Call(at, target, via="direct" if is_near else image.slot(target))

    def _put_dispatcher(self, function: PlannedFunction) -> Function:
        image = self._code.image(function)
        code = Emitter(function.start).emit(b"\xfc")
        for index in function.frames:
            inner = self._inner(index)
            at = self._code.goes_on(index)
            target = at if inner is None else self._code.starts(inner)
            if inner is None or image is self._code.image(self._code.of_frame[inner]):
                code.pad_to(at - 5).call(target)
            else:
                code.pad_to(at - 6).emit(b"\xff\x15", rel32(at, image.slot(target)))
        code.emit("84c0ebfecc")
        made = Function(function.name, function.start, code=bytes(code.data), codes=dispatcher_codes())
        image.code(function.start, made.code)
        image.unwind[function.start] = (code.here, made.codes or unwind_info(1, 0, 0, []))
        return made

    # -- frames

    def _inner(self, index: int) -> int | None:
        """Return the frame that frame `index` called, or None for the innermost. Unwound frames call unwound ones."""
        frames = self._code.stack.frames
        for inner in range(index - 1, -1, -1):
            if not frames[inner].is_unwound or frames[index].is_unwound:
                return None if frames[index].is_unwound and not frames[inner].is_unwound else inner
        return None

    def _is_fault(self, inner: int) -> bool:
        return self._code.stack.frames[inner].function in _MACHINE_FRAMES

    def _lay(self) -> Chain:
        chain = Chain(self.stack, _BASE - 0x28)
        contexts: list[tuple[int, int]] = []
        frames = self._code.stack.frames
        main, dead = chain, None
        for index in range(len(frames) - 1, -1, -1):
            if frames[index].is_unwound:
                if dead is None:
                    dead = self._dead(main)
                self._lay_frame(dead, index, contexts)
                continue
            if dead is not None:
                main.return_slot = dead.return_slot - 0x408
                main.return_slot += (8 - main.return_slot) % 16
                dead, contexts = None, []
            self._lay_frame(main, index, contexts)
        return main

    @staticmethod
    def _dead(chain: Chain) -> Chain:
        registers = {name: value for name, value in chain.registers.items() if name not in {"rsp", "rip"}}
        dead = Chain(chain.stack, chain.return_slot - 0x10, chain.placed[-1].registers["rip"], **registers)
        dead.placed = list(chain.placed)
        return dead

    def _lay_frame(self, chain: Chain, index: int, contexts: list[tuple[int, int]]) -> None:
        name = self._code.stack.frames[index].function
        function = self._functions[self._code.starts(index)]
        ip, inner = self._code.goes_on(index), self._inner(index)
        if name in _MACHINE_FRAMES:
            self._interrupt(chain, index, function, contexts)
            return
        if inner is None and name.startswith(_CALLS_ITSELF_A_STUB) and self._code.stack.fast_fail is None:
            chain.enter(function, ip=function.start + 0x14)
            return
        if inner is None or self._is_fault(inner):
            chain.enter(function, ip=ip)
            return
        call = next(call for call in function.calls if call.returns_to == ip)
        caller = dict(chain.placed[-1].registers) if chain.placed else {}
        chain.enter(function, call)
        self._fill(chain, index, caller, contexts)

    def _interrupt(self, chain: Chain, index: int, function: Function, contexts: list[tuple[int, int]]) -> None:
        registers = {**chain.placed[-1].registers, "eflags": 0x10246}
        is_dispatch = function.name in DISPATCHERS
        low = chain.return_slot if not is_dispatch else registers["rsp"]
        area = (min(low, registers["rsp"]) - 0x640) & ~0xF
        put = self.stack.at
        put(area).raw(context_x64(registers, 0x10005F if is_dispatch else 0x10000F))
        put(area + MACHINE_FRAME).d64(registers["rip"], 0x33, registers["eflags"], registers["rsp"], 0x2B)
        if is_dispatch:
            put(area + CONTEXT_EX_AT).d32(-CONTEXT_EX_AT, 0x4E8, -CONTEXT_EX_AT, CONTEXT_EX_AT, 0x18, 0)
            put(area + RECORD_AT).raw(self._record(registers["rip"], flags=self._code.stack.flags(index, raised=False)))
            contexts.append((area + RECORD_AT, area))
        chain.interrupt(area, function, self._code.goes_on(index))

    def _record(self, ip: int, *, flags: int, default: int = 0xC0000005) -> bytes:
        code, parameters = self._raised.next(default)
        return record_x64(code, flags, ip, parameters)

    def _fill(self, chain: Chain, index: int, caller: dict[str, int], contexts: list[tuple[int, int]]) -> None:
        """Write what a function keeps in its frame."""
        name = self._code.stack.frames[index].function
        stack, rsp = self.stack, chain.rsp
        if index == self._shows_box():
            self._keep_box(rsp + 0x20)
        if name == "RtlRaiseException":
            stack.at(caller["rsp"] + _RECORD_IN_CALLER).raw(
                self._record(caller["rip"], flags=self._code.stack.flags(index, raised=True))
            )
            stack.at(rsp + _CONTEXT_IN_RAISE).raw(context_x64(caller, 0x10000F))
            contexts.append((caller["rsp"] + _RECORD_IN_CALLER, rsp + _CONTEXT_IN_RAISE))
        elif name in {"RtlRaiseStatus", "RaiseFailFastException", "_call_reportfault", "__acrt_call_reportfault"}:
            own = chain.placed[-1].registers
            ip = own["rip"] - 0x20 if name == "RtlRaiseStatus" else caller["rip"]
            at = {**own, "rip": ip} if name == "RtlRaiseStatus" else caller
            default = {"RaiseFailFastException": 0xC0000602, "RtlRaiseStatus": 0xC0000005}.get(name, 0x40000015)
            record, context = rsp + _RECORD_IN_CALLER, rsp + _CONTEXT_IN_STATUS
            stack.at(record).raw(self._record(ip, flags=1, default=default))
            stack.at(context).raw(context_x64(at, 0x10000F))
            contexts.append((record, context))
            if name.endswith("_call_reportfault"):
                stack.at(rsp + 0x590).d64(record, context)
        elif name == "__report_gsfailure":
            record, context = self._record(caller["rip"], flags=1, default=0xC0000409), context_x64(caller, 0x10000F)
            self._code.put_global(index, "GS_ExceptionRecord", record)
            self._code.put_global(index, "GS_ContextRecord", context)
        elif name == "RtlDispatchException" and contexts:
            outermost = chain.placed[0].registers
            working = {**outermost, "rip": 0, "rsp": outermost["rsp"] + 0x50}
            copy = rsp + _CONTEXT_IN_DISPATCH
            stack.at(copy).raw(context_x64(working, 0x10000B))
            stack.at(rsp + _DISPATCHER_CONTEXT).d64(outermost["rip"], 0, 0, outermost["rsp"], 0, copy, 0, 0)
        elif name == "RtlpExecuteHandlerForException":
            stack.at(rsp + 0x20).d64(caller["rsp"] + _DISPATCHER_CONTEXT)
        elif name in _HANDLERS and contexts:
            stack.at(rsp + 0x20).d64(*contexts[-1])

    def _shows_box(self) -> int | None:
        """Return the innermost frame of a MessageBox function; None if the file gives no box."""
        frames = self._code.stack.frames if any(self._code.stack.box) else ()
        shows = (
            i for i, one in enumerate(frames) if one.function.startswith("MessageBox") and "Worker" not in one.function
        )
        return next(shows, None)

    def _keep_box(self, address: int) -> None:
        """Put a MSGBOXPARAMS at `address`: its size, owner, instance, text, caption, style. USER32's texts are wide."""
        caption, text = (one.encode("utf-16-le") + b"\0\0" for one in self._code.stack.box)
        for place, data in ((_BOX_STRINGS, caption), (_BOX_STRINGS + 0x400, text)):
            self.stack.at(place).raw(data + bytes(-len(data) % 8))
        self.stack.at(address).d64(0x50, 0, 0, _BOX_STRINGS + 0x400, _BOX_STRINGS, 0x10)
