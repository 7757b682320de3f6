# SPDX-License-Identifier: Apache-2.0
"""The losses that are laid over one process, one at a time.

A page is lost if the survey of the whole process reads it: no other page can change what the survey says. The return
slots and frame pointers are those of the thread's stacks as they are walked when nothing is lost. They say where damage
is done, and nothing of what has to be found: that is the truth's.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum

from tests.recall.overlay import Overlay, with_word
from tests.recall.subjects import Subject
from throwstack.core.frames import Frame
from throwstack.core.memory import PAGE_SIZE
from throwstack.core.registers import Arch, Registers
from throwstack.core.sides import Side
from throwstack.images.image import Image
from throwstack.stuck.stuck_thread import StuckThread
from throwstack.unwind.target import Target
from throwstack.volatility.processes import Process
from throwstack.volatility.survey import Finding

_EIP, _EBP = 0xB8, 0xB4
"""Offsets in a 32-bit CONTEXT."""
_FREE = {Arch.X64: 0x1_5000_0000, Arch.X86: 0x6FF0_0000}
"""Where a page of private code is put: the first free page from there on."""


class Kind(Enum):
    """What is lost."""

    STACK = "page of its stack"
    TEB = "page of its TEB"
    STACK_AND_TEB = "pages of its stack and its TEB"
    OWN_STACK = "page of a stack that its TEB does not name"
    LOADER = "page of loader data"
    HEADERS = "page of headers"
    EXPORTS = "page of exports"
    UNWIND = "page of unwind data"
    CODE = "page of code"
    DATA = "page of other image data"
    NAME = "name of a module on its stack"
    STUB = "innermost frame in private memory"
    ZERO = "return slot of zeros"
    JUNK = "return slot of junk"

    @property
    def is_of_thread(self) -> bool:
        """Say whether the loss is one thread's, so that a warning has to name that thread."""
        return self in _OF_THREADS


_OF_THREADS = frozenset({Kind.STACK, Kind.TEB, Kind.STACK_AND_TEB, Kind.OWN_STACK, Kind.STUB, Kind.ZERO, Kind.JUNK})


@dataclass(frozen=True)
class Loss:
    """One loss in process `pid`; `tid` is the thread that it is about, or None for what threads share.

    `pages` are changed pages by address, None for one that is gone. `registers` are those that the thread has instead
    of its own where the kernel keeps them, as (instruction pointer, frame pointer).
    """

    kind: Kind
    what: str
    pid: int
    tid: int | None
    pages: dict[int, bytes | None] = field(default_factory=dict)
    registers: tuple[int, int] | None = None


def losses(subject: Subject, overlay: Overlay, pid: int, rows: dict[int, Finding]) -> Iterator[Loss]:
    """Yield the losses of a process; `rows` are what its survey yields when nothing is lost."""
    process = subject.process(pid)
    assert process is not None
    tids = {one.tid for one in subject.stuck if one.pid == pid}
    pages = list(_pages(subject, overlay, process, tids))
    yield from pages
    yield from _pairs(pages)
    yield from _names(overlay, process, rows)
    for tid, finding in sorted(rows.items()):
        if tid in tids:
            yield from _own_stacks(subject, process, finding)
            yield from _slots(process, finding)
            yield from _stubs(subject, process, finding)


# Pages


def _pages(subject: Subject, overlay: Overlay, process: Process, tids: set[int]) -> Iterator[Loss]:
    private = list(_private_ranges(subject, process))
    images = [image for target in process.sides.values() for image in target.images]
    for page in sorted(overlay.read):
        owner = next(((tid, kind) for low, high, tid, kind in private if low <= page < high), None)
        image = next((image for image in images if image.module.contains(page)), None)
        if owner is not None:
            if owner[0] in tids:
                yield Loss(owner[1], f"{page:#x}", process.pid, owner[0], {page: None})
        elif image is not None:
            kind = _part(image, page - image.base)
            yield Loss(kind, f"{image.module.name}+{page - image.base:#x}", process.pid, None, {page: None})
        else:
            yield Loss(Kind.LOADER, f"{page:#x}", process.pid, None, {page: None})


def _private_ranges(subject: Subject, process: Process) -> Iterator[tuple[int, int, int, Kind]]:
    """Yield (first address, end, TID, kind) of the threads' stacks and TEBs."""
    reader = subject.reader
    for thread in process.threads:
        for side in process.sides:
            try:
                bounds = reader.stack(process, thread, side).bounds
            except Exception:  # noqa: BLE001 - a thread without a stack has no page of one
                continue
            yield bounds.limit, bounds.base, thread.tid, Kind.STACK
        if thread.teb:
            size = 4 * PAGE_SIZE if process.is_wow64 else 2 * PAGE_SIZE if subject.machine.is_64bit else PAGE_SIZE
            yield thread.teb & -PAGE_SIZE, (thread.teb & -PAGE_SIZE) + size, thread.tid, Kind.TEB


def _pairs(found: list[Loss]) -> Iterator[Loss]:
    """Yield the losses of a page of a thread's stack together with one of its TEB."""
    for stack in found:
        for teb in found:
            if (stack.kind, teb.kind, teb.tid) == (Kind.STACK, Kind.TEB, stack.tid):
                pages = {**stack.pages, **teb.pages}
                yield Loss(Kind.STACK_AND_TEB, f"{stack.what} and {teb.what}", stack.pid, stack.tid, pages)


def _own_stacks(subject: Subject, process: Process, finding: Finding) -> Iterator[Loss]:
    """Yield the losses of a page of a thread's stack where the TEB has the bounds of another stack, as with fibers."""
    stack, memory, thread, wow64 = finding.stuck.stack, finding.target.memory, finding.thread, subject.reader._wow64
    teb = thread.teb
    if process.is_wow64 and finding.side is Side.X86:
        teb = (None if wow64 is None else wow64.teb32(memory, teb)) or 0
    if stack.registers is None or not teb:
        return
    size, base = finding.target.arch.pointer_size, stack.bounds.base + 0x200000
    named = b"".join(word.to_bytes(size, "little") for word in (base, base - 0x100000))
    for page in range(stack.registers.sp & -PAGE_SIZE, stack.bounds.base, PAGE_SIZE):
        pages: dict[int, bytes | None] = {}
        with_word(pages, memory.page, teb + size, named)
        yield Loss(Kind.OWN_STACK, f"{page:#x}", process.pid, thread.tid, {**pages, page: None})


def _part(image: Image, rva: int) -> Kind:
    headers = image.headers
    if headers is None or rva == 0:
        return Kind.HEADERS
    for (start, size), kind in ((headers.export_directory, Kind.EXPORTS), (headers.exception_directory, Kind.UNWIND)):
        if size and start - start % PAGE_SIZE <= rva < start + size:
            return kind
    section = headers.section_at(rva)
    return Kind.CODE if section is not None and section.is_executable else Kind.DATA


def _names(overlay: Overlay, process: Process, rows: dict[int, Finding]) -> Iterator[Loss]:
    """Yield the losses in which the loader calls a module of the blocked stacks by a name with one bit flipped."""
    modules = {
        image.module
        for finding in rows.values()
        for frame in (() if finding.stuck.blocked_walk is None else finding.stuck.blocked_walk.frames)
        if (image := finding.target.images.find(frame.ip)) is not None
    }
    for module in sorted(modules, key=lambda module: module.base):
        text = module.name.encode("utf-16-le")
        pages: dict[int, bytes | None] = {}
        for page in overlay.read:
            data = process.memory.page(page) or b""
            at = data.find(text)
            while at >= 0:
                with_word(pages, process.memory.page, page + at, bytes([text[0] ^ 4]))
                at = data.find(text, at + 1)
        yield Loss(Kind.NAME, f"{module.name} at {module.base:#x}", process.pid, None, pages)


# Return slots


def _slots(process: Process, finding: Finding) -> Iterator[Loss]:
    target, tid = finding.target, finding.thread.tid
    size = target.arch.pointer_size
    rng = random.Random(f"{process.pid} {tid}")
    for slot in _return_slots(finding.stuck):
        for kind, word in ((Kind.ZERO, 0), (Kind.JUNK, rng.getrandbits(8 * size))):
            pages: dict[int, bytes | None] = {}
            with_word(pages, target.memory.page, slot, word.to_bytes(size, "little"))
            yield Loss(kind, f"{slot:#x}", process.pid, tid, pages)


def _return_slots(stuck: StuckThread) -> list[int]:
    walks = [*stuck.throwing_walks, *([] if stuck.blocked_walk is None else [stuck.blocked_walk])]
    slots = {frame.return_slot for walk in walks for frame in walk.frames}
    return sorted(slot for slot in slots if slot is not None and stuck.stack.bounds.contains(slot))


# The innermost frame


def _stubs(subject: Subject, process: Process, finding: Finding) -> Iterator[Loss]:
    """Yield the losses in which the innermost frame's code is a copy in private memory."""
    stuck, target = finding.stuck, finding.target
    if stuck.blocked_walk is None or stuck.stack.registers is None:
        return
    ip = stuck.stack.registers.ip
    code = target.memory.page(ip & -PAGE_SIZE)
    if code is None:
        return
    private = _free_page(target)
    new_ip = private + ip % PAGE_SIZE
    for frame_pointer in (0, *_frame_pointers(stuck.blocked_walk.frames, target.arch.pointer_size)):
        loss = Loss(Kind.STUB, f"frame pointer {frame_pointer:#x}", process.pid, finding.thread.tid, {private: code})
        area = _cpu_area(subject, process, finding)
        if area is None:
            yield replace(loss, registers=(new_ip, frame_pointer))
            continue
        for offset, value in ((_EIP, new_ip), (_EBP, frame_pointer)):
            with_word(loss.pages, target.memory.page, area + offset, value.to_bytes(4, "little"))
        yield loss


def _frame_pointers(frames: tuple[Frame, ...], size: int) -> list[int]:
    """Return what the frame pointer would be in each frame that keeps one."""
    return sorted({frame.return_slot - size for frame in frames[1:] if frame.return_slot})


def _free_page(target: Target) -> int:
    page = _FREE[target.arch]
    while target.images.find(page) is not None or target.memory.page(page) is not None:
        page += PAGE_SIZE
    return page


def _cpu_area(subject: Subject, process: Process, finding: Finding) -> int | None:
    """Return the address of the CONTEXT that holds a WoW64 thread's 32-bit registers; None if none does."""
    wow64 = subject.reader._wow64
    if not process.is_wow64 or finding.side is not Side.X86 or wow64 is None:
        return None
    context = wow64.cpu_context(process.memory, finding.thread.teb)
    return None if context is None else context.address


def changed(registers: Registers, loss: Loss, arch: Arch) -> Registers:
    """Return a thread's registers with those of the loss."""
    assert loss.registers is not None
    ip, frame_pointer = loss.registers
    gpr = list(registers.gpr)
    gpr[arch.register_names.index("rbp" if arch is Arch.X64 else "ebp")] = frame_pointer
    return replace(registers, ip=ip, gpr=tuple(gpr))
