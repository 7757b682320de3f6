# SPDX-License-Identifier: Apache-2.0
"""What a walk keeps of a deep recursion: both ends, and what is not like the rest."""

from __future__ import annotations

import pytest

from throwstack.core.budgets import Budget, Budgets, Meter
from throwstack.core.frames import End, Frame, LeftOut, Trust, Walk
from throwstack.core.registers import Arch, Registers
from throwstack.unwind.kept_frames import Depth, KeptFrames

RECURSE, PARTNER, ELSEWHERE = 0x1000, 0x2000, 0x3000


def frame(number: int, ip: int = RECURSE, *, is_interrupted: bool = False) -> Frame:
    """The frame of that number: its stack pointer tells it from others."""
    registers = Registers.named(Arch.X64, {"rip": ip, "rsp": 0x10000 + number})
    return Frame(registers, registers.sp, ip, None, Trust.CFI, is_interrupted=is_interrupted)


def keep(frames: list[Frame]) -> tuple[list[int], list[tuple[int, LeftOut]]]:
    """Return the numbers of the frames that are kept, and the gaps with the number of the frame before."""
    kept = KeptFrames()
    for each in frames:
        kept.add(each)
    found = kept.frames()
    gaps = [(each.sp - 0x10000, each.left_out) for each in found if each.left_out is not None]
    return [each.sp - 0x10000 for each in found], gaps


@pytest.mark.parametrize("count", [0, 1, 512, 513, 1024])
def test_a_stack_of_up_to_1024_frames_is_kept_whole(count):
    assert keep([frame(number) for number in range(count)]) == (list(range(count)), [])


def test_of_a_deeper_one_both_ends_are_kept_and_the_rest_is_counted():
    numbers, gaps = keep([frame(number, (RECURSE, PARTNER)[number % 2]) for number in range(20_000)])
    assert numbers == [*range(512), *range(20_000 - 512, 20_000)]
    assert gaps == [(511, LeftOut(20_000 - 1024, (RECURSE, PARTNER), 0x10000 + 512))]


@pytest.mark.parametrize(
    "unlike", [frame(5000, is_interrupted=True), frame(5000, ELSEWHERE)], ids=["interrupted", "new"]
)
def test_a_frame_in_the_middle_that_is_not_like_the_others_is_kept(unlike):
    numbers, gaps = keep([unlike if number == 5000 else frame(number) for number in range(10_000)])
    assert numbers == [*range(512), 5000, *range(10_000 - 512, 10_000)]
    assert [(before, gap.count) for before, gap in gaps] == [(511, 5000 - 512), (5000, 10_000 - 512 - 5001)]


def test_a_place_that_was_kept_once_is_like_the_others():
    numbers, _ = keep([frame(number, ELSEWHERE if number in {2000, 3000} else RECURSE) for number in range(10_000)])
    assert 2000 in numbers
    assert 3000 not in numbers


def test_so_many_frames_are_unlike_and_no_more():
    """A hostile stack: no two frames are of the same place."""
    numbers, gaps = keep([frame(number, 0x10000 + number) for number in range(10_000)])
    assert numbers == [*range(1024), *range(10_000 - 512, 10_000)]
    ((before, gap),) = gaps
    assert (before, gap.count, len(gap.places)) == (1023, 10_000 - 1536, 8)


def test_the_frames_that_walks_leave_out_are_budgeted_for_a_process():
    meter = Meter(Budgets(recursion=Budget("frames", 3000, 3000, 1, 1)))
    depth = Depth(1 << 16, meter)
    assert depth.limit == 4024
    left_out = Walk(
        (Frame(frame(0).registers, 0, 0, None, Trust.CFI, left_out=LeftOut(2900, (1,), 0)),), End.THREAD_START
    )
    depth.spend(left_out)
    assert depth.limit == 1124
    depth.spend(left_out)
    assert depth.limit == 1024
    assert meter.spent == ("the budget of 3,000 frames for a thread is spent",)
    assert Depth(100, Meter()).limit == 100
