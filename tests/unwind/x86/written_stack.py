# SPDX-License-Identifier: Apache-2.0
"""x86 stacks written down word by word, and the walk over one."""

from __future__ import annotations

import struct

from tests.unwind.x86.machine import (
    BASE,
    EXPORTS,
    STACK_BASE,
    TEXT,
    TEXT_SIZE,
    export_page,
    header_page,
    images_of,
    symbols_of,
)
from throwstack.core.frames import StackBounds
from throwstack.core.memory import SegmentSource
from throwstack.core.registers import Arch, Registers
from throwstack.unwind.code_outside import CodeOutside
from throwstack.unwind.x86 import Unwinder

STACK = StackBounds(STACK_BASE - 0x1000, STACK_BASE)


class Stack:
    """A stack written from its lowest word up; strings before a word name its address."""

    def __init__(self, *items: int | str, base: int = STACK_BASE - 0x100) -> None:
        self.base, self.marks, self.words = base, {}, []
        for item in items:
            if isinstance(item, str):
                self.marks[item] = base + 4 * len(self.words)
            else:
                self.words.append(item)

    def __getitem__(self, name: str) -> int:
        return self.marks[name]

    @property
    def data(self) -> bytes:
        return struct.pack(f"<{len(self.words)}I", *self.words)


def walk(
    asm,
    stack,
    registers,
    *,
    has_symbols=True,
    code=None,
    limits=None,
    records=None,
    module="test.dll",
    absent="",
    exports=("BaseThreadStart",),
    segments=None,
    limit=STACK_BASE - 0x1000,
    name_outside=None,
    regions=None,
    bounds=None,
    source=None,
    **options,
):
    """`source` makes a source of functions outside the image, of the memory."""
    labels = {name: at for name, at in asm.labels.items() if " " not in name or name == "calls null"}
    text = (asm.finish() if code is None else code).ljust(TEXT_SIZE, b"\xcc")
    memory = {BASE: header_page(), EXPORTS: export_page({name: labels[name] for name in exports})}
    if code != b"":
        memory[TEXT] = text
    start = limit
    memory.update(segments or {})
    memory[start] = b"\0" * (stack.base - start) + stack.data.ljust(STACK_BASE - stack.base, b"\0")
    images = images_of(SegmentSource(memory), module, absent)
    symbols = symbols_of(images, labels if has_symbols else None, name_outside)
    sources = () if source is None else (source(images.memory),)
    unwinder = Unwinder(images, symbols, records, outside=CodeOutside(images, regions, sources), **(limits or {}))
    return unwinder.walk(Registers.named(Arch.X86, registers), bounds or StackBounds(limit, STACK_BASE), **options)


def slots(found) -> list[int | None]:
    return [frame.return_slot for frame in found.frames]
