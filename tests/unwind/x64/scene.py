# SPDX-License-Identifier: Apache-2.0
"""A process for worked examples: one image, a stack written with labels, and a walk over it.

callee()       what a test is about: its code and its unwind information, or None for a leaf
caller()       sub rsp,28h / call callee / nop / add rsp,28h / ret
"""

from __future__ import annotations

from collections.abc import Sequence

from tests.forge.stacks import Label, Stack
from tests.unwind.x64 import assembler as asm
from tests.unwind.x64.assembler import RBX, Assembler, ImageBuilder
from throwstack.core.frames import StackBounds, Walk
from throwstack.core.memory import Memory, SegmentSource
from throwstack.core.regions import Regions
from throwstack.core.registers import X64, Arch, Registers
from throwstack.images.image import ImageMap
from throwstack.images.modules import Module, ModuleMap
from throwstack.unwind.code_outside import CodeOutside, FunctionSource
from throwstack.unwind.x64 import Unwinder

PUSH_RBX_SUB_20 = b"\x53" + b"\x48\x83\xec\x20"
PUSH_RBX_SUB_20_INFO = asm.unwind_info([asm.alloc(5, 0x20), asm.push_nonvol(1, RBX)], 5)
BODY = b"\x90" * 8
BASE = 0x7FF700000000
STACK = StackBounds(0x10000, 0x14000)
CALLER_ALLOCATION = 0x28


class Scene:
    """`callee` is code bytes; more functions can be added to `code` and `builder` before the first walk."""

    def __init__(self, callee: bytes, info: bytes | None = None, *, name: str = "app.exe") -> None:
        self.name = name
        code = self.code = Assembler()
        code.label("callee")
        code.emit(callee)
        self._callee_end = code.here
        code.align()
        code.label("caller")
        code.sub_rsp(CALLER_ALLOCATION)
        body = code.here
        code.call("callee")
        code.label("return")
        code.nop()
        code.add_rsp(CALLER_ALLOCATION)
        code.ret()
        self._entries: list[tuple[int, int, bytes]] = [
            (code.labels["caller"], code.here, asm.unwind_info([asm.alloc(body - code.labels["caller"], 0x28)], 4))
        ]
        if info is not None:
            self._entries.append((code.labels["callee"], self._callee_end, info))
        self.callee = BASE + code.labels["callee"]
        self.return_address = BASE + code.labels["return"]
        self.stack = Stack(STACK.limit, STACK.base)
        self.segments: dict[int, bytes] = {}
        self.missing: list[int] = []
        self.exports: dict[str, int] = {}

    def add(self, name: str, code: bytes, info: bytes | None) -> int:
        """Add a function and return its address."""
        self.code.align()
        self.code.label(name)
        begin = self.code.here
        self.code.emit(code)
        if info is not None:
            self._entries.append((begin, self.code.here, info))
        return BASE + begin

    def image(self) -> bytes:
        builder = ImageBuilder(self.code.assemble(), exports=self.exports, dll_name=self.name)
        for begin, end, info in self._entries:
            builder.add(begin, end, info)
        self.table = builder
        return builder.build()

    def caller_frame(self, sp: Label) -> None:
        """Write caller's frame, the outermost one, at the cursor: `sp` becomes its rsp."""
        self.stack.mark(sp).zeros(CALLER_ALLOCATION).d64(0)

    def unwinder(
        self, *, regions: Regions | None = None, sources: Sequence[FunctionSource] = (), **options: int
    ) -> Unwinder:
        image = self.image()
        segments = {BASE: image, STACK.limit: self.stack.data(), **self.segments}
        source = SegmentSource(segments)
        missing = set(self.missing)

        class Partial:
            def page(self, address: int) -> bytes | None:
                return None if address in missing else source.page(address)

        modules = ModuleMap([Module(self.name, "", BASE, len(image))])
        images = ImageMap(Memory(Partial()), modules)
        return Unwinder(images, outside=CodeOutside(images, regions, sources), **options)

    def walk(self, *, bounds: StackBounds = STACK, **registers: int | Label) -> Walk:
        """Walk from the registers given (rip and rsp among them)."""
        return self.unwinder().walk(named(**registers), bounds)


def named(**registers: int | Label) -> Registers:
    """Return registers by name; labels are their addresses."""
    return Registers.named(Arch.X64, {name: int(value) for name, value in registers.items()})


def gpr(walk: Walk, frame: int, name: str) -> int | None:
    return walk.frames[frame].registers.gpr[X64.register_names.index(name)]
