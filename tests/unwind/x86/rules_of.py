# SPDX-License-Identifier: Apache-2.0
"""The rules of an x86 address space, for a program and a stack."""

from __future__ import annotations

from tests.unwind.x86.assemble import EBP, ESI, ESP, LEAVE, Assembler, mov, pop, push, ret, sub
from tests.unwind.x86.machine import BASE, TEXT, TEXT_SIZE, Records, header_page, images_of, symbols_of, words
from throwstack.core.frames import StackBounds
from throwstack.core.memory import SegmentSource
from throwstack.core.regions import Region, RegionKind
from throwstack.core.registers import Arch, Registers
from throwstack.unwind.code_outside import CodeOutside
from throwstack.unwind.x86.call_frame import Place
from throwstack.unwind.x86.rules import Rules

LOW = 0x120000
STACK = StackBounds(LOW, LOW + 0x1000)
HEAP = 0x5000000


class Executable:
    """The regions of a process: code may run in its private memory."""

    def find(self, address: int) -> Region | None:
        is_heap = HEAP <= address < HEAP + 0x1000
        return Region(HEAP, HEAP + 0x1000, RegionKind.PRIVATE, is_executable=True) if is_heap else None


def program() -> Assembler:
    asm = Assembler(TEXT)
    asm.label("caller").call("function").label("after function").emit(ret()).align()
    asm.label("function").emit(push(EBP), mov(EBP, ESP), push(ESI), sub(ESP, 8)).call("inner").label("after inner")
    asm.call("inner").emit(pop(ESI), pop(ESI), pop(ESI), LEAVE, ret()).align()
    asm.label("inner").emit(ret())
    return asm


def rules(
    asm: Assembler,
    *stack: int,
    has_symbols: bool = True,
    records: Records | None = None,
    heap: str = "",
    regions: Executable | None = None,
) -> Rules:
    text = asm.finish().ljust(TEXT_SIZE, b"\xcc")
    segments = {BASE: header_page(), TEXT: text, LOW: words(*stack), HEAP: bytes.fromhex(heap).ljust(64, b"\0")}
    images = images_of(SegmentSource(segments))
    labels = {name: at for name, at in asm.labels.items() if " " not in name}
    symbols = symbols_of(images, labels if has_symbols else None)
    return Rules(images, symbols, records, None, CodeOutside(images, regions))


def lost(after_call: str = "ebfe", first: str = "ffe0") -> Assembler:
    """A function with symbols whose code does not lead from its start to the place after its call."""
    asm = Assembler(TEXT)
    asm.label("caller").call("function").label("after function").emit("ffd0").label("after register").emit(ret())
    return asm.align().label("function").emit(first).label("after call").emit(after_call).align()


def after_call_in(asm: Assembler, call_sp: int = LOW, **options) -> Place:
    registers = {"eip": asm.labels["after call"], "esp": call_sp, **options.pop("registers", {})}
    return Place(Registers.named(Arch.X86, registers), call_sp, **options)
