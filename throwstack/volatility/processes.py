# SPDX-License-Identifier: Apache-2.0
"""Makes a `Process` from an EPROCESS, with a `Target` (memory, images, symbols, unwinder) for each side of the process.

A WoW64 process has two sides, 64-bit code and 32-bit code, each with its own modules and stacks. Every other process
has one side.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from volatility3.framework import interfaces

from throwstack.core.budgets import BUDGETS, Meter
from throwstack.core.errors import ThrowstackError
from throwstack.core.frames import StackBounds
from throwstack.core.memory import Memory, MemoryUnreadable
from throwstack.core.registers import Arch, Registers
from throwstack.core.sides import BOTH, Side, Sides
from throwstack.core.text import escape
from throwstack.files.image_path import ImagePages
from throwstack.images.image import ImageMap
from throwstack.images.modules import Module, ModuleMap
from throwstack.managed.method_indexes import MethodIndexes
from throwstack.managed.process_code import FramesOfProcess, ManagedCode, ThreadsOf
from throwstack.names.symbols import Symbols
from throwstack.pages.code_regions import CodeRegions
from throwstack.pages.resolver import ResolvedPages
from throwstack.unwind import x64, x86
from throwstack.unwind.code_outside import CodeOutside
from throwstack.unwind.target import Target, ThreadStack, stack_around
from throwstack.volatility.kernel_stack.user_registers import KernelStacks
from throwstack.volatility.memory.guarded import guarded
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.memory.offsets import offset, take
from throwstack.volatility.objects.loader import (
    OF_WIN32,
    WITHOUT_WIN32,
    LoaderReader,
    modules_from_vads,
    with_own_names,
    with_system_names,
)
from throwstack.volatility.objects.outside_images import MappedFiles, names_outside_images
from throwstack.volatility.objects.threads import IS_RUNNING, Thread, ThreadReader
from throwstack.volatility.objects.trap_frame import TrapFrame
from throwstack.volatility.objects.wow64 import Wow64Reader

_NAME_SIZE = 15


@dataclass(frozen=True, slots=True)
class Process:
    """A process that can be examined.

    `sides` are its targets, the 64-bit one first. `peb` is the address of the native PEB, and `problems` say what of
    the process could not be read.
    """

    address: int
    pid: int
    name: str
    peb: int
    memory: Memory
    pages: ResolvedPages
    """The pages that `memory` reads, and where each comes from."""
    sides: Mapping[Side, Target]
    problems: tuple[str, ...]
    threads: tuple[Thread, ...] = field(repr=False)
    managed: Mapping[Side, ManagedCode] = field(default_factory=dict, repr=False)
    """The managed code of each side, which is looked for when it is asked for."""

    @property
    def is_wow64(self) -> bool:
        """Say whether the process runs a 32-bit program on 64-bit Windows, and so has a 64-bit and a 32-bit side."""
        return len(self.sides) > 1

    @property
    def program(self) -> Target:
        """Return the target of the code that the program itself consists of: the 32-bit one in a WoW64 process."""
        return tuple(self.sides.values())[-1]

    def selected(self, wanted: Sides = BOTH) -> list[tuple[Side, Target]]:
        """Return the sides that `wanted` selects, the 64-bit one first.

        If the process is not a WoW64 process, its only side is returned, whatever `wanted` is.
        """
        return [(side, target) for side, target in self.sides.items() if side in wanted or not self.is_wow64]


class NoStack(ThrowstackError):
    """A thread has no stack that can be examined; the message says why."""


@dataclass(frozen=True, slots=True)
class _Offsets:
    pid: int = offset("_EPROCESS.UniqueProcessId")
    name: int | None = offset("_EPROCESS.ImageFileName", optional=True)
    peb: int = offset("_EPROCESS.Peb")
    directory_base: int = offset("_EPROCESS.Pcb.DirectoryTableBase")


class ProcessReader:
    """Reads the processes of a machine, and the user stacks of their threads."""

    def __init__(self, machine: Machine) -> None:
        """Look up the offsets of the structures to read in the symbols of `machine`.

        A LookupError is raised if the kernel's ISF table lacks a required member.
        """
        self.machine = machine
        self.threads = ThreadReader(machine)
        self.kernel = KernelStacks(machine)
        self._offsets = take(_Offsets, machine.layout)
        self._loader = LoaderReader(machine.layout, machine.pointer_size)
        self._wow64 = Wow64Reader(machine) if machine.is_64bit else None
        self._method_indexes = MethodIndexes()
        self._last_trap_frame: tuple[Thread, TrapFrame | None] | None = None

    def describe(self, process: interfaces.objects.ObjectInterface) -> str:
        """Describe the process of an EPROCESS in words: its address and, if they can be read, its name and PID."""
        address = self.machine.canonical(process.vol.offset)
        try:
            name, pid = self.identity(address)
        except MemoryUnreadable:
            return f"the process at {address:#x}"
        return f"the process at {address:#x}, {escape(name)} (PID {pid}),"

    def identity(self, address: int) -> tuple[str, int]:
        """Return image name and PID of the EPROCESS at `address`; raises MemoryUnreadable."""
        machine, offsets = self.machine, self._offsets
        raw_name = b"" if offsets.name is None else machine.memory.read(address + offsets.name, _NAME_SIZE)
        pid = machine.pointer(machine.memory, address + offsets.pid)
        return raw_name.split(b"\0", 1)[0].decode("latin-1"), pid

    def open(self, process: interfaces.objects.ObjectInterface) -> Process | None:
        """Open a process, or return None if it has no user-mode address space (System).

        Raises MemoryUnreadable if its EPROCESS cannot be read.
        """
        machine = self.machine
        address = machine.canonical(process.vol.offset)
        name, pid = self.identity(address)
        peb = machine.pointer(machine.memory, address + self._offsets.peb)
        directory_base = machine.pointer(machine.memory, address + self._offsets.directory_base)
        if not peb:
            return None
        pages = machine.process_pages(directory_base, address)
        memory = Memory(pages)
        loaded = self._loader.read(memory, peb)
        modules = loaded.modules
        problems = [loaded.problem] if loaded.problem else []
        if loaded.problem:
            from_vads = list(modules_from_vads(process, problems.append))
            known = {module.base: module for module in loaded.named_by(from_vads)}
            for module in from_vads:
                known.setdefault(module.base, module)
            problems[0] += f"; {len(known) - len(loaded.modules)} modules taken from the VADs"
            modules = tuple(known.values())[: BUDGETS.modules]
            if len(modules) < len(known):
                problems[0] += f", all but {len(known) - len(modules)}: the budget of {BUDGETS.modules:,} is spent"
        modules32 = self._wow64_modules(process, address, memory, problems)
        modules = self._named(process, modules, OF_WIN32 if modules32 is None else WITHOUT_WIN32, memory, problems)
        memory = self._with_files(pages, memory, [*modules, *(modules32 or ())])
        files, regions = MappedFiles(process), CodeRegions(pages)
        threads = tuple(self.threads.with_teb(memory, thread) for thread in self.threads.threads(address))
        own = Side.of_user_code(machine.arch)
        tebs = partial(_tebs, threads)
        made = {own: self._target(machine.arch, memory, modules, files, regions, tebs=tebs)}
        if modules32 is not None:
            tebs = partial(self._tebs32, memory, threads)
            made[Side.X86] = self._target(Arch.X86, memory, modules32, files, regions, tebs=tebs)
        sides = {side: target for side, (target, _) in made.items()}
        managed = {side: code for side, (_, code) in made.items()}
        if not self.threads.has_all_threads(address):
            problems.append("the list of threads is broken, and some may be missing")
        return Process(address, pid, name, peb, memory, pages, sides, tuple(problems), threads, managed)

    def threads_without_peb(self, process: interfaces.objects.ObjectInterface) -> int:
        """Return the number of threads with user-mode stacks in a process that has no PEB.

        The EPROCESS of such a process is damaged. Raises MemoryUnreadable if the EPROCESS cannot be read at all.
        """
        address = self.machine.canonical(process.vol.offset)
        return sum(bool(thread.teb) and not thread.is_terminated for thread in self.threads.threads(address))

    def _wow64_modules(
        self, process: interfaces.objects.ObjectInterface, address: int, memory: Memory, problems: list[str]
    ) -> tuple[Module, ...] | None:
        if self._wow64 is None:
            return None
        try:
            peb32 = self._wow64.peb32(address)
        except MemoryUnreadable:
            problems.append("32-bit PEB cannot be found")
            return None
        if not peb32:
            return None
        loaded = self._wow64.loader.read(memory, peb32)
        if loaded.problem:
            problems.append(f"32-bit side: {loaded.problem}")
        if loaded.nameless:
            return loaded.named_by(modules_from_vads(process, problems.append))
        return self._named(process, loaded.modules, OF_WIN32, memory, problems)

    @staticmethod
    def _named(
        process: interfaces.objects.ObjectInterface,
        modules: tuple[Module, ...],
        expected: frozenset[str],
        memory: Memory,
        problems: list[str],
    ) -> tuple[Module, ...]:
        """Return `modules` with the right names of system DLLs; add to `problems` if a name was wrong."""
        named, problem = with_system_names(modules, expected, lambda: modules_from_vads(process, problems.append))
        named, other = with_own_names(named, memory)
        problems += filter(None, (problem, other))
        return named

    def _with_files(self, pages: ResolvedPages, memory: Memory, modules: Iterable[Module]) -> Memory:
        """Return a memory in which the image files at hand supply the pages of `modules` that the dump lacks.

        Without an image path, `memory` itself is returned.
        """
        store = self.machine.sources.image_store
        if store is None:
            return memory
        pages.use_image_files(ImagePages(pages.in_dump, ModuleMap(modules), store))
        return Memory(pages)

    def _tebs32(self, memory: Memory, threads: Iterable[Thread]) -> list[tuple[int, int]]:
        """Return (thread id, address of the 32-bit TEB) of each thread of a WoW64 process that has one."""
        found = ((tid, self._wow64 and self._wow64.teb32(memory, teb)) for tid, teb in _tebs(threads))
        return [(tid, teb) for tid, teb in found if isinstance(teb, int)]

    def _target(
        self,
        arch: Arch,
        memory: Memory,
        modules: Iterable[Module],
        files: MappedFiles,
        regions: CodeRegions,
        *,
        tebs: ThreadsOf,
    ) -> tuple[Target, ManagedCode]:
        """Return a side of a process, and its managed code. `tebs` returns the TEBs of that side."""
        sources = self.machine.sources
        images = ImageMap(memory, ModuleMap(modules), self.machine.images)
        managed = ManagedCode(memory, images, regions, tebs, self._method_indexes)
        other = names_outside_images(files, images, arch, sources.symbols)
        symbols = Symbols(
            images,
            sources.symbols,
            fallback=sources.exports_on_disk,
            name_outside=lambda address: managed.name_outside(address) or other(address),
            compiled=managed,
            at_hand=sources.symbols_at_hand,
        )
        if arch is Arch.X64:
            outside = CodeOutside(images, regions, [managed, x64.DynamicTables(symbols)])
            inverted = x64.InvertedTable(memory, lambda: _inverted_table(symbols))
            x64_unwinder = x64.Unwinder(images, inverted=inverted, outside=outside)
            return Target(arch, memory, images, symbols, x64_unwinder, regions=regions, outside=outside), managed
        meter = Meter()
        outside = CodeOutside(images, regions, [managed])
        frames = FramesOfProcess(managed, sources.frame_data)
        unwinder = x86.Unwinder(images, symbols, frames, meter=meter, outside=outside)
        return Target(arch, memory, images, symbols, unwinder, meter, regions, outside), managed

    def stack(self, process: Process, thread: Thread, side: Side) -> ThreadStack:
        """Return the user-mode stack of `thread` on `side` of `process`, with the registers that the thread has there.

        Raises `NoStack` if there is no stack that can be examined, and MemoryUnreadable if the kernel's stack cannot be
        read.
        """
        if process.is_wow64 and side is Side.X86:
            return self._wow64_stack(process, thread)
        return self._stack_of_teb(process, thread)

    def _stack_of_teb(self, process: Process, thread: Thread) -> ThreadStack:
        bounds = self.threads.stack_bounds(process.memory, thread.teb)
        frame = self.trap_frame(thread)
        no_teb = f"TEB at {thread.teb:#x} is not readable" if thread.teb else "no user-mode stack"
        if bounds is None and not thread.teb:
            raise NoStack(no_teb)
        exception_list = self.threads.exception_list(process.memory, thread.teb)
        is_in_32bit_code = frame is not None and frame.is_32bit_code_on_x64
        missing = "the thread was in 32-bit code" if is_in_32bit_code else _what_is_missing(thread, frame, bounds)
        if frame is not None and not missing and _is_beyond(process.memory, bounds, frame.registers.sp):
            missing = f"the trap frame's registers are not this thread's: stack pointer {frame.registers.sp:#x}"
        if frame is None or missing:
            return _without_registers(bounds, missing, exception_list, no_teb)
        return _stack(process.memory, bounds, frame.registers, exception_list, no_teb)

    def completed(self, thread: Thread, stack: ThreadStack) -> ThreadStack:
        """Return `stack` with all registers that can be found; on x64 the thread's kernel stack is unwound for them."""
        frame = self.trap_frame(thread)
        if stack.registers is None or frame is None or stack.registers != frame.registers:
            return stack
        problems: list[str] = []
        with guarded(problems.append):
            return replace(stack, registers=self.kernel.user_registers(thread, frame))
        return replace(stack, missing=f"registers that the kernel stack may hold are not known: {problems[0]}")

    def trap_frame(self, thread: Thread) -> TrapFrame | None:
        """Return the thread's trap frame, or None. The last result is kept, because each side of a thread needs it."""
        if self._last_trap_frame is None or self._last_trap_frame[0] is not thread:
            self._last_trap_frame = thread, self.threads.trap_frame(thread)
        return self._last_trap_frame[1]

    def _wow64_stack(self, process: Process, thread: Thread) -> ThreadStack:
        if self._wow64 is None:
            message = "not a WoW64 process"
            raise NoStack(message)
        bounds = self._wow64.stack_bounds(process.memory, thread.teb)
        no_teb = f"32-bit TEB of the TEB at {thread.teb:#x} is not readable"
        exception_list = self._wow64.exception_list(process.memory, thread.teb)
        frame = self.trap_frame(thread)
        if frame is not None and frame.is_32bit_code_on_x64:
            known = self.kernel.user_registers(thread, frame)
            gpr = tuple(None if value is None else value & 0xFFFFFFFF for value in known.gpr[:8])
            registers = Registers(known.ip & 0xFFFFFFFF, gpr)
            missing = _what_is_missing(thread, replace(frame, registers=registers), bounds)
            if missing:
                return _without_registers(bounds, missing, exception_list, no_teb)
            return _stack(process.memory, bounds, registers, exception_list, no_teb)
        if frame is None and thread.is_running:
            return _without_registers(bounds, IS_RUNNING, exception_list, no_teb)
        context = self._wow64.cpu_context(process.memory, thread.teb)
        if context is None:
            return _without_registers(bounds, "32-bit registers are not readable", exception_list, no_teb)
        sp = context.registers.sp
        if bounds is not None and not bounds.contains(sp) and not process.memory.is_readable(sp, 4):
            missing = f"32-bit registers of the CPU area are not this thread's: esp {sp:#x}"
            return ThreadStack(bounds, None, missing, exception_list)
        return _stack(process.memory, bounds, context.registers, exception_list, no_teb)


def _tebs(threads: Iterable[Thread]) -> list[tuple[int, int]]:
    return [(thread.tid, thread.teb) for thread in threads if thread.teb]


def _inverted_table(symbols: Symbols) -> int | None:
    """Return the address of ntdll's table of function tables (the inverted function table), or None.

    Since Windows 8.1 its name is an export. Before that only the PDB has it, under another name.
    """
    ntdll = next((image for image in symbols.images if image.module.name.lower() == "ntdll.dll"), None)
    if ntdll is None:
        return None
    names = ("KiUserInvertedFunctionTable", "LdrpInvertedFunctionTable")
    rva = next((rva for name in names if (rva := symbols.rva_of(ntdll, name)) is not None), None)
    return None if rva is None else ntdll.base + rva


def _is_beyond(memory: Memory, bounds: StackBounds | None, sp: int) -> bool:
    """Say whether `sp` is above the stack's base and points to no readable memory, so that it cannot be the thread's.

    A stack pointer outside the bounds in the TEB may be right if the program uses fibers or stacks of its own.
    """
    return bounds is not None and sp > bounds.base and not memory.is_readable(sp)


def _what_is_missing(thread: Thread, frame: TrapFrame | None, bounds: StackBounds | None) -> str:
    """Say why `frame` does not hold the registers of `thread`; empty if it does hold them.

    `bounds` are the bounds of the thread's stack.
    """
    if frame is None:
        return IS_RUNNING if thread.is_running else "trap frame is not readable"
    if not frame.address and (bounds is None or not bounds.contains(frame.registers.sp)):
        return "the registers of its processor are not those of this thread"
    return ""


def _stack(
    memory: Memory, bounds: StackBounds | None, registers: Registers, exception_list: int | None, no_teb: str
) -> ThreadStack:
    """Return the stack with these registers.

    If `bounds` is None, the stack is taken to be the readable memory around the stack pointer. `no_teb` says why the
    TEB gave no bounds. Raises `NoStack` if the memory there is not readable either.
    """
    if bounds is not None:
        return ThreadStack(bounds, registers, exception_list=exception_list)
    around = stack_around(memory, registers.sp)
    if around is None:
        raise NoStack(no_teb)
    return ThreadStack(around, registers, f"{no_teb}: the stack's end is not known", exception_list)


def _without_registers(
    bounds: StackBounds | None, missing: str, exception_list: int | None, no_teb: str
) -> ThreadStack:
    """Return a stack without registers; `missing` says why they are not known. Raises `NoStack` without bounds."""
    if bounds is None:
        raise NoStack(no_teb)
    return ThreadStack(bounds, None, missing, exception_list)
