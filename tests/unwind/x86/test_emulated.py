# SPDX-License-Identifier: Apache-2.0
"""Generated programs, run in an emulator and unwound before every instruction.

The truth is what the emulator saw each call put on the stack (`emulate`); the frame data is what a compiler would have
written (`generate`).
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unwind.x86.emulate import Activation, Machine
from tests.unwind.x86.generate import Writer
from tests.unwind.x86.machine import STACK_BASE, STACK_LIMIT, Records, images_of, symbols_of
from tests.unwind.x86.program import Program
from throwstack.core.frames import End, StackBounds, Trust, Walk
from throwstack.core.registers import X86
from throwstack.unwind.x86 import Unwinder

SEEDS = st.integers(0, 1 << 32)
STACK = StackBounds(STACK_LIMIT, STACK_BASE)
BETTER_THAN_PROLOGUE = {Trust.CFI, Trust.FPO, Trust.FRAME_POINTER}


@dataclass
class Tally:
    instructions: int = 0
    exact: int = 0
    overrated: int = 0
    """Wrong frames with a label better than `prologue`."""


def first_wrong(walk: Walk, truth: list[Activation], program: Program, ip: int) -> int | None:
    """Return the index of the first frame whose caller is wrong, or None if the walk is exact."""
    in_helper = program.is_helper(ip)
    for index, activation in enumerate(truth):
        if index >= len(walk.frames):
            return index
        frame = walk.frames[index]
        # A helper moves its return address: then only its value can be right or wrong.
        moved = in_helper and index == 0
        if frame.return_address != activation.return_address or (frame.return_slot != activation.slot and not moved):
            return index
        if index + 1 < len(walk.frames) and not moved:
            caller = walk.frames[index + 1].registers
            known = [(caller.gpr[n], activation.gpr[n]) for n in X86.nonvolatile if caller.gpr[n] is not None]
            if any(found != true for found, true in known):
                return index
    return None


def unwind_everywhere(seed: int, *, has_symbols: bool, has_records: bool, limit: int = 700) -> Tally:
    program = Writer(random.Random(seed), 6).program()
    exported = {name: address for name, address in program.labels.items() if name in {"main", "f0", "f3"}}
    machine = Machine(program, exported)
    images = images_of(machine)
    symbols = symbols_of(images, program.labels if has_symbols else None)
    unwinder = Unwinder(images, symbols, Records(program.records) if has_records else None)
    tally = Tally()
    for registers in machine.run(limit):
        for page in [page for page in images.memory._pages if STACK_LIMIT <= page < STACK_BASE]:
            del images.memory._pages[page]
        walk = unwinder.walk(registers, STACK)
        tally.instructions += 1
        wrong = first_wrong(walk, machine.stack[::-1], program, registers.ip)
        if wrong is None:
            tally.exact += 1
            assert walk.end is End.THREAD_START
        elif wrong + 1 < len(walk.frames) and walk.frames[wrong + 1].trust in BETTER_THAN_PROLOGUE:
            tally.overrated += 1
    return tally


@settings(max_examples=8, derandomize=True, deadline=None)
@given(SEEDS)
def test_with_frame_data_every_instruction_is_exact(seed):
    tally = unwind_everywhere(seed, has_symbols=True, has_records=True)
    assert tally.instructions > 20
    assert tally.exact == tally.instructions


@pytest.mark.parametrize("has_symbols", [True, False], ids=["function starts", "exports only"])
def test_without_frame_data_nearly_every_instruction_is_exact(has_symbols):
    total: Counter[str] = Counter()
    for seed in range(10):
        tally = unwind_everywhere(seed, has_symbols=has_symbols, has_records=False)
        total.update(vars(tally))
    assert total["instructions"] > 2000
    assert total["exact"] >= 0.97 * total["instructions"]
    assert total["overrated"] == 0


@settings(max_examples=6, derandomize=True, deadline=None)
@given(SEEDS)
def test_wrong_frame_data_never_makes_the_walk_fail(seed):
    program = Writer(random.Random(seed), 4).program()
    rng = random.Random(seed)
    machine = Machine(program, {})
    images = images_of(machine)
    words = ["$T0", "$eip", "$esp", "$ebp", ".raSearch", ".cbLocals", "^", "=", "+", "-", "*", "/", "%", "@", "4", "0"]
    records = [
        type(record)(
            record.rva,
            record.size,
            rng.randrange(1 << 16),
            rng.randrange(1 << 10) * 4,
            rng.randrange(1 << 10) * 4,
            rng.randrange(1 << 10) * 4,
            " ".join(rng.choices(words, k=rng.randrange(20))),
            uses_base_pointer=rng.random() < 0.5,
        )
        for record in program.records
    ]
    unwinder = Unwinder(images, symbols_of(images, program.labels), Records(records), frame_limit=64)
    for index, registers in enumerate(machine.run(200)):
        if index % 5 == 0:
            images.memory._pages.clear()
            walk = unwinder.walk(registers, STACK)
            assert 1 <= len(walk.frames) <= 64
