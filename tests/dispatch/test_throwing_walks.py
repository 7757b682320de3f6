# SPDX-License-Identifier: Apache-2.0
"""Throwing walks as they are shown: one that a search was refused, and an x86 stack across a dispatcher.

The thread faults at `INNER_IP` while a fault at `OUTER_IP` is being handled. Each exception has a CONTEXT on the stack.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.support.targets import make_target
from throwstack.core.contexts import Context
from throwstack.core.exception_record import ExceptionRecord
from throwstack.core.frames import End, Frame, StackBounds, Trust, Walk
from throwstack.core.registers import Arch, Registers
from throwstack.dispatch.saved_exception import Route, SavedException
from throwstack.dispatch.throwing_walks import throwing_walks
from throwstack.unwind.target import Target

LIMIT, BASE = 0x045B8000, 0x045C0000
INNER_IP, INNER_SP, INNER_CONTEXT = 0x77E4BEE7, 0x045BA400, 0x045BA058
OUTER_IP, OUTER_SP, OUTER_CONTEXT = 0x77E41020, 0x045BD400, 0x045BD058


def registers(ip: int, sp: int) -> Registers:
    return Registers.named(Arch.X86, {"eip": ip, "esp": sp})


def frame(ip: int, sp: int) -> Frame:
    return Frame(registers(ip, sp), sp + 0x10, 0, sp + 0x14, Trust.FRAME_POINTER)


def walk(*frames: Frame, end: End = End.THREAD_START) -> Walk:
    return Walk(frames, end)


def saved(ip: int, sp: int, context: int) -> SavedException:
    record = ExceptionRecord(0xC0000005, 0, ip, 0, (), context - 0x58, 0)
    return SavedException(
        record, Context(Arch.X86, context, 0x1003F, registers(ip, sp), *(0,) * 7), (Route.DISPATCHER,), 0
    )


EXCEPTIONS = (saved(INNER_IP, INNER_SP, INNER_CONTEXT), saved(OUTER_IP, OUTER_SP, OUTER_CONTEXT))
THROWS, INTERRUPTED = frame(INNER_IP, INNER_SP), frame(OUTER_IP, OUTER_SP)


class Walks:
    """An unwinder with one walk for each place it may start from; it notes where it was asked to start."""

    def __init__(self, walks: Mapping[int, Walk]) -> None:
        self.walks, self.starts = walks, list[int]()

    def walk(self, registers: Registers, stack: StackBounds, *, trust: Trust = Trust.CONTEXT) -> Walk:
        self.starts.append(registers.ip)
        return self.walks[registers.ip]


def target_with(unwinder: Walks, arch: Arch = Arch.X86) -> Target:
    made = make_target(arch, [], {}, {}, walk())
    return Target(arch, made.memory, made.images, made.symbols, unwinder)


def shown(inner: Walk, outer: Walk, arch: Arch = Arch.X86) -> tuple[Walk, ...]:
    return throwing_walks(target_with(Walks({}), arch), StackBounds(LIMIT, BASE), EXCEPTIONS, (inner, outer))


def test_a_walk_that_finds_its_way_through_the_dispatcher_is_left_alone():
    own = walk(THROWS, INTERRUPTED, frame(0x79004FAB, 0x045BD800))
    assert shown(own, walk(INTERRUPTED))[0] is own


def test_an_x86_stack_goes_on_after_a_dispatcher_with_the_frame_that_was_interrupted():
    """The dispatcher has no return address. The walk guesses a frame, which is not the one that was interrupted."""
    dispatcher, guessed = frame(0x7C801010, 0x045BD000), frame(0x79004FAB, 0x045BD800)
    start = frame(0x77E42000, 0x045BD900)
    whole, _ = shown(walk(THROWS, dispatcher, guessed), walk(INTERRUPTED, start))
    assert [item.ip for item in whole.frames] == [item.ip for item in (THROWS, dispatcher, INTERRUPTED, start)]
    assert whole.frames[2].note == "raised 0xc0000005, whose dispatch led to the frame inside"
    assert whole.is_complete


def test_an_x64_stack_is_never_joined():
    """x64 unwind data leads through the dispatcher: KiUserExceptionDispatcher has a machine frame."""
    inner, outer = walk(THROWS, frame(0x79004FAB, 0x045BD800)), walk(INTERRUPTED)
    assert shown(inner, outer, Arch.X64) == (inner, outer)


def test_where_an_x86_walk_ends_before_the_dispatcher_the_note_tells_of_the_gap():
    whole, _ = shown(walk(THROWS, end=End.NO_RETURN_ADDRESS), walk(INTERRUPTED))
    assert [item.ip for item in whole.frames] == [INNER_IP, OUTER_IP]
    assert whole.frames[1].note.endswith("; the frames between are not known: no return address found")


def test_the_walk_of_the_outermost_exception_stays_as_it_is():
    assert shown(walk(THROWS), walk(INTERRUPTED))[1] == walk(INTERRUPTED)


@pytest.mark.parametrize("arch", list(Arch))
def test_a_walk_that_the_budget_of_the_search_refused_is_made(arch: Arch):
    refused = walk(INTERRUPTED, end=End.WORK_LIMIT)
    unwinder = Walks({OUTER_IP: walk(INTERRUPTED, frame(0x77E42000, 0x045BD900))})
    inner = walk(THROWS, INTERRUPTED)
    found = throwing_walks(target_with(unwinder, arch), StackBounds(LIMIT, BASE), EXCEPTIONS, (inner, refused))
    assert found == (inner, unwinder.walks[OUTER_IP])
    assert unwinder.starts == [OUTER_IP]


def test_a_frame_at_the_outer_context_is_not_inside_it():
    """The dispatcher's frame begins below the CONTEXT, which is in it: what a walk guesses from there on goes."""
    guessed = frame(0x79004FAB, OUTER_CONTEXT)
    whole, _ = shown(walk(THROWS, guessed), walk(INTERRUPTED))
    assert whole.frames[0] is THROWS
    assert [item.ip for item in whole.frames] == [INNER_IP, OUTER_IP]


def test_where_nothing_can_be_joined_a_walk_is_left_alone():
    further_out = walk(frame(0x79004FAB, OUTER_CONTEXT + 0x10))
    assert shown(further_out, walk(INTERRUPTED))[0] is further_out
    inner = walk(THROWS)
    assert shown(inner, walk())[0] is inner
