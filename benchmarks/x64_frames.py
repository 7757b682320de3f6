# SPDX-License-Identifier: Apache-2.0
"""Frames a second of the x64 unwinder, once pages and functions are cached, on one core.

    python benchmarks/x64_frames.py [--image FILE] [--depth N] [--seconds S]

The stack is laid out over real unwind data where `--image` names an x64 DLL: its functions call one another in random
order, each with the frame that its unwind codes describe. Without it, a made image of 200 functions stands in. The
first walk, which decodes, is timed apart. The same stack is walked again and again, and every walk has to be whole.
"""

from __future__ import annotations

import argparse
import random
import struct
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.unwind.x64 import assembler as asm
from tests.unwind.x64.assembler import R12, RBP, RBX, RDI, RSI, Assembler, ImageBuilder
from tests.unwind.x64.pe_files import FlatSource, open_image
from throwstack.core.frames import End, StackBounds
from throwstack.core.memory import Memory, PageSource
from throwstack.core.registers import Arch, Registers
from throwstack.images.function_table import RuntimeFunction
from throwstack.images.image import Image, ImageMap
from throwstack.images.modules import Module, ModuleMap
from throwstack.unwind.x64 import Unwinder
from throwstack.unwind.x64.unwind_info import UnwindInfo, decode

STACK_BASE = 0x7000000
STACK_SIZE = 1 << 20
FUNCTIONS = 200
LARGEST_FRAME = 0x1000
_ALLOCATES = ("ALLOC_SMALL", "ALLOC_LARGE")


class Both:
    """The image's pages and the stack's."""

    def __init__(self, image: PageSource, stack: PageSource) -> None:
        self._sources = (image, stack)

    def page(self, address: int) -> bytes | None:
        """Return the page of whichever has it."""
        for source in self._sources:
            page = source.page(address)
            if page is not None:
                return page
        return None


def made_image() -> tuple[Module, PageSource]:
    """Return an image of functions that push, allocate and save registers as compilers make them do."""
    chosen = random.Random(1)  # noqa: S311 - reproducible, not secret
    code = Assembler()
    entries = []
    for _ in range(FUNCTIONS):
        begin = code.here
        codes: list[bytes] = []
        for register in chosen.sample([RBX, RBP, RSI, RDI, R12], chosen.randrange(4)):
            code.push(register)
            codes.insert(0, asm.push_nonvol(code.here - begin, register))
        size = 8 * chosen.randrange(4, 60)
        code.sub_rsp(size)
        codes.insert(0, asm.alloc(code.here - begin, size))
        prologue_size = code.here - begin
        code.call_register(0)
        code.nop()
        entries.append((begin, code.here, asm.unwind_info(codes, prologue_size)))
        code.align()
    builder = ImageBuilder(code.assemble())
    for entry in entries:
        builder.add(*entry)
    image = builder.build()
    return Module("made.dll", "", 0x180000000, len(image)), FlatSource(0x180000000, image)


def frames_of(image: Image, memory: Memory) -> list[tuple[int, int]]:
    """Return (return address, frame size) of functions that a stack can be laid out over without running them.

    A return address has to be after a call only for code without unwind data, so any place in the body will do.
    """
    assert image.headers is not None
    rva, size = image.headers.exception_directory
    found = []
    for slot in range(size // 12):
        entry = RuntimeFunction.read(memory, image.base + rva + 12 * slot)
        if not entry.is_plausible or entry.unwind & 1:
            continue
        info = decode(memory, image.base + entry.unwind)
        if not isinstance(info, UnwindInfo) or info.chained or info.frame_register:
            continue
        names = [code.op.name for code in info.codes]
        if "PUSH_MACHFRAME" in names or entry.begin + info.prologue_size + 2 >= entry.end:
            continue
        frame = 8 * names.count("PUSH_NONVOL")
        frame += sum(code.value for code in info.codes if code.op.name in _ALLOCATES)
        if frame < LARGEST_FRAME:
            found.append((image.base + entry.begin + info.prologue_size + 1, frame))
    return found


def lay_out(frames: list[tuple[int, int]], depth: int) -> tuple[Registers, bytes]:
    """Return the innermost registers and the stack of `depth` frames, the last of which returns to 0."""
    chosen = random.Random(2)  # noqa: S311 - reproducible, not secret
    stack = bytearray(STACK_SIZE)
    sp = STACK_BASE - 0x100
    address = 0
    for _ in range(depth):
        sp -= 8
        struct.pack_into("<Q", stack, sp - STACK_BASE + STACK_SIZE, address)
        address, size = chosen.choice(frames)
        sp -= size
    return Registers(address, Registers.named(Arch.X64, {"rip": address, "rsp": sp}).gpr), bytes(stack)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, help="an x64 DLL whose functions the stack is made of")
    parser.add_argument("--depth", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    if options.image is None:
        module, source = made_image()
    else:
        opened = open_image(options.image)
        if opened is None:
            parser.error(f"{options.image} is not an x64 image")
        module, source = opened[1].module, opened[0].memory
    plain = Memory(source)
    image = ImageMap(plain, ModuleMap([module])).find(module.base)
    assert image is not None
    registers, stack = lay_out(frames_of(image, plain), options.depth)
    memory = Memory(Both(source, FlatSource(STACK_BASE - STACK_SIZE, stack)))
    unwinder = Unwinder(ImageMap(memory, ModuleMap([module])))
    bounds = StackBounds(STACK_BASE - STACK_SIZE, STACK_BASE)

    started = time.perf_counter()
    first = unwinder.walk(registers, bounds)
    cold = time.perf_counter() - started
    if first.end is not End.THREAD_START or len(first.frames) != options.depth:
        print(f"the stack does not unwind: {first.end}, {first.detail}, {len(first.frames)} frames")
        return 1
    walks = 0
    started = time.perf_counter()
    while (elapsed := time.perf_counter() - started) < options.seconds:
        for _ in range(20):
            if unwinder.walk(registers, bounds).frames[-1] != first.frames[-1]:
                return 1
        walks += 20
    print(f"{module.name}: {options.depth} frames deep, first walk {1e6 * cold / options.depth:.0f} us a frame,")
    print(f"then {walks * options.depth / elapsed:,.0f} frames a second")
    return 0


if __name__ == "__main__":
    sys.exit(main())
