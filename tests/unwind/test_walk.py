# SPDX-License-Identifier: Apache-2.0
"""The walk loop, with a stepper whose stack is written down as a list of steps."""

from __future__ import annotations

from dataclasses import replace

from throwstack.core.frames import End, Frame, LeftOut, StackBounds, Trust
from throwstack.core.registers import Arch, Registers
from throwstack.core.stop import Stop
from throwstack.unwind.walk import Step, steps, walk

STACK = StackBounds(0x1000, 0x2000)


def at(ip: int, sp: int, slot: int | None = None, *, is_interrupted: bool = False, note: str = "") -> Step:
    return Step(Registers.named(Arch.X64, {"rip": ip, "rsp": sp}), slot, Trust.CFI, is_interrupted, note)


class Listed:
    """Steps by the ip they start from; an ip without an entry returns nowhere."""

    def __init__(self, *outcomes: tuple[int, Step | Stop]) -> None:
        self.outcomes = dict(outcomes)

    def step(self, reached: Step, _: StackBounds) -> Step | Stop:
        return self.outcomes.get(reached.registers.ip, Stop(End.NO_RETURN_ADDRESS, "nothing there"))

    def frame(self, reached: Step, return_address: int | None, slot: int | None) -> Frame:
        registers = reached.registers
        return Frame(registers, registers.sp, return_address, slot, reached.trust, reached.note)


INNER = at(0x10, 0x1100)
LISTED = Listed((0x10, at(0x20, 0x1200, 0x11F8, note="called")), (0x20, Stop(End.THREAD_START, "done", 0, 0x12F8)))


def test_each_frame_returns_to_the_next_and_the_stop_ends_the_last() -> None:
    found = walk(LISTED, INNER, STACK, 10)
    assert [(frame.ip, frame.return_address, frame.return_slot) for frame in found.frames] == [
        (0x10, 0x20, 0x11F8),
        (0x20, 0, 0x12F8),
    ]
    assert [frame.note for frame in found.frames] == ["", "called"]
    assert (found.end, found.detail, found.is_complete) == (End.THREAD_START, "done", True)


def test_a_walk_over_a_lost_return_address_is_not_complete_although_it_reaches_the_start() -> None:
    start = Stop(End.THREAD_START, "done", 0, 0x12F8)
    guessed = replace(at(0x20, 0x1200, 0x11F8), gap="overwritten")
    found = walk(Listed((0x10, guessed), (0x20, at(0x30, 0x1280, 0x1278)), (0x30, start)), INNER, STACK, 10)
    assert [frame.ip for frame in found.frames] == [0x10, 0x20, 0x30]
    assert (found.end, found.detail, found.is_complete) == (End.LOST_RETURN_ADDRESS, "overwritten", False)
    # Another reason to stop is said as it is.
    assert walk(Listed((0x10, guessed)), INNER, STACK, 10).end is End.NO_RETURN_ADDRESS


def test_the_limit_counts_frames() -> None:
    loop = Listed((0x10, at(0x20, 0x1200, 0x11F8)), (0x20, at(0x10, 0x1300, 0x12F8)))
    found = walk(loop, INNER, STACK, 5)
    assert (found.end, found.detail, len(found.frames)) == (End.FRAME_LIMIT, "5", 5)
    assert len(list(steps(loop, INNER, STACK, 5))) == 5


def test_of_a_deep_recursion_both_ends_are_kept_and_the_walk_is_complete() -> None:
    class Recursion(Listed):
        """3,000 frames of 16 bytes, and the start of the thread."""

        def step(self, reached: Step, _: StackBounds) -> Step | Stop:
            sp = reached.registers.sp + 16
            return at(0x10, sp, sp - 8) if sp < 3000 * 16 else Stop(End.THREAD_START, "", 0, sp - 8)

    found = walk(Recursion(), at(0x10, 0), StackBounds(0, 0x10000), 1 << 16)
    assert found.is_complete
    assert (len(found.frames), found.left_out) == (1024, 3000 - 1024)
    assert found.frames[511].left_out == LeftOut(3000 - 1024, (0x10,), 512 * 16)
    assert walk(Recursion(), at(0x10, 0), StackBounds(0, 0x10000), 2000).end is End.FRAME_LIMIT


def test_an_interruption_that_leads_off_the_stack_ends_the_walk_there() -> None:
    trap = Listed((0x10, at(0x7777, 0x9000, 0x1FD8, is_interrupted=True)))
    found = walk(trap, INNER, STACK, 10)
    assert found.end is End.STACK_BOUND
    assert (found.frames[-1].return_address, found.frames[-1].return_slot) == (0x7777, 0x1FD8)
    assert len(found.frames) == 1


def test_an_interruption_on_the_same_stack_is_walked_through() -> None:
    trap = Listed((0x10, at(0x20, 0x1800, 0x17D8, is_interrupted=True)))
    found = walk(trap, INNER, STACK, 10)
    assert [frame.ip for frame in found.frames] == [0x10, 0x20]
    assert found.end is End.NO_RETURN_ADDRESS


def test_a_callee_that_removes_arguments_may_leave_the_stack_pointer_beyond_the_end() -> None:
    """`ret 8` of an x86 thread's first function: its frame is shown, and its own step says why there is no more."""
    called = Listed((0x10, at(0x20, 0x2008, 0x1FFC)))
    assert [frame.ip for frame in walk(called, INNER, STACK, 10).frames] == [0x10, 0x20]


def test_steps_can_be_taken_one_by_one() -> None:
    first, last = steps(LISTED, INNER, STACK, 10)
    assert isinstance(first, Step)
    assert first.slot == 0x11F8
    assert last == Stop(End.THREAD_START, "done", 0, 0x12F8)
