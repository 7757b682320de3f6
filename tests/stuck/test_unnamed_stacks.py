# SPDX-License-Identifier: Apache-2.0
"""Threads on stacks that no TEB names: a lost page ends such a stack, and no word is left that makes a suspect."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from tests.support.targets import make_target
from tests.support.triage_stacks import IN_A_SLEEP, IN_WAIT, KERNEL32, SYMBOLS, WAITING, registers
from throwstack.core.frames import End, StackBounds, Trust, Walk
from throwstack.core.memory import PAGE_SIZE
from throwstack.core.regions import Region, RegionKind
from throwstack.core.registers import Arch
from throwstack.stuck.triage import UNREAD_STACK, Triage
from throwstack.unwind.target import ThreadStack, may_go_on, stack_around

OWN, OF_TEB = 0x02000000, StackBounds(0x03000000, 0x03010000)
GUESSED = replace(IN_A_SLEEP, trust=Trust.SCAN)
ENDED = Walk((WAITING, replace(IN_A_SLEEP, trust=Trust.PROLOGUE)), End.NO_RETURN_ADDRESS)


@dataclass
class OneRegion:
    """A process with the region from `OWN` to `end`."""

    end: int

    def find(self, address: int) -> Region | None:
        return Region(OWN, self.end, RegionKind.PRIVATE, False) if OWN <= address < self.end else None


def doubts(walk: Walk, *, arch: Arch = Arch.X86, pages: int = 1, region: int | None = 4) -> tuple[str, ...]:
    """Examine a thread with the first `pages` pages of its own stack; its region has `region` pages, if it is known."""
    memory = {OWN: bytes(pages * PAGE_SIZE), OF_TEB.limit: bytes(0x10000)}
    target = make_target(arch, [KERNEL32], memory, SYMBOLS, walk)
    target = replace(target, regions=None if region is None else OneRegion(OWN + region * PAGE_SIZE))
    found = Triage(target).examine(ThreadStack(OF_TEB, registers(IN_WAIT, OWN + 0x10)))
    assert found.stuck is None
    return found.doubts


@pytest.mark.parametrize("end", [End.NO_RETURN_ADDRESS, End.STACK_BOUND, End.UNREADABLE, End.LOST_RETURN_ADDRESS])
@pytest.mark.parametrize("region", [4, 2, None])
def test_stack_that_ends_before_its_region_and_its_walk_is_a_doubt(region: int | None, end: End):
    assert doubts(replace(ENDED, end=end), region=region) == (UNREAD_STACK,)


def test_stack_that_is_whole_is_none():
    assert doubts(ENDED, pages=4) == ()


@pytest.mark.parametrize("region", [4, None])
def test_walk_to_the_start_of_a_thread_or_fiber_is_none(region: int | None):
    """The stack is a part of a larger region: of what comes after it not all was written."""
    assert doubts(replace(ENDED, end=End.THREAD_START), region=region) == ()


def test_walk_to_the_start_by_a_guess_is_one():
    assert doubts(Walk((WAITING, GUESSED), End.THREAD_START)) == (UNREAD_STACK,)


@pytest.mark.parametrize("end", [End.BAD_RETURN_ADDRESS, End.LOST_RETURN_ADDRESS])
def test_word_that_is_no_return_address_ends_a_stack_on_x64(end: End):
    """The first function of a goroutine has such a word as its return address; unwind data says where it is."""
    assert doubts(replace(ENDED, end=end), arch=Arch.X64) == ()
    assert doubts(Walk((WAITING, GUESSED), end), arch=Arch.X64) == (UNREAD_STACK,)
    assert doubts(ENDED, arch=Arch.X64) == (UNREAD_STACK,)


@pytest.mark.parametrize(("pages", "expected"), [(255, True), (256, False), (300, False)])
def test_a_mebibyte_is_looked_at_whatever_comes_after_it(pages: int, expected: bool):
    target = make_target(Arch.X86, [], {OWN: bytes(pages * PAGE_SIZE)}, {}, ENDED)
    bounds = stack_around(target.memory, OWN)
    assert bounds is not None
    assert may_go_on(target, bounds) is expected
    assert not may_go_on(target, replace(bounds, is_recorded=True))
