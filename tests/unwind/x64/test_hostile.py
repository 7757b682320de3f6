# SPDX-License-Identifier: Apache-2.0
"""Whatever the unwind data, the code and the stack hold, a walk ends, with a reason, within its bounds.

A world is drawn from a seed: mostly well-formed pieces put together at random, so that walks get somewhere, with
damage on top.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from random import Random

import pytest

from tests.unwind.x64 import assembler as asm
from tests.unwind.x64.assembler import ImageBuilder
from tests.unwind.x64.scene import BASE, STACK
from throwstack.core.frames import End, StackBounds, Walk
from throwstack.core.memory import Memory, SegmentSource
from throwstack.core.registers import Registers
from throwstack.images.image import ImageMap
from throwstack.images.modules import Module, ModuleMap
from throwstack.unwind.x64 import Unwinder

LIMIT = 64
FUNCTIONS, FUNCTION_SIZE = 8, 0x100
CODE = range(BASE + asm.TEXT, BASE + asm.TEXT + FUNCTIONS * FUNCTION_SIZE)
PIECES = (
    b"\xff\xd0",
    b"\xe8\x00\x00\x00\x00",
    b"\x58",
    b"\x41\x5f",
    b"\xc3",
    b"\x48\xcf",
    b"\xe9\x10\x00\x00\x00",
    b"\x90",
)
JIT = 0x30000000


def word(random: Random) -> int:
    """Return what a stack slot or a register may hold."""
    kinds = (
        lambda: random.choice(CODE),
        lambda: random.choice(CODE),
        lambda: random.randrange(STACK.limit - 16, STACK.base + 16) & -8,
        lambda: random.choice([0, 1, (1 << 64) - 1, 1 << 63, BASE, JIT + 7, JIT + 100, 0x7FFE0000]),
        lambda: random.getrandbits(64),
    )
    return random.choices(kinds, (6, 6, 4, 1, 1))[0]()


def info(random: Random) -> bytes:
    """Return unwind information, well-formed for the most part."""
    if not random.randrange(10):
        return random.randbytes(random.randrange(4, 64))
    kinds = (
        lambda: asm.push_nonvol(random.randrange(8), random.randrange(16)),
        lambda: asm.alloc(random.randrange(8), 8 * random.randrange(1, 40)),
        lambda: asm.alloc(random.randrange(8), 8 * random.randrange(1, 1 << 20)),
        lambda: asm.save_nonvol(random.randrange(8), random.randrange(16), 8 * random.randrange(99)),
        lambda: asm.set_fpreg(random.randrange(8)),
        lambda: asm.push_machframe(random.randrange(8)),
        lambda: random.randbytes(2),
    )
    codes = [random.choices(kinds, (9, 9, 1, 4, 2, 1, 1))[0]() for _ in range(random.randrange(6))]
    version = random.choice([1, 1, 1, 2])
    if version == 2:
        codes.insert(0, asm.epilog(random.randrange(9), [random.randrange(0x100)], is_at_end=random.random() < 0.5))
    entry = asm.TEXT + FUNCTION_SIZE * random.randrange(FUNCTIONS)
    chained = (entry, entry + FUNCTION_SIZE, 0x2000 + 4 * random.randrange(99)) if not random.randrange(6) else None
    register = random.choice([0, 0, 0, 5, 3, 13])
    return asm.unwind_info(codes, 8, version=version, frame_register=register, frame_offset=0x10, chained=chained)


def world(random: Random) -> Unwinder:
    code = b"".join(random.choices(PIECES, k=2 * len(CODE)))[: len(CODE)]
    builder = ImageBuilder(code)
    for index in range(FUNCTIONS):
        begin = asm.TEXT + FUNCTION_SIZE * index
        builder.add(begin, begin + random.choice([FUNCTION_SIZE, FUNCTION_SIZE, 0x80, 0]), info(random))
    image = bytearray(builder.build())
    if not random.randrange(3):
        for _ in range(8):
            image[random.randrange(len(image))] = random.randrange(256)
    stack = b"".join(word(random).to_bytes(8, "little") for _ in range((STACK.base - STACK.limit) // 8))
    if random.randrange(2):
        stack = stack[:0x1000].ljust(len(stack), b"\0")  # the base of a stack, where a return address of 0 is the end
    source = SegmentSource({BASE: image, STACK.limit: stack, JIT: code[:0x200]})
    pages = [*range(BASE, BASE + len(image), 0x1000), *range(STACK.limit, STACK.base, 0x1000)]
    missing = random.choice(pages) if not random.randrange(3) else None

    class Torn:
        def page(self, address: int) -> bytes | None:
            return None if address == missing else source.page(address)

    images = ImageMap(Memory(Torn()), ModuleMap([Module("ntdll.dll", "", BASE, len(image))]))
    return Unwinder(images, frame_limit=LIMIT)


def check(walk: Walk, bounds: StackBounds) -> None:
    assert len(walk.frames) <= LIMIT
    stack_pointers = [frame.sp for frame in walk.frames]
    assert all(inner < outer for inner, outer in pairwise(stack_pointers))
    for frame in walk.frames[1:]:
        assert bounds.contains(frame.sp, 0) or not bounds.contains(stack_pointers[0])
        assert all(value is None or 0 <= value < 1 << 64 for value in frame.registers.gpr)
    assert isinstance(walk.detail, str)


@pytest.mark.parametrize("bounds", [STACK, StackBounds(0x900000, 0x910000)])
def test_a_walk_over_hostile_data_ends_with_a_reason(bounds: StackBounds) -> None:
    random = Random(20)
    ends: Counter[End] = Counter()
    deepest = 0
    for _ in range(200):
        unwinder = world(random)
        for _ in range(5):
            gpr = [word(random) if random.randrange(8) else None for _ in range(16)]
            gpr[4] = random.randrange(STACK.limit, STACK.base - 0x800, 8)
            walk = unwinder.walk(Registers(word(random), tuple(gpr)), bounds)
            check(walk, bounds)
            ends[walk.end] += 1
            deepest = max(deepest, len(walk.frames))
    # The worlds are such that every sort of end is met that x64 has, and long walks too. A fiber's stack has no known
    # bound.
    unmet = {End.FRAME_LIMIT, End.WORK_LIMIT, End.FAULT, *([End.STACK_BOUND] if bounds is not STACK else [])}
    assert set(End) - set(ends) <= unmet
    assert deepest >= 8
