# SPDX-License-Identifier: Apache-2.0
"""Attacks on the way from a thread's stack to a row: triage, dispatch searches, records, contexts, what was thrown.

The processes are those of the forge's cases, as described, without page tables.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tests.exceptions.golden import GOLDEN
from tests.exceptions.layout import BASE, SIZE, Layout
from tests.forge.cases import builders
from tests.forge.describe import Process, Thread
from tests.fuzz.engine import Attack, Family
from tests.fuzz.ground import Ground, Shot
from tests.fuzz.image_parts import image_parts
from tests.support import hostile_stacks as hostile
from throwstack.core.contexts import read_context
from throwstack.core.exception_record import nested_records, read_record
from throwstack.core.frames import End, StackBounds, Walk
from throwstack.core.memory import PAGE_SIZE, Memory, MemoryUnreadable
from throwstack.core.registers import Arch, Registers
from throwstack.core.text import escape
from throwstack.dispatch.search import SearchStart, exceptions_in_flight
from throwstack.exceptions.describe import describe
from throwstack.images.image import ImageMap
from throwstack.images.modules import Module, ModuleMap
from throwstack.names.frame_names import names_of
from throwstack.names.symbols import Symbols
from throwstack.names.unloaded_images import unloaded_dlls
from throwstack.stuck.error_box import box_text
from throwstack.stuck.locks import Locks
from throwstack.stuck.signature import signature
from throwstack.stuck.triage import Triage
from throwstack.unwind import x64, x86
from throwstack.unwind.target import Target, ThreadStack

_CASES = (
    *("ftp-2003", "service-x64", "nested", "decoys-x64", "decoys-x86", "shutdown-hang"),
    *("handlers-x64", "handlers-x86"),
)


@dataclass
class _Stage:
    """A process of a case, and one of its threads."""

    arch: Arch
    ground: Ground
    modules: ModuleMap
    stack: ThreadStack
    tid: int
    hot: list[list[tuple[int, int]]]
    """Ranges by kind: the stack, the records, parts of images."""


def _stages() -> list[_Stage]:
    stages = []
    for name in _CASES:
        case = builders()[name][0]()
        arch = Arch.X64 if case.machine.paging.is_64bit else Arch.X86
        stuck = {(one.pid, one.tid): one for one in case.truth.stuck}
        for process in case.machine.processes:
            picked = [thread for thread in process.threads if (process.pid, thread.tid) in stuck] or process.threads[:1]
            for thread in picked:
                truth = stuck.get((process.pid, thread.tid))
                records = [(truth.record, 0x98), (truth.context, 0x4D0)] if truth else []
                stages.append(_stage(arch, process, thread, records))
    return stages


def _stage(arch: Arch, process: Process, thread: Thread, records: list[tuple[int, int]]) -> _Stage:
    ground = Ground((region.base, region.data) for region in process.regions)
    names = arch.register_names
    ip, sp = (thread.registers.get(name, 0) for name in (("rip", "rsp") if arch is Arch.X64 else ("eip", "esp")))
    gpr = tuple(thread.registers.get(name) for name in names)
    modules = ModuleMap(Module(one.name, one.path, one.base, one.size, one.timestamp) for one in process.modules)
    stack = ThreadStack(StackBounds(thread.stack_limit, thread.stack_base), Registers(ip, gpr))
    ground.values = [ip, sp, thread.stack_base, thread.stack_limit, *(at for at, _ in records)]
    ranges = {"stack": ground.pieces(sp, min(thread.stack_base - sp, 0x4000)), "records": []}
    for at, size in records:
        ranges["records"] += ground.pieces(at, size)
    for region in process.regions:
        for category, rva, size in image_parts(region.data) if region.is_image else ():
            ranges.setdefault(category, []).extend(ground.pieces(region.base + rva, size))
    return _Stage(arch, ground, modules, stack, thread.tid, [part for part in ranges.values() if part])


def _target(arch: Arch, memory: Memory, modules: ModuleMap) -> Target:
    images = ImageMap(memory, modules)
    symbols = Symbols(images)
    unwinder = x64.Unwinder(images) if arch is Arch.X64 else x86.Unwinder(images, symbols)
    return Target(arch, memory, images, symbols, unwinder)


def _threads() -> Attack:
    stages = _stages()

    def attack(rng: random.Random, shot: Shot) -> Iterator[str]:
        stage = rng.choice(stages)
        memory = stage.ground.mutate(rng, shot, rng.choice(stage.hot))
        shot.changes.append(f"thread {stage.tid}")
        target = _target(stage.arch, memory, stage.modules)
        triage = Triage(target, handled=rng.random() < 0.2)
        stack = stage.stack if rng.random() < 0.9 else replace(stage.stack, registers=None, missing="none")
        stack = stack if rng.random() < 0.7 else replace(stack, exception_list=rng.choice(stage.ground.values))
        yield from (escape(label) for labels in triage.missing_names for label in labels)
        examination = triage.examine(stack)
        yield from map(escape, examination.doubts)
        stuck = examination.stuck
        if stuck is None:
            return
        yield escape(", ".join("!".join(pair) for pair in stuck.blocked_in))
        yield from map(escape, stuck.notes)
        walk = stuck.blocked_walk
        yield box_text(target, walk)
        if walk is not None and walk.frames:
            yield escape(str(Locks(target, {stage.tid}).wait(walk.frames, stage.tid)))
        for exception, walk in zip(stuck.exceptions[:2], stuck.throwing_walks, strict=False):
            names = [name for frame in walk.frames[:40] for name in names_of(target.symbols, frame)]
            yield str(signature(names, "x"))
            yield from (escape(str(name)) for name in names)
            text = describe(exception.record, memory, target.images, stage.arch)
            yield text.title
            yield from text.details
            yield f"{exception.found_by} {exception.where}"

    return attack


def _dispatch() -> Attack:
    low, high = hostile.LIMIT, hostile.BASE

    def attack(rng: random.Random, shot: Shot) -> Iterator[str]:
        arch, first, second = rng.choice(list(Arch)), rng.getrandbits(32), rng.getrandbits(32)
        walked = hostile.frames(arch, second)
        ground = Ground([(low, hostile.hostile(arch, first))])
        ground.values = [*hostile.CODE, low, high]
        data = b"".join(ground.mutate(rng, shot).page(at) or bytes(PAGE_SIZE) for at in range(low, high, PAGE_SIZE))
        target = hostile.target_of(arch, data, Walk(walked, End.THREAD_START))
        chain = None
        if arch is Arch.X86 and rng.random() < 0.5:
            chain = [rng.randrange(low, high + 8, 4) for _ in range(rng.randrange(8))]
        shot.changes.append(f"{arch} stack {first}, frames {second}, registrations {chain}")
        blocked = SearchStart(walked, low, rng.random() < 0.5, rng.random() < 0.5, chain)
        found = exceptions_in_flight(target, StackBounds(low, high), blocked)
        hostile.check(target, found)
        yield from map(escape, found.notes)
        yield from (f"{one.found_by} {one.where} {escape(one.disagreement)}" for one in found.exceptions)

    return attack


def _exceptions() -> Attack:
    scenes = []
    for golden in GOLDEN:
        layout = Layout(golden.arch)
        made = golden.build(layout)
        ground = Ground.of(layout.memory(), range(BASE, BASE + SIZE, PAGE_SIZE))
        for at, part in layout._parts:
            ground.aim(at, max(len(layout._bytes(part)), 8))
        ground.pages.setdefault(BASE + 0x1000, bytes(PAGE_SIZE))
        ground.values = [*layout.labels.values(), BASE, BASE + 0x1FFC, *made.parameters]
        scenes.append((golden.arch, made, ground))
    modules = ModuleMap([Module("thrower\x1b.dll", r"c:\app\thrower.dll", BASE, SIZE)])

    def attack(rng: random.Random, shot: Shot) -> Iterator[str]:
        arch, record, ground = rng.choice(scenes)
        memory = ground.mutate(rng, shot)
        parameters = list(record.parameters)
        if rng.random() < 0.3:
            value = rng.choice((*ground.values, 0, 1, (1 << 64) - 1, 0xFFFFFFFF, rng.getrandbits(64)))
            parameters.append(value)
            parameters[rng.randrange(len(parameters))] = value
        if rng.random() < 0.2:
            arch = rng.choice(list(Arch))
        nested = rng.choice((0, 0, *ground.values))
        record = replace(record, parameters=tuple(parameters[:15]), nested=nested)
        shot.changes.append(f"{arch} {record}")
        text = describe(record, memory, ImageMap(memory, modules), arch)
        for shown in (text.title, text.thrown_type, text.message, *text.bases, *text.details):
            assert len(shown) < 40_000
            yield shown

    return attack


def _records_and_contexts() -> Attack:
    frame = struct.pack("<5I", 0xC0000005, 0, 0x2000, 0x401234, 15) + bytes(60)
    frame64 = struct.pack("<IIQQI4x", 0xC0000005, 0, 0x2100, 0x401234, 15) + bytes(120)
    ground = Ground([(0x2000, (frame.ljust(0x100, b"\0") + frame64.ljust(0x100, b"\0")) * 8)])
    ground.aim(0x2000, 0x400)
    ground.values = list(range(0x2000, 0x3000, 0x100))

    def attack(rng: random.Random, shot: Shot) -> Iterator[str]:
        memory = ground.mutate(rng, shot)
        for arch in Arch:
            for address in (0x2000, 0x2100, rng.choice((0x2FF0, 0x3000, (1 << 64) - 16, rng.getrandbits(64)))):
                try:
                    record = read_record(memory, address, arch)
                    assert len(nested_records(memory, record, arch)) < 100
                    context = read_context(memory, address, arch)
                except MemoryUnreadable:
                    continue
                yield f"{record.is_well_formed} {context.has_plausible_flags} {context.has_user_selectors}"

    return attack


def _unloaded() -> Attack:
    case = builders()["ftp-2003"][0]()
    stages = []
    for process in case.machine.processes:
        ground = Ground((region.base, region.data) for region in process.regions)
        ntdll = next((one for one in process.modules if one.name.lower() == "ntdll.dll"), None)
        if ntdll is not None:
            stages.append((ground, Module(ntdll.name, ntdll.path, ntdll.base, ntdll.size)))

    def attack(rng: random.Random, shot: Shot) -> Iterator[str]:
        ground, ntdll = rng.choice(stages)
        data = [(ntdll.base & -PAGE_SIZE, PAGE_SIZE), *ground.pieces(ntdll.base + ntdll.size - 0x3000, 0x3000)]
        images = ImageMap(ground.mutate(rng, shot, [one for one in data if one[0] in ground.pages]), ModuleMap([ntdll]))
        array = rng.choice((None, ntdll.base, ntdll.base + ntdll.size - 0x1000))
        for found in unloaded_dlls(next(iter(images)), Arch.X86, array):
            yield escape(found.name)

    return attack


FAMILIES = [
    Family("threads", _threads, 0.4),
    Family("dispatch searches", _dispatch, 0.3),
    Family("exceptions", _exceptions, 6),
    Family("records and contexts", _records_and_contexts, 2),
    Family("unloaded modules", _unloaded, 1),
]
