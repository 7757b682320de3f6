# SPDX-License-Identifier: Apache-2.0
"""What triage may cost: stacks full of words that look right, many copies of a module, budgets that are spent."""

from __future__ import annotations

import struct
import tracemalloc
from dataclasses import replace

import pytest

from tests.support.targets import make_target
from tests.support.triage_stacks import (
    BASE,
    FILTER_EBP,
    IN_FILTER,
    IN_THE_FILTER,
    IN_WAIT,
    KERNEL32,
    LIMIT,
    SP,
    SYMBOLS,
    crashed,
    registers,
    target_of,
    walk,
)
from throwstack.core.budgets import BUDGETS, Budget, Budgets, Meter
from throwstack.core.frames import End, StackBounds, Trust, Walk
from throwstack.core.memory import PAGE_SIZE, Memory, PageSource, memory_of
from throwstack.core.registers import Arch, Registers
from throwstack.stuck.triage import Examination, Triage
from throwstack.unwind.target import Target, ThreadStack

DEEP = 0x10000000
DECOYS = 16 << 20


class OnePage:
    """A stack whose pages from `DEEP` on are one physical page, in front of what `source` has; counts the reads."""

    def __init__(self, source: PageSource, word: int, low: int = DEEP, high: int = DEEP + DECOYS) -> None:
        self.source, self.low, self.high = source, low, high
        self.data = struct.pack("<1024I", *[word] * 1024)
        self.reads = 0

    def page(self, address: int) -> bytes | None:
        if self.low <= address < self.high:
            self.reads += 1
            return self.data
        return self.source.page(address)


class WalksAt:
    """An unwinder that finds nothing but from one word on the stack, and counts the walks."""

    def __init__(self, sp: int, found: Walk) -> None:
        self.sp, self.found, self.walks = sp, found, 0

    def walk(self, registers: Registers, stack: StackBounds, *, trust: Trust = Trust.CONTEXT) -> Walk:
        self.walks += 1
        return self.found if registers.sp == self.sp else Walk((), End.NO_RETURN_ADDRESS)


def aliased(word: int, low: int, high: int, meter: Meter | None = None) -> tuple[Target, OnePage, WalksAt]:
    """The crashed thread's stack, and decoys from `low` to `high`; only a walk from the true word leads anywhere."""
    stack, _ = crashed()
    made = target_of({LIMIT: stack.data()})
    source = OnePage(memory_of({LIMIT: stack.data()}), word, low, high)
    memory, unwinder = Memory(source), WalksAt(FILTER_EBP - 0x2C, walk(IN_THE_FILTER))
    target = replace(made, memory=memory, unwinder=unwinder)
    return (target if meter is None else replace(target, meter=meter)), source, unwinder


@pytest.mark.parametrize("where", ["below", "above"])
def test_the_true_word_is_found_among_millions_that_look_like_it(where: str):
    """All decoys lead into the filter. The true word is the one that a CONTEXT follows."""
    low, high = (LIMIT - DECOYS // 2, LIMIT) if where == "below" else (BASE, BASE + DECOYS // 2)
    target, _, unwinder = aliased(IN_FILTER, low, high)
    given = ThreadStack(StackBounds(min(low, LIMIT), max(high, BASE)), registers(IN_WAIT, min(low, SP)))
    triage = Triage(target)
    stuck = triage.examine(given).stuck
    assert [item.context.address for item in stuck.exceptions] == [0x045BA888]
    assert unwinder.walks <= 1 + BUDGETS.resumed.thread + 2
    assert any("most were left out" in note for note in stuck.notes)


def test_millions_of_decoys_cost_a_bounded_number_of_walks_and_little_memory_and_are_a_doubt():
    target, source, unwinder = aliased(IN_FILTER, DEEP, DEEP + DECOYS)
    triage = Triage(target)
    given = ThreadStack(StackBounds(DEEP, DEEP + DECOYS), registers(IN_WAIT, DEEP))
    tracemalloc.start()
    found = triage.examine(given)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.stuck is None
    assert peak < 4 << 20
    assert unwinder.walks <= 1 + BUDGETS.resumed.thread
    assert source.reads <= 3 * DECOYS // PAGE_SIZE
    assert found.doubts[0].endswith("with words that lead into a blocking function: most were left out")


def test_the_cheap_question_costs_the_same_for_one_copy_of_a_module_and_for_hundreds():
    """Aliased page tables make 500 KERNEL32s of one for the price of a page."""
    copies = [replace(KERNEL32, base=0x20000000 + 0x200000 * index) for index in range(500)]
    reads = []
    for modules in ([KERNEL32], copies):
        made = make_target(Arch.X86, modules, {}, SYMBOLS, walk())
        source = OnePage(memory_of({}), 0x11111111)
        target = replace(made, memory=Memory(source))
        triage = Triage(target)
        given = ThreadStack(StackBounds(DEEP, DEEP + DECOYS), registers(IN_WAIT, DEEP))
        assert triage.examine(given) == Examination(None)
        reads.append(source.reads)
    assert reads == [DECOYS // PAGE_SIZE] * 2


def test_a_stack_is_not_searched_beyond_the_budget_and_that_is_a_doubt():
    """16 MB are in use at most in any real program; what is in the 17th may hide something."""
    size = BUDGETS.stack.thread + PAGE_SIZE
    target, source, _ = aliased(0x11111111, DEEP, DEEP + size)
    triage = Triage(target)
    given = ThreadStack(StackBounds(DEEP, DEEP + size), registers(IN_WAIT, DEEP))
    found = triage.examine(given)
    assert found.stuck is None
    assert source.reads == BUDGETS.stack.thread // PAGE_SIZE
    assert found.doubts == ("the budget of 16,777,216 bytes of stack looked at for a thread is spent",)


def test_a_thread_has_its_share_of_a_budget_that_earlier_threads_have_spent():
    budgets = Budgets(
        stack=Budget("bytes", 4 * PAGE_SIZE, 5 * PAGE_SIZE, 3 * PAGE_SIZE, 64 * PAGE_SIZE),
        resumed=Budget("words", 2, 4, 2, 64),
    )
    target, _, _ = aliased(IN_FILTER, DEEP, DEEP + DECOYS, Meter(budgets))
    triage = Triage(target)
    for _ in range(5):
        decoy = ThreadStack(StackBounds(DEEP, DEEP + DECOYS), registers(IN_WAIT, DEEP))
        found = triage.examine(decoy)
        assert found.stuck is None
        assert found.doubts
    crashed_thread = ThreadStack(StackBounds(LIMIT, BASE), registers(IN_WAIT, FILTER_EBP & -PAGE_SIZE))
    found = triage.examine(crashed_thread)
    assert found.stuck is not None, found.doubts
    assert found.stuck.exceptions
