# SPDX-License-Identifier: Apache-2.0
"""Chooses the memory of a small minidump: what a debugger needs for stacks, and what the exception is about.

In this order, until the budget is spent:

1. of the thread that threw: its stack, from its stack pointer to the base; what the exception consists of
2. TEBs, the PEB, the process's parameters, the loader's list with the names in it
3. the stacks of the other threads
4. the code around each instruction pointer, and around each return address of the stack that threw
5. what registers, and words of the stack that threw, point to

Ranges are clipped to whole pages only where a page is absent. What is absent is left out, and counted.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from throwstack.core.frames import StackBounds
from throwstack.core.memory import PAGE_SIZE, Memory
from throwstack.core.registers import Arch
from throwstack.minidump.dumped import DumpedThread, Span
from throwstack.minidump.loader_data import loader_data

_MAX_BYTES = 64 << 20
_MAX_STACK, _MAX_CRASHED_STACK = 1 << 20, 8 << 20
_CODE = 256
_BEFORE, _AFTER = 256, 768
"""As much before and after a pointer as MiniDumpWithIndirectlyReferencedMemory takes (1 KiB)."""
_WORDS = 64 << 10
"""How many bytes of the stack that threw are searched for pointers."""
_MAX_POINTERS = 4096
_HIGHEST = 1 << 64
_TEB_SIZE = {Arch.X86: 0x1000, Arch.X64: 0x1900}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a small minidump is about.

    `crashed` is the thread whose exception the dump has, None without one; `sps` are stack pointers of it, at the wait
    and at the throw. `code` are addresses in code that stacks lead through. `parts` are ranges that the exception
    consists of. `is_in_image` says whether an address is in a module, whose memory a debugger has from its file.
    """

    arch: Arch
    threads: tuple[DumpedThread, ...]
    peb: int
    crashed: DumpedThread | None = None
    sps: tuple[int, ...] = ()
    code: tuple[int, ...] = ()
    pointers: tuple[int, ...] = ()
    parts: tuple[Span, ...] = ()
    is_in_image: Callable[[int], bool] = lambda _: False


@dataclass(frozen=True, slots=True)
class Picked:
    """The readable ranges that were chosen, ascending and apart from each other.

    `stacks` are, by index of the thread, the readable part of its stack from the stack pointer on. `absent` is how many
    bytes of what was chosen are not readable. `is_cut` says that the budget was spent.
    """

    spans: tuple[Span, ...]
    stacks: dict[int, Span]
    absent: int
    is_cut: bool


def pick(memory: Memory, wanted: Wanted) -> Picked:
    """Choose the memory of a small minidump of the process in `memory`."""
    picker = _Picker(memory)
    for span in _needed(memory, wanted):
        picker.add(span)
    for pointer in _pointers(memory, wanted):
        picker.add_if_readable(Span(pointer - _BEFORE, pointer + _AFTER), pointer)
    spans = tuple(picker.readable())
    parts = ((index, stack_part(memory, thread)) for index, thread in enumerate(wanted.threads))
    stacks = {index: part for index, part in parts if part is not None and _is_within(spans, part)}
    return Picked(spans, stacks, picker.absent, picker.is_cut)


def _needed(memory: Memory, wanted: Wanted) -> Iterator[Span]:
    """Yield the ranges of the first four kinds, the most important first."""
    if wanted.crashed is not None:
        yield from (_stack(memory, wanted.crashed.stack, sp, _MAX_CRASHED_STACK) for sp in wanted.sps)
    yield from wanted.parts
    yield from (Span(one.teb, one.teb + _TEB_SIZE[wanted.arch]) for one in wanted.threads if one.teb)
    yield from loader_data(memory, wanted.peb, wanted.arch)
    yield from filter(None, (_stack_of(memory, thread) for thread in wanted.threads))
    for ip in (*wanted.code, *(thread.registers.ip for thread in wanted.threads if thread.registers)):
        yield Span(ip - _CODE, ip + _CODE)


class _Picker:
    """Collects ranges up to a number of bytes, and says which parts of them are readable."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._spans: list[Span] = []
        self._left = _MAX_BYTES
        self.absent = 0
        self.is_cut = False

    def add(self, span: Span) -> None:
        start, end = max(span.start, PAGE_SIZE), max(span.end, PAGE_SIZE)
        if start >= end:
            return
        if end - start > self._left:
            self.is_cut = True
            return
        self._left -= end - start
        self._spans.append(Span(start, end))

    def add_if_readable(self, span: Span, address: int) -> None:
        if self._memory.page(address & -PAGE_SIZE) is not None:
            self.add(span)

    def readable(self) -> Iterator[Span]:
        """Yield the readable parts of the ranges, merged where they touch; count what is not readable."""
        start = end = 0
        for part in self._pages(merged(self._spans)):
            if part.start == end:
                end = part.end
                continue
            if start < end:
                yield Span(start, end)
            start, end = part
        if start < end:
            yield Span(start, end)

    def _pages(self, spans: Iterable[Span]) -> Iterator[Span]:
        for span in spans:
            at = span.start
            while at < span.end:
                page = at & -PAGE_SIZE
                end = min(page + PAGE_SIZE, span.end)
                if self._memory.page(page) is None:
                    self.absent += end - at
                else:
                    yield Span(at, end)
                at = end


def merged(spans: Iterable[Span]) -> list[Span]:
    """Return ranges in address order, with those that overlap or touch as one."""
    found: list[Span] = []
    for span in sorted(spans):
        if found and span.start <= found[-1].end:
            found[-1] = Span(found[-1].start, max(found[-1].end, span.end))
        else:
            found.append(span)
    return found


def _stack_of(memory: Memory, thread: DumpedThread) -> Span | None:
    """Return the used part of a thread's stack; the end of the stack if its registers are not known."""
    if thread.registers is not None:
        return _stack(memory, thread.stack, thread.registers.sp, _MAX_STACK)
    if thread.stack is None:
        return None
    return Span(max(thread.stack.limit, thread.stack.base - _MAX_STACK), thread.stack.base)


def _stack(memory: Memory, bounds: StackBounds | None, sp: int, limit: int) -> Span:
    """Return the stack from `sp` to its base, at most `limit` bytes.

    Outside its bounds (a fiber's stack, for example), it is the readable memory from `sp` on.
    """
    if bounds is not None and bounds.contains(sp):
        return Span(sp, min(bounds.base, sp + limit))
    return Span(sp, sp + len(memory.read_available(sp, min(limit, _MAX_STACK))))


def stack_part(memory: Memory, thread: DumpedThread) -> Span | None:
    """Return the readable part of a thread's stack, from its stack pointer to the first absent page, or None."""
    span = _stack_of(memory, thread)
    return None if span is None else _readable_part(memory, span)


def _readable_part(memory: Memory, span: Span) -> Span | None:
    """Return the part of `span` before its first absent page; if it begins with absent ones, that after them."""
    start = span.start
    while start < span.end and memory.page(start & -PAGE_SIZE) is None:
        start = (start & -PAGE_SIZE) + PAGE_SIZE
    end = start
    while end < span.end and memory.page(end & -PAGE_SIZE) is not None:
        end = min((end & -PAGE_SIZE) + PAGE_SIZE, span.end)
    return Span(start, end) if start < end else None


def _is_within(spans: tuple[Span, ...], wanted: Span) -> bool:
    index = bisect_right(spans, (wanted.start, _HIGHEST)) - 1
    return index >= 0 and spans[index].start <= wanted.start and wanted.end <= spans[index].end


def _pointers(memory: Memory, wanted: Wanted) -> Iterator[int]:
    """Yield what may point to memory: registers of all threads, then words of the stack that threw; each once."""
    size = wanted.arch.pointer_size
    values = list(wanted.pointers)
    for thread in wanted.threads:
        values += [value for value in (thread.registers.gpr if thread.registers else ()) if value is not None]
    for sp in wanted.sps if wanted.crashed is not None else ():
        stack = _stack(memory, wanted.crashed.stack, sp, _WORDS) if wanted.crashed is not None else Span(0, 0)
        data = memory.read_available(stack.start, stack.end - stack.start)
        count = len(data) // size
        values += struct.unpack_from(f"<{count}{'I' if size == 4 else 'Q'}", data)
    limit = 1 << (32 if wanted.arch is Arch.X86 else 47)
    yielded = 0
    for value in dict.fromkeys(values):
        if 0x10000 <= value < limit and not wanted.is_in_image(value):
            yield value
            yielded += 1
            if yielded == _MAX_POINTERS:
                return
