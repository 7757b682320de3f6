# SPDX-License-Identifier: Apache-2.0
"""Which part of the stack each frame has, from the two stack pointers that WinDbg shows."""

from __future__ import annotations

from tests.support.made_reports import frame
from throwstack.core.frames import Trust
from throwstack.report.frame_report import INLINE, LEFT_OUT, FrameReport
from throwstack.report.page.stack_extents import extents_of
from throwstack.report.values import Hexadecimal


def parts(frames: list[FrameReport], *, is_x86: bool) -> list[tuple[int, int, int]]:
    return [(extent.index, extent.low, extent.high) for extent in extents_of(frames, is_x86=is_x86)[0]]


def left_out(number: int, sp: int) -> FrameReport:
    return FrameReport(number, Hexadecimal(1), Hexadecimal(sp), "9,000 more frames of f", LEFT_OUT, left_out=9000)


def inlined(number: int, sp: int) -> FrameReport:
    return FrameReport(number, Hexadecimal(1), Hexadecimal(sp), "app!inlined", INLINE)


def test_a_frame_of_x64_goes_from_its_child_sp_to_that_of_its_caller():
    frames = [frame(0, 0x1000), frame(1, 0x1040), frame(2, 0x1100)]
    assert parts(frames, is_x86=False) == [(0, 0x1000, 0x1040), (1, 0x1040, 0x1100), (2, 0x1100, 0x1108)]


def test_a_frame_of_x86_ends_with_its_return_address_which_is_above_child_ebp():
    """Of the reference case: esp is 045bab64, and PrintProviderError has 8 KiB below ChildEBP 045bcc58."""
    first = frame(0, 0x45BABB8, "KERNEL32!RaiseException+0x53", registers={"esp": Hexadecimal(0x45BAB64)})
    frames = [first, frame(3, 0x45BAC18), frame(4, 0x45BCC58)]
    assert parts(frames, is_x86=True) == [
        (0, 0x45BAB64, 0x45BABC0),
        (1, 0x45BABC0, 0x45BAC20),
        (2, 0x45BAC20, 0x45BCC60),
    ]


def test_an_inlined_function_has_no_part():
    frames = [frame(0, 0x1000), inlined(1, 0x1040), frame(2, 0x1040)]
    assert parts(frames, is_x86=False) == [(0, 0x1000, 0x1040), (2, 0x1040, 0x1048)]


def test_frames_that_were_left_out_have_one_part_together():
    frames = [frame(0, 0x1000), left_out(1, 0x1040), frame(2, 0x90000)]
    assert parts(frames, is_x86=False)[1] == (1, 0x1040, 0x90000)
    assert parts(frames, is_x86=True)[1] == (1, 0x1008, 0x90000)


def test_frames_of_another_stack_have_none():
    frames = [frame(0, 0x1000), frame(1, 0x1040), frame(2, 0x500), frame(3, 0x1080, trust=Trust.SCAN)]
    extents, skipped = extents_of(frames, is_x86=False)
    assert [extent.index for extent in extents] == [0, 1, 3]
    assert skipped == 1
    assert extents[-1].is_guessed
