# SPDX-License-Identifier: Apache-2.0
"""A stack without a word of interest is walked: the word may have been overwritten. One like an earlier one is not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.forge.stacks import Stack
from tests.support.targets import with_budget
from tests.support.triage_stacks import BASE, IN_SLEEP, IN_WAIT, LIMIT, SP, frame, stack_of, target_of
from throwstack.core.frames import End, StackBounds, Trust, Walk
from throwstack.core.registers import Arch, Registers
from throwstack.stuck.overwritten import SoundStacks
from throwstack.stuck.triage import Examination, Triage
from throwstack.unwind.target import Target
from throwstack.unwind.thread_start import led_nowhere, overwritten

SLOT = SP + 0x14
FRAMES = frame(IN_WAIT, SP, SP + 0x10), frame(IN_SLEEP, SP + 0x20, SP + 0x40)
SOUND = Walk(FRAMES, End.THREAD_START)
BROKEN = Walk(FRAMES, End.LOST_RETURN_ADDRESS, overwritten(SLOT, 0x41414141))


class Counted:
    """An unwinder that gives one walk, and counts how often it is asked."""

    def __init__(self, walk: Walk) -> None:
        self.answer, self.count = walk, 0

    def walk(self, registers: Registers, stack: StackBounds, *, trust: Trust = Trust.CONTEXT) -> Walk:
        self.count += 1
        return self.answer


def sleeping(walk: Walk, *, by: int = 0, word: int = IN_SLEEP) -> tuple[Target, Counted]:
    """Return a process with a thread that waits at `SP + by`, and its unwinder."""
    stack, unwinder = Stack(LIMIT, BASE), Counted(walk)
    stack.at(SLOT + by).d32(word)
    return replace(target_of({LIMIT: stack.data()}), unwinder=unwinder), unwinder


def test_an_overwritten_return_address_is_a_doubt_although_no_word_makes_the_thread_a_suspect():
    target, _ = sleeping(BROKEN)
    assert not Triage(target).look_at(stack_of()).is_suspect
    doubt = f"the walk of the blocked stack ended early: a return address was lost: {BROKEN.detail}"
    assert Triage(target).examine(stack_of()) == Examination(None, (doubt,))


def test_so_is_one_that_the_walk_went_over_before_it_ended_for_another_reason():
    """The caller that was taken in its place is a guess, of which a register is not known."""
    target, _ = sleeping(Walk(FRAMES, End.UNKNOWN_REGISTER, "rbp", overwritten(SLOT)))
    doubt = f"the walk of the blocked stack has a gap: {overwritten(SLOT)}"
    assert Triage(target).examine(stack_of()) == Examination(None, (doubt,))


def test_a_walk_over_a_gap_to_a_base_with_an_odd_word_is_not_sound():
    """Wine starts threads of WoW64 as if 0xc had called. Further in, a return address was overwritten."""
    frames = *FRAMES, frame(IN_SLEEP, BASE - 0x80, BASE - 0x40)
    ending = End.LOST_RETURN_ADDRESS, overwritten(frames[-1].return_slot)
    assert Triage(sleeping(Walk(frames, *ending))[0]).examine(stack_of()).doubts == ()
    assert Triage(sleeping(Walk(frames, *ending, overwritten(SLOT)))[0]).examine(stack_of()).doubts


@pytest.mark.parametrize(
    ("end", "detail"),
    [
        (End.LOST_RETURN_ADDRESS, led_nowhere(0)),
        (End.LOST_RETURN_ADDRESS, "frames may be missing: no unwind data"),
        (End.UNREADABLE, "0x1000"),
        (End.NO_RETURN_ADDRESS, ""),
    ],
)
def test_a_walk_that_ends_as_on_sound_memory_is_no_doubt(end: End, detail: str):
    target, _ = sleeping(Walk(FRAMES, end, detail))
    assert Triage(target).examine(stack_of()) == Examination(None)


def test_a_stack_as_sound_as_one_of_another_process_is_not_walked():
    sound = SoundStacks()
    first, asked = sleeping(SOUND)
    Triage(first, sound=sound).examine(stack_of())
    assert asked.count == 1
    second, asked = sleeping(BROKEN, by=0x800)
    assert Triage(second, sound=sound).examine(stack_of(sp=SP + 0x800)) == Examination(None)
    assert asked.count == 0


@pytest.mark.parametrize(("by", "word"), [(0, 0), (0, IN_SLEEP + 4), (4, IN_SLEEP), (0x2000, IN_SLEEP)])
def test_a_stack_with_another_word_in_place_of_a_return_address_or_of_another_length_is_walked(by: int, word: int):
    sound = SoundStacks()
    Triage(sleeping(SOUND)[0], sound=sound).examine(stack_of())
    target, asked = sleeping(BROKEN, by=by, word=word)
    at = by if by > 4 else 0
    assert Triage(target, sound=sound).examine(stack_of(sp=SP + at)).doubts
    assert asked.count == 1


def test_a_process_of_many_different_stacks_is_said_to_be_examined_in_part():
    target, asked = sleeping(BROKEN)
    found = Triage(with_budget(target, probes=0)).examine(stack_of())
    assert found.doubts == ("the budget of 0 units for a thread is spent",)
    assert asked.count == 0


@pytest.mark.parametrize(("returns_to", "is_walked"), [(IN_SLEEP, False), (0, True), (0x41414141, True)])
def test_an_x86_stack_with_a_whole_chain_of_ebp_is_not_walked(returns_to: int, is_walked: bool):
    stack, unwinder = Stack(LIMIT, BASE), Counted(BROKEN)
    stack.at(SP + 0x40).d32(BASE - 0x40, returns_to)
    stack.at(BASE - 0x40).d32(0, 0)
    target = replace(target_of({LIMIT: stack.data()}), unwinder=unwinder)
    registers = Registers.named(Arch.X86, {"eip": IN_WAIT, "esp": SP, "ebp": SP + 0x40})
    Triage(target).examine(replace(stack_of(), registers=registers))
    assert unwinder.count == is_walked
