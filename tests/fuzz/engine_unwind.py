# SPDX-License-Identifier: Apache-2.0
"""Attacks on both unwinders and what they use: generated programs whose code, data and stacks are changed."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz.engine import Attack, Family
from tests.fuzz.engine_images import BASE, exception_directory
from tests.fuzz.ground import Ground, Shot
from tests.fuzz.mutate import mutate
from tests.unwind.x64.generated import Program, Shape, build, shapes
from tests.unwind.x86 import machine as x86_machine
from tests.unwind.x86.generate import Writer
from throwstack.core.frames import StackBounds
from throwstack.core.memory import PAGE_SIZE
from throwstack.core.registers import SP, Arch, Registers
from throwstack.core.text import escape
from throwstack.images.image import ImageMap
from throwstack.images.modules import Module, ModuleMap
from throwstack.names.frame_names import names_of
from throwstack.names.frame_records import FrameData
from throwstack.names.symbols import Symbols
from throwstack.unwind import x64, x86
from throwstack.unwind.after_call import call_targets, is_after_call
from throwstack.unwind.x86.call_frame import Place
from throwstack.unwind.x86.frame_data import callers, run_program
from throwstack.unwind.x86.unwinder import registration_chain

_STACK = StackBounds(0x200000, 0x210000)


def _programs(count: int) -> list[Program]:
    made: list[Program] = []

    @seed(1)
    @settings(max_examples=count, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(st.lists(shapes, min_size=2, max_size=4))
    def collect(functions: list[Shape]) -> None:
        made.append(build(functions, BASE))

    collect()
    return made


def _x64_walks() -> Attack:
    scenes = []
    for program in _programs(24):
        rng = random.Random(len(program.image))
        returns = [BASE + to for to in program.calls.values()]
        words = [rng.choice([*returns, 0, _STACK.base - 0x100 - rng.randrange(0x800) // 8 * 8]) for _ in range(0x400)]
        ground = Ground([(BASE, program.image), (_STACK.base - 0x2000, struct.pack("<1024Q", *words))])
        module = Module("made.exe", "", BASE, len(program.image))
        table, size = exception_directory(program.image)
        ground.aim(BASE + 0x80, 0x120)
        ground.aim(BASE + table, size)
        ground.aim(BASE + int.from_bytes(program.image[table + 8 : table + 12], "little"), 0x200)
        ground.aim(BASE + 0x1000, 0x400)
        ground.aim(_STACK.base - 0x1000, 0x1000)
        ground.aim(_STACK.base - 0x1000, 0x200)
        ground.values = [*returns, _STACK.base, _STACK.limit, _STACK.base - 0x800]
        scenes.append((ground, module, [*returns, BASE + program.entry]))

    def attack(rng: random.Random, shot: Shot) -> Iterator[str]:
        ground, module, places = rng.choice(scenes)
        memory = ground.mutate(rng, shot)
        images = ImageMap(memory, ModuleMap([module]))
        symbols = Symbols(images)
        gpr = [rng.choice((None, 0, _STACK.base - 0x80, rng.getrandbits(64))) for _ in range(16)]
        gpr[SP] = _STACK.base - 0x1000 + rng.randrange(0x180) * 8 + rng.choice((0, 0, 0, 1))
        ip = rng.choice(places) + rng.choice((0, 0, 1, 5, -1))
        shot.changes.append(f"rip {ip:#x}, registers {gpr}")
        found = x64.Unwinder(images).walk(Registers(ip, tuple(gpr)), _STACK)
        yield escape(found.detail)
        for frame in found.frames[:8]:
            yield escape(frame.note)
            yield from (escape(str(name)) for name in names_of(symbols, frame))

    return attack


def _x86_walks() -> Attack:
    scenes = []
    low, high = x86_machine.STACK_LIMIT, x86_machine.STACK_BASE
    for number in range(16):
        program = Writer(random.Random(number), 5).program()
        rng = random.Random(number)
        places = list(program.labels.values())
        exported = {name: at for name, at in program.labels.items() if name in {"main", "f0", "f3"}}
        words = [
            rng.choice(
                (*(at + rng.randrange(64) for at in places), high - rng.randrange(0x800) // 4 * 4, 0, 0xFFFFFFFF)
            )
            for _ in range(0x400)
        ]
        ground = Ground(
            [
                (x86_machine.BASE, x86_machine.header_page()),
                (x86_machine.TEXT, program.code),
                (x86_machine.DATA, program.data),
                (x86_machine.EXPORTS, x86_machine.export_page(exported)),
                (high - PAGE_SIZE, struct.pack("<1024I", *words)),
            ]
        )
        ground.aim(x86_machine.TEXT, min(len(program.code), 0x1000))
        ground.aim(x86_machine.TEXT, min(len(program.code), 0x1000))
        ground.aim(x86_machine.BASE + 0x40, 0x180)
        ground.aim(x86_machine.EXPORTS, 0x100)
        ground.aim(high - 0x400, 0x400)
        ground.values = [*places, high, low, high - 0x100]
        scenes.append((ground, places, program.labels, program.records))

    def attack(rng: random.Random, shot: Shot) -> Iterator[str]:
        ground, places, labels, records = rng.choice(scenes)
        memory = ground.mutate(rng, shot)
        images = x86_machine.images_of(memory)
        symbols = x86_machine.symbols_of(images, labels if rng.random() < 0.5 else None)
        given_records = x86_machine.Records(_changed(rng, records)) if rng.random() < 0.5 else None
        gpr = [rng.choice((None, 0, high - 0x100, rng.getrandbits(32))) for _ in range(8)]
        gpr[SP] = high - 0x400 + rng.randrange(0x80) * 4 + rng.choice((0, 0, 0, 1))
        ip = rng.choice(places) + rng.choice((0, 1, 5, 20, -1))
        stack = StackBounds(low, high)
        shot.changes.append(f"eip {ip:#x}, registers {gpr}")
        found = x86.Unwinder(images, symbols, given_records).walk(
            Registers(ip & 0xFFFFFFFF, tuple(gpr)), stack, seh_head=rng.choice((None, high - 0x80, high, 0xFFFFFFFF))
        )
        assert len(found.frames) <= 1025
        registration_chain(memory, rng.choice((None, high - 0x80)), stack)
        yield escape(found.detail)
        for frame in found.frames[:8]:
            yield escape(frame.note)
            yield from (escape(str(name)) for name in names_of(symbols, frame))

    return attack


def _changed(rng: random.Random, records: list[FrameData]) -> list[FrameData]:
    made = []
    for record in records:
        sizes = [record.prologue_size, record.parameters_size, record.saved_registers_size, record.locals_size]
        if rng.random() < 0.3:
            sizes[rng.randrange(4)] = rng.choice((0, 4, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, 3))
        program = record.program
        if rng.random() < 0.4:
            program = mutate(rng, program.encode()).decode("utf-8", "replace")
        made.append(FrameData(record.rva, record.size, *sizes, program, record.uses_base_pointer))
    return made


_TOKENS = (
    *("$eip", "$esp", "$ebp", "$ebx", "$T0", "$T1", ".raSearch", ".raSearchStart", ".cbLocals", ".cbParams", "^", "="),
    *("+", "-", "*", "/", "%", "@", "4", "0", "-1", "4294967295"),
)


def _programs_of_frame_data() -> Attack:
    seed_text = "$T0 .raSearch = $eip $T0 ^ = $esp $T0 4 + = $ebp $T0 16 - ^ ="
    ground = Ground([(0x2000, struct.pack("<64I", *(0x2000 + 4 * n for n in range(64))))])

    def attack(rng: random.Random, shot: Shot) -> Iterator[str]:
        memory = ground.mutate(rng, shot, [(0x2000, 0x100)])
        program = seed_text
        if rng.random() < 0.5:
            words = program.split()
            for _ in range(rng.randrange(1, 8)):
                words.insert(rng.randrange(len(words) + 1), rng.choice(_TOKENS))
            program = " ".join(words * rng.choice((1, 1, 1, 100)))
        else:
            program = mutate(rng, program.encode()).decode("utf-8", "replace")
        shot.changes.append(f"program {program[:400]!a}")
        run_program(program, {"$ebp": 0x2040, "$esp": 0x2010, ".raSearch": 0x2020}, memory)
        sizes = [rng.choice((0, 4, 8, 0x40, 0x7FFFFFFF, 0xFFFFFFFF)) for _ in range(4)]
        record = FrameData(0, 0x1000, *sizes, rng.choice(("", program)), rng.random() < 0.5)
        gpr = tuple(rng.choice((None, 0x2040, 0, 0xFFFFFFFC)) for _ in range(8))
        place = Place(Registers(0x400000, (*gpr[:SP], rng.choice((0x2010, 0xFFFFFFF0)), *gpr[SP + 1 :])))
        for found in callers(record, place, rng.choice((0, 4, 0xFFFFFFFF)), memory, rng.choice((None, 0, 8))):
            yield escape(str(found))

    return attack


def _call_sites() -> Attack:
    code = bytes.fromhex("e800000000ff1500104000ffd0ff5508ff90000100004155415441ff5500ff542410f3c3")
    ground = Ground([(0x1000, (code * 128)[:0x1000]), (0x2000, code)])
    ground.aim(0x1000, 0x1000)

    def attack(rng: random.Random, shot: Shot) -> Iterator[str]:
        memory = ground.mutate(rng, shot)
        for _ in range(16):
            address = rng.choice((0x1000, 0x2000, 0x2003, 5, (1 << 64) - 1, 0x1000 + rng.randrange(0x1010)))
            x64_found = is_after_call(memory, address)
            gpr = [rng.choice((None, 0x1000, (1 << 64) - 8)) for _ in Arch.X64.register_names]
            gpr[SP] = 0x1000  # a frame always has one
            call_targets(memory, address, Registers(address, tuple(gpr)))
            yield str(x64_found)

    return attack


FAMILIES = [
    Family("x64 walks", _x64_walks, 1),
    Family("x86 walks", _x86_walks, 0.4),
    Family("frame data programs", _programs_of_frame_data, 3),
    Family("call sites", _call_sites, 1),
]
