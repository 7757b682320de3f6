# SPDX-License-Identifier: Apache-2.0
"""The user stacks of all forged machines, with their truth, as the engine sees them: no dump is written.

A stack is that of a thread that waits, or the part of it that threw. A thread of a WoW64 process has two stacks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property

from tests.forge.cases import Case, builders
from tests.forge.describe import LoadedModule, Process, Thread
from tests.forge.truth import TruthFrame
from throwstack.core.frames import StackBounds, Walk
from throwstack.core.memory import Memory, SegmentSource
from throwstack.core.registers import Arch, Registers
from throwstack.images.image import Image, ImageMap
from throwstack.images.modules import Module, ModuleMap
from throwstack.names.symbols import SymbolKind, Symbols, SymbolTable
from throwstack.unwind import x64, x86
from throwstack.unwind.target import Unwinder

_USER_END = {Arch.X86: 1 << 31, Arch.X64: 1 << 47}
_SIZE_ONLY = frozenset({"fleet"})
"""Cases that are large: 200 processes whose threads have the stacks of `service-x64`."""


class _Changed:
    """The memory of a process in which some bytes can be overwritten."""

    def __init__(self, process: Process) -> None:
        self._source = SegmentSource({region.base: region.data for region in process.regions})
        self.patches: dict[int, bytes] = {}

    def page(self, address: int) -> bytes | None:
        page = self._source.page(address)
        for at, data in self.patches.items():
            if page is not None and at & -0x1000 == address:
                page = page[: at - address] + data + page[at - address + len(data) :]
        return page


@dataclass(frozen=True)
class ForgedStack:
    """A user stack: the memory of its process, its first registers and bounds, and its frames as they were laid.

    `symbols` are the functions that the forge knows, by the base of their image; an image without is named by exports.
    """

    name: str
    arch: Arch
    process: Process
    thread: Thread
    registers: dict[str, int]
    bounds: StackBounds
    frames: tuple[TruthFrame, ...]
    symbols: dict[int, dict[str, int]]

    def walk(self, changed: dict[int, bytes] | None = None, *, has_symbols: bool = True) -> Walk:
        """Walk the stack; `changed` are bytes that are different from what was forged, by address."""
        source = self._memory_source
        source.patches = changed or {}
        unwinder, memory = self._unwinders[has_symbols]
        memory._pages.clear()
        return unwinder.walk(Registers.named(self.arch, self.registers), self.bounds)

    @property
    def shape(self) -> object:
        """Return what two stacks have in common that differ in nothing but their process and addresses."""
        frames = ((frame.symbol, self.bounds.base - frame.child_sp) for frame in self.frames)
        return self.arch, tuple(frames), len(self.modules)

    @property
    def modules(self) -> list[LoadedModule]:
        """Return the modules that code of the stack's architecture sees."""
        modules32 = self.process.modules32
        return self.process.modules if self.arch is Arch.X64 or modules32 is None else modules32

    @cached_property
    def _memory_source(self) -> _Changed:
        return _Changed(self.process)

    @cached_property
    def _unwinders(self) -> dict[bool, tuple[Unwinder, Memory]]:
        return {has_symbols: self._new_unwinder(has_symbols=has_symbols) for has_symbols in (False, True)}

    def _new_unwinder(self, *, has_symbols: bool) -> tuple[Unwinder, Memory]:
        memory = Memory(self._memory_source)
        modules = ModuleMap(Module(one.name, one.path, one.base, one.size) for one in self.modules)
        images = ImageMap(memory, modules)
        if self.arch is Arch.X64:
            return x64.Unwinder(images), memory

        def table(image: Image) -> SymbolTable | None:
            known = self.symbols.get(image.base) if has_symbols else None
            return known and SymbolTable(SymbolKind.ISF, ((rva, name) for name, rva in known.items()))

        return x86.Unwinder(images, Symbols(images, table)), memory


@cache
def forged_stacks() -> tuple[ForgedStack, ...]:
    """Return the stacks that the truth of the cases gives, one of each shape."""
    shapes: dict[object, ForgedStack] = {}
    for name, (build, _) in builders().items():
        for stack in () if name in _SIZE_ONLY else stacks_of(name, build()):
            shapes.setdefault(stack.shape, stack)
    return tuple(shapes.values())


def stacks_of(name: str, case: Case) -> Iterator[ForgedStack]:
    """Yield all user stacks whose truth a case gives."""
    truth = case.truth
    symbols = {image.base: image.rvas() for image in case.images}
    threads = {
        (process.pid, thread.tid): (process, thread) for process in case.machine.processes for thread in process.threads
    }
    laid = [
        *((stuck.pid, stuck.tid, "waits", stuck.thread_stack, None) for stuck in truth.stuck),
        *((stuck.pid, stuck.tid, "threw", stuck.frames, stuck.registers) for stuck in truth.stuck),
        *((*map(int, key.split(":")), "waits", frames, None) for key, frames in truth.stacks.items()),
    ]
    for pid, tid, which, all_frames, saved in laid:
        arch = Arch.X86 if "eip" in all_frames[0].registers else Arch.X64
        frames = tuple(frame for frame in all_frames if frame.ip < _USER_END[arch])
        process, thread = threads[pid, tid]
        first = frames[0].registers
        is_trapped = thread.registers.get(arch.facts.ip_name) == frames[0].ip
        registers = saved or {**first, **(thread.registers if is_trapped else {})}
        bounds = _bounds(process, thread, frames[0].child_sp)
        yield ForgedStack(
            f"{name} {tid:#x} {arch.value} {which}", arch, process, thread, registers, bounds, frames, symbols
        )


def _bounds(process: Process, thread: Thread, sp: int) -> StackBounds:
    if thread.stack_limit <= sp < thread.stack_base:
        return StackBounds(thread.stack_limit, thread.stack_base)
    region = next(region for region in process.regions if region.base <= sp < region.base + len(region.data))
    return StackBounds(region.base, region.base + len(region.data))
