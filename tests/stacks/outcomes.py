# SPDX-License-Identifier: Apache-2.0
"""Runs triage over a published stack, in one of two modes, and makes its report."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass

from tests.stacks.laid_x64 import LaidX64
from tests.stacks.laid_x86 import LaidX86
from tests.stacks.planned_code import PlannedCode
from tests.stacks.published import PublishedStack
from tests.stacks.raised_objects import RaisedObjects
from throwstack.core.frames import StackBounds
from throwstack.core.memory import Memory, memory_of
from throwstack.core.registers import Arch, Registers
from throwstack.core.sides import Side
from throwstack.images.image import Image, ImageMap
from throwstack.images.modules import Module, ModuleMap
from throwstack.names.symbols import SymbolKind, Symbols, SymbolTable
from throwstack.report.crash_report import CrashReport, ProcessSummary
from throwstack.report.make_crash import CrashSite, make_crash
from throwstack.stuck.triage import Triage
from throwstack.unwind.target import Target, ThreadStack
from throwstack.unwind.x64 import Unwinder as X64Unwinder
from throwstack.unwind.x86 import Unwinder as X86Unwinder


class NamesOfPdb(SymbolTable):
    """All functions of an image, as its PDB has them: each ends where the next begins."""

    def extent_of(self, name: str, longest: int) -> tuple[int, int] | None:
        """Return RVA and size of the function called `name`."""
        start = self.rva_of(name)
        following = None if start is None else self.next_after(start)
        return None if start is None else (start, min(longest, (following or start + longest) - start))


@dataclass(frozen=True)
class Outcome:
    """What came of a stack: the report on its thread, or None, and why the thread may be stuck all the same."""

    crash: CrashReport | None
    doubts: tuple[str, ...]


class LaidOut:
    """A published stack in the memory of a process, which both modes look at."""

    def __init__(self, stack: PublishedStack) -> None:
        """Lay `stack` out, with images for all of its modules."""
        code, raised = PlannedCode(stack), RaisedObjects(stack)
        laid = (LaidX64 if stack.arch is Arch.X64 else LaidX86)(code, raised)
        self.arch = stack.arch
        self.names = code.names()
        self.bounds = StackBounds(laid.stack.limit, laid.stack.base)
        registers = Registers.named(stack.arch, laid.registers)
        self.thread = ThreadStack(self.bounds, registers, "", laid.exception_list)
        segments = {laid.stack.limit: laid.stack.data(), **raised.segments()}
        modules = []
        for image in code.images.values():
            data = image.build()
            segments[image.base] = data
            modules.append(Module(image.name, f"C:\\app\\{image.name}", image.base, len(data)))
        self._segments = segments
        self.memory: Memory = memory_of(segments)
        self.modules = ModuleMap(modules)

    def damaged(self, address: int, value: int = 0) -> LaidOut:
        """Return the same with the pointer `value` at `address`, which is on the stack."""
        stack, offset = bytearray(self._segments[self.bounds.limit]), address - self.bounds.limit
        stack[offset : offset + self.arch.pointer_size] = value.to_bytes(self.arch.pointer_size, "little")
        other = copy(self)
        other._segments = {**self._segments, self.bounds.limit: bytes(stack)}
        other.memory = memory_of(other._segments)
        return other

    def target(self, mode: str) -> Target:
        """Return the process with all names, or with exports only."""
        images = ImageMap(self.memory, self.modules)

        def names(image: Image) -> SymbolTable:
            return NamesOfPdb(SymbolKind.PDB, self.names[image.base].items())

        source = names if mode == "all names" else None
        symbols = Symbols(images, source, at_hand=source)
        unwinder = X64Unwinder(images) if self.arch is Arch.X64 else X86Unwinder(images, symbols)
        return Target(self.arch, self.memory, images, symbols, unwinder)

    def outcome(self, mode: str, *, handled: bool = False) -> Outcome:
        """Examine the thread. `handled`: list it, too, if a handler has taken the exception on its stack."""
        target = self.target(mode)
        found = Triage(target, handled=handled).examine(self.thread)
        if found.stuck is None:
            return Outcome(None, found.doubts)
        site = CrashSite(
            target=target,
            process=ProcessSummary(4, "app.exe"),
            tid=8,
            side=Side.of_user_code(self.arch),
            arch=self.arch.value,
            region_of=lambda _: "",
            substitutes=frozenset(),
            blocked_since=lambda: None,
        )
        return Outcome(make_crash(found.stuck, site), ())
