# SPDX-License-Identifier: Apache-2.0
"""Generates x86 programs as compilers write them, with the frame data that belongs to their functions.

Each function has a frame kind, a calling convention, and a body of calls, branches and stores; each record states what
a compiler's would: one for every step of the prologue, none for the epilogue.
"""

from __future__ import annotations

import random

from tests.unwind.x86.assemble import (
    EAX,
    EBP,
    EBX,
    ECX,
    EDI,
    ESI,
    ESP,
    JE,
    JNE,
    LEAVE,
    Assembler,
    add,
    and_,
    lea,
    load,
    mov,
    mov_value,
    pop,
    push,
    push_value,
    ret,
    store,
    sub,
)
from tests.unwind.x86.machine import DATA, TEXT
from tests.unwind.x86.program import Convention, Function, Kind, Program

_NAMES = {EBX: "$ebx", EBP: "$ebp", ESI: "$esi", EDI: "$edi"}
COUNTER = DATA + 0x800
COOKIE = DATA + 0x804
HELPERS = ("__SEH_prolog", "__SEH_epilog", "__SEH_prolog4", "__SEH_epilog4", "__EH_prolog", "_chkstk")


class Writer:
    """Writes one program. `rng` decides everything that varies."""

    def __init__(self, rng: random.Random, count: int) -> None:
        self.rng = rng
        self.asm = Assembler(TEXT)
        self.pointers: dict[str, int] = {}
        self.labels = 0
        conventions, kinds = list(Convention), list(Kind)
        ways = ["direct"] * 5 + ["import", "register", "thunk", "virtual"]
        self.functions = [
            Function(f"f{i}", rng.choice(kinds), rng.choice(conventions), rng.randrange(4), rng.choice(ways))
            for i in range(count)
        ]

    def program(self) -> Program:
        asm = self.asm
        asm.label("main")
        for _ in range(2):
            self.clean(self.call(self.functions[0]))
        asm.label("done").emit("cc").align()
        for index, function in enumerate(self.functions):
            self.function(function, self.functions[index + 1 :])
            asm.align()
        for function in self.functions:
            if function.via == "thunk":
                asm.label(f"thunk_{function.name}").jump(function.name).align()
        asm.label("helpers")
        write_helpers(asm)
        asm.label("_end")
        code = asm.finish()
        data = bytearray(0x1000)
        for name, at in self.pointers.items():
            data[at - DATA : at - DATA + 4] = asm.labels[name].to_bytes(4, "little")
        data[0x800:0x804] = (6).to_bytes(4, "little")
        data[0x804:0x808] = (0x1234ABCD).to_bytes(4, "little")
        labels = {name: at for name, at in asm.labels.items() if not name.startswith(".")}
        return Program(code, bytes(data), labels, self.functions)

    def new_label(self) -> str:
        self.labels += 1
        return f".{self.labels}"

    def pointer(self, name: str) -> int:
        return self.pointers.setdefault(name, DATA + 4 * len(self.pointers))

    def call(self, function: Function) -> int:
        """Write a call; return how many bytes of arguments the caller still has to remove."""
        asm, rng = self.asm, self.rng
        for _ in range(function.arguments):
            asm.emit(rng.choice([push(EAX), push(ECX), push_value(rng.randrange(1 << 16))]))
        pointer = self.pointer(function.name)
        if function.via == "direct":
            asm.call(function.name)
        elif function.via == "thunk":
            asm.call(f"thunk_{function.name}")
        elif function.via == "import":
            asm.emit(b"\xff\x15", pointer.to_bytes(4, "little"))
        elif function.via == "register":
            asm.emit(b"\xa1", pointer.to_bytes(4, "little"), b"\xff\xd0")
        else:  # virtual: arithmetic that ends where it began, so that nothing says where the call goes
            asm.emit(mov_value(EAX, pointer), b"\x8b\xc8\x0f\xb6\xc0\x03\xc1\x2b\xc8", b"\x03\xc1", b"\xff\x10")
        return 4 * function.arguments if function.convention is Convention.CDECL else 0

    def clean(self, size: int) -> None:
        if size == 4 and self.rng.random() < 0.5:
            self.asm.emit(pop(ECX))
        elif size:
            self.asm.emit(add(ESP, size))

    def body(self, function: Function, callees: list[Function], saved: list[int], slots: list[tuple[int, int]]) -> None:
        """Write statements that use saved registers and local words as they please."""
        asm, rng = self.asm, self.rng
        if saved:
            asm.emit(*(mov_value(register, rng.randrange(1 << 32)) for register in saved))
        for callee in rng.sample(callees, min(len(callees), rng.randrange(1, 3))) if callees else []:
            skip = self.new_label()
            if rng.random() < 0.4:
                asm.emit("3bc1").branch(rng.choice([JE, JNE]), skip)
            if slots and rng.random() < 0.6:
                asm.emit(store(*rng.choice(slots), rng.choice([EAX, *saved])))
            self.clean(self.call(callee))
            asm.label(skip)
        if rng.random() < 0.2 and function.via == "direct":
            over = self.new_label()
            asm.emit(b"\xff\x0d", COUNTER.to_bytes(4, "little")).branch(0x8E, over)
            self.clean(self.call(function))
            asm.label(over)

    def function(self, function: Function, callees: list[Function]) -> None:
        asm = self.asm
        function.start = asm.here
        asm.label(function.name)
        _WRITERS[function.kind](self, function, callees)
        function.end = asm.here

    def step(self, function: Function, saved: int, local: int, program: str) -> None:
        function.steps.append((self.asm.here, saved, local, program))
        function.prologue_end = self.asm.here


def _search(*saved: tuple[int, int]) -> str:
    restores = "".join(f" {_NAMES[register]} $T0 {offset} - ^ =" for register, offset in saved)
    return "$T0 .raSearch = $eip $T0 ^ = $esp $T0 4 + =" + restores


def _based(expression: str, *saved: tuple[int, int]) -> str:
    restores = "".join(f" {_NAMES[register]} $T0 {offset} - ^ =" for register, offset in saved)
    return f"$T0 {expression} = $eip $T0 ^ = $esp $T0 4 + ={restores}"


def _some(rng: random.Random, registers: list[int]) -> list[int]:
    return [register for register in registers if rng.random() < 0.6]


def _push_frame(it: Writer, function: Function) -> None:
    """Write push ebp; mov ebp, esp."""
    it.step(function, 0, 0, _search())
    if it.rng.random() < 0.3:
        it.asm.emit("8bff")
    it.asm.emit(push(EBP))
    it.step(function, 4, 0, _search((EBP, 4)))
    it.asm.emit(mov(EBP, ESP))
    it.step(function, 4, 0, _based("$ebp 4 +", (EBP, 4)))


def _frame_pointer(it: Writer, function: Function, callees: list[Function]) -> None:
    asm, rng = it.asm, it.rng
    _push_frame(it, function)
    local = rng.choice([0, 4, 0x10, 0x88])
    if local == 4:
        asm.emit(push(ECX))
    elif local:
        asm.emit(sub(ESP, local))
    it.step(function, 4, local, _based("$ebp 4 +", (EBP, 4)))
    saved, places = _some(rng, [EBX, ESI, EDI]), [(EBP, 4)]
    for index, register in enumerate(saved):
        asm.emit(push(register))
        places.append((register, 8 + local + 4 * index))
        it.step(function, 8 + 4 * index, local, _based("$ebp 4 +", *places))
    it.body(function, callees, saved, [(EBP, -4)] if local else [])
    if rng.random() < 0.3:
        early = it.new_label()
        asm.emit("85c0").branch(JE, early)
        _leave_frame(it, function, saved, local)
        asm.label(early)
    _leave_frame(it, function, saved, local)


def _leave_frame(it: Writer, function: Function, saved: list[int], local: int) -> None:
    asm = it.asm
    asm.emit(*(pop(register) for register in reversed(saved)))
    way = it.rng.randrange(3)
    if way == 0 or (local and way == 2):
        asm.emit(LEAVE)
    elif way == 1:
        asm.emit(mov(ESP, EBP), pop(EBP))
    else:
        asm.emit(pop(EBP))
    asm.emit(ret(function.popped))


def _fpo(it: Writer, function: Function, callees: list[Function]) -> None:
    asm, rng = it.asm, it.rng
    local = rng.choice([0, 4, 0x14, 0x104])
    it.step(function, 0, 0, _search())
    if local == 4:
        asm.emit(push(ECX))
    elif local:
        asm.emit(sub(ESP, local))
    it.step(function, 0, local, _search())
    saved = _some(rng, [EBX, ESI, EDI])
    if function.kind is Kind.FPO_BP:
        saved.insert(1 if saved and saved[0] == EBX else 0, EBP)
    _save_and_run(it, function, callees, saved, local)
    asm.emit(*(pop(register) for register in reversed(saved)))
    if local == 4:
        asm.emit(pop(ECX))
    elif local:
        asm.emit(add(ESP, local))
    asm.emit(ret(function.popped))


def _save_and_run(it: Writer, function: Function, callees: list[Function], saved: list[int], local: int) -> None:
    places = []
    for index, register in enumerate(saved):
        it.asm.emit(push(register))
        places.append((register, 4 + local + 4 * index))
        it.step(function, 4 + 4 * index, local, _search(*places))
    it.body(function, callees, saved, [(ESP, 4 * len(saved))] if local else [])


def _probe(it: Writer, function: Function, callees: list[Function]) -> None:
    asm = it.asm
    it.step(function, 0, 0, _search())
    asm.emit(mov_value(EAX, 0x1240)).call("_chkstk")
    it.step(function, 0, 0x1240, _search())
    saved = _some(it.rng, [EBX, ESI, EDI])
    _save_and_run(it, function, callees, saved, 0x1240)
    asm.emit(*(pop(register) for register in reversed(saved)), add(ESP, 0x1240), ret(function.popped))


def _alloca(it: Writer, function: Function, callees: list[Function]) -> None:
    asm, rng = it.asm, it.rng
    _push_frame(it, function)
    asm.emit(sub(ESP, 8))
    it.step(function, 4, 8, _based("$ebp 4 +", (EBP, 4)))
    saved, places = _some(rng, [EBX, ESI, EDI]), [(EBP, 4)]
    for index, register in enumerate(saved):
        asm.emit(push(register))
        places.append((register, 16 + 4 * index))
        it.step(function, 8 + 4 * index, 8, _based("$ebp 4 +", *places))
    asm.emit(load(EAX, EBP, 8), and_(EAX, 0xF0), add(EAX, 0x10)).call("_chkstk")
    it.body(function, callees, saved, [(EBP, -8)])
    asm.emit(lea(ESP, EBP, -8 - 4 * len(saved)), *(pop(register) for register in reversed(saved)), LEAVE)
    asm.emit(ret(function.popped))


def _seh(it: Writer, function: Function, callees: list[Function]) -> None:
    asm = it.asm
    local = it.rng.choice([8, 0x20, 0x84])
    version = "4" if function.kind is Kind.SEH4 else ""
    it.step(function, 0, 0, _search())
    asm.emit(push_value(local))
    it.step(function, 0, 4, _search())
    asm.emit(b"\x68" + b"\x10\x20\x40\x00")
    it.step(function, 0, 8, _search())
    asm.call(f"__SEH_prolog{version}")
    below = 20 + local + 4
    places = [(EBP, 4), (EBX, below + 0), (ESI, below + 4), (EDI, below + 8)]
    it.step(function, 16, local, _based("$ebp 4 +", *places))
    asm.emit(b"\x83\x65\xfc\x00")
    it.body(function, callees, [EBX, ESI, EDI], [(EBP, -0x1C)] if local > 8 else [])
    asm.emit(b"\xc7\x45\xfc\xfe\xff\xff\xff").call(f"__SEH_epilog{version}").emit(ret(function.popped))


def _eh(it: Writer, function: Function, callees: list[Function]) -> None:
    asm = it.asm
    it.step(function, 0, 0, _search())
    asm.emit(mov_value(EAX, 0x402010)).call("__EH_prolog")
    it.step(function, 4, 0, _based("$ebp 4 +", (EBP, 4)))
    asm.emit(sub(ESP, 0x14))
    it.step(function, 4, 0x14, _based("$ebp 4 +", (EBP, 4)))
    saved, places = _some(it.rng, [EBX, ESI, EDI]), [(EBP, 4)]
    for index, register in enumerate(saved):
        asm.emit(push(register))
        places.append((register, 4 + 12 + 0x14 + 4 + 4 * index))
        it.step(function, 8 + 4 * index, 0x20, _based("$ebp 4 +", *places))
    it.body(function, callees, saved, [(EBP, -0x10)])
    asm.emit(load(ECX, EBP, -0x0C), *(pop(register) for register in reversed(saved)))
    asm.emit("64890d00000000", LEAVE, ret(function.popped))


def _realigned(it: Writer, function: Function, callees: list[Function]) -> None:
    asm = it.asm
    _push_frame(it, function)
    saved, places = _some(it.rng, [EBX, ESI, EDI]), [(EBP, 4)]
    for index, register in enumerate(saved):
        asm.emit(push(register))
        places.append((register, 8 + 4 * index))
        it.step(function, 8 + 4 * index, 0, _based("$ebp 4 +", *places))
    asm.emit(and_(ESP, -32))
    size = 4 + 4 * len(saved)
    restores = "".join(f" {_NAMES[register]} $T1 {offset} - ^ =" for register, offset in places)
    program = f"$T1 $ebp 4 + = $T0 $T1 {size} - 32 @ = $eip $T1 ^ = $esp $T1 4 + ={restores}"
    it.step(function, size, 0, program)
    asm.emit(sub(ESP, 0x40))
    it.step(function, size, 0x40, program)
    it.body(function, callees, saved, [(ESP, 0x10)])
    asm.emit(lea(ESP, EBP, -4 * len(saved)), *(pop(register) for register in reversed(saved)), pop(EBP))
    asm.emit(ret(function.popped))


def _realigned_bx(it: Writer, function: Function, callees: list[Function]) -> None:
    asm = it.asm
    it.step(function, 0, 0, _search())
    asm.emit(push(EBX))
    it.step(function, 4, 0, _search((EBX, 4)))
    asm.emit(mov(EBX, ESP))
    base = _based("$ebx 4 +", (EBX, 4))
    it.step(function, 4, 0, base)
    asm.emit(sub(ESP, 8), and_(ESP, -8), add(ESP, 4), push(EBP), load(EBP, EBX, 4), store(ESP, 4, EBP), mov(EBP, ESP))
    whole = "$T1 $ebx 4 + = $T0 $ebp 8 @ = $eip $T1 ^ = $esp $T1 4 + = $ebp $ebp ^ = $ebx $T1 4 - ^ ="
    it.step(function, 8, 0, whole)
    asm.emit(sub(ESP, 0x38))
    it.step(function, 8, 0x38, whole)
    it.body(function, callees, [], [(EBP, -8)])
    asm.emit(mov(ESP, EBP), pop(EBP), mov(ESP, EBX), pop(EBX), ret(function.popped))


_WRITERS = {
    Kind.FRAME_POINTER: _frame_pointer,
    Kind.FPO: _fpo,
    Kind.FPO_BP: _fpo,
    Kind.ALLOCA: _alloca,
    Kind.PROBE: _probe,
    Kind.SEH: _seh,
    Kind.SEH4: _seh,
    Kind.EH: _eh,
    Kind.REALIGNED: _realigned,
    Kind.REALIGNED_BX: _realigned_bx,
}


def write_helpers(asm: Assembler) -> None:
    """Write the helpers of Microsoft's compilers, as their documented frame layouts demand."""
    registration = "64a100000000"  # mov eax, fs:[0]
    asm.label("__SEH_prolog").emit("6810404000", registration, push(EAX), load(EAX, ESP, 0x10), store(ESP, 0x10, EBP))
    asm.emit(lea(EBP, ESP, 0x10), b"\x2b\xe0", push(EBX), push(ESI), push(EDI), load(EAX, EBP, -8))
    asm.emit(store(EBP, -0x18, ESP), push(EAX), load(EAX, EBP, -4), b"\xc7\x45\xfc\xff\xff\xff\xff")
    asm.emit(store(EBP, -8, EAX), lea(EAX, EBP, -0x10), "64a300000000", ret()).align()
    epilog = (load(ECX, EBP, -0x10), "64890d00000000", pop(ECX), pop(EDI), pop(ESI), pop(EBX), LEAVE, push(ECX), ret())
    asm.label("__SEH_epilog").emit(*epilog).align()
    asm.label("__SEH_prolog4").emit("6810404000", "64ff3500000000", load(EAX, ESP, 0x10), store(ESP, 0x10, EBP))
    asm.emit(lea(EBP, ESP, 0x10), b"\x2b\xe0", push(EBX), push(ESI), push(EDI), b"\xa1", COOKIE.to_bytes(4, "little"))
    asm.emit("3145fc", "33c5", push(EAX), store(EBP, -0x18, ESP), "ff75f8", load(EAX, EBP, -4))
    asm.emit("c745fcfeffffff", store(EBP, -8, EAX), lea(EAX, EBP, -0x10), "64a300000000", ret()).align()
    epilog = (load(ECX, EBP, -0x10), "64890d00000000", pop(ECX), pop(EDI), pop(EDI), pop(ESI), pop(EBX))
    asm.label("__SEH_epilog4").emit(*epilog, mov(ESP, EBP), pop(EBP), push(ECX), ret()).align()
    asm.label("__EH_prolog").emit("6aff", push(EAX), registration, push(EAX), load(EAX, ESP, 0x0C))
    asm.emit("64892500000000", store(ESP, 0x0C, EBP), lea(EBP, ESP, 0x0C), push(EAX), ret()).align()
    asm.label("_chkstk").emit(push(ECX), lea(ECX, ESP, 4), "2bc8", "1bc0", "f7d0", "23c8", mov(EAX, ESP))
    asm.emit("2500f0ffff").label(".page").emit("3bc8").branch(0x82, ".probe")
    asm.emit(mov(EAX, ECX), pop(ECX), "94", "8b00", "890424", ret())
    asm.label(".probe").emit("2d00100000", "8500").jump(".page").align()
