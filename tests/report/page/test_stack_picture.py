# SPDX-License-Identifier: Apache-2.0
"""The picture of a stack: what is drawn where, in proportion to addresses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.made_reports import BASE, crash, frame, stack
from throwstack.core.frames import End, Trust
from throwstack.report.frame_report import WalkReport
from throwstack.report.page.picture_labels import MOST_LABELS
from throwstack.report.page.stack_picture import THREW, WAITS, StackPicture, picture_of
from throwstack.report.stack_parts import StackExtent
from throwstack.report.values import Hexadecimal


def height_of(picture: StackPicture, kind: str) -> tuple[float, float]:
    block = next(block for block in picture.blocks if block.kind == kind)
    return block.y, block.y + block.height


def texts(picture: StackPicture, *, is_left: bool) -> list[str]:
    return [label.text for label in picture.labels if label.is_left is is_left]


def test_without_frames_there_is_no_picture():
    assert picture_of(crash(throwing=None, blocked=None)) is None


def test_frames_are_as_high_as_they_have_bytes():
    frames = (frame(0, BASE - 0x400, trust=Trust.CONTEXT), frame(1, BASE - 0x300), frame(2, BASE - 0x100))
    picture = picture_of(crash(throwing=WalkReport(frames, End.THREAD_START), blocked=None, stack_bounds=None))
    assert [lane.name for lane in picture.lanes] == [THREW]
    first, second = (block.height for block in picture.blocks[:2])
    assert second == pytest.approx(2 * first)
    assert [block.link for block in picture.blocks[:2]] == ["threw-0", "threw-1"]


def test_record_and_context_are_between_the_frames_that_wait_and_those_that_threw():
    picture = picture_of(crash())
    assert {lane.name for lane in picture.lanes} == {WAITS, THREW}
    record, context = height_of(picture, "record"), height_of(picture, "context")
    first = next(block.y for block in picture.blocks if block.lane == THREW and block.kind == "frame")
    assert context[0] < record[0] < first
    assert texts(picture, is_left=False)[:2] == ["CONTEXT 00000000`000ff800", "record 00000000`000ffd00"]


def test_a_context_below_all_frames_is_to_scale_too():
    """The registers of the thread are not known, so that there is no walk through the dispatcher's frame."""
    picture = picture_of(crash(blocked=None))
    record, context = height_of(picture, "record"), height_of(picture, "context")
    assert (record[0] - context[0]) / (context[1] - context[0]) == pytest.approx(0x500 / 0x4D0, rel=0.01)
    assert [shortened.size for shortened in picture.breaks] == [0x1800]


def test_frames_of_both_walks_are_labelled_once():
    throwing = stack(4)
    own = tuple(frame(number, BASE - 0x400 + 0x40 * number, f"ntdll!Waits{number}+0x1") for number in range(3))
    picture = picture_of(crash(throwing=throwing, blocked=WalkReport((*own, *throwing.frames), End.THREAD_START)))
    assert texts(picture, is_left=True) == [f"0{number} ntdll!Waits{number}+0x1" for number in range(3)]
    assert {block.link for block in picture.blocks if block.lane == WAITS} >= {"waits-0", "threw-0", "threw-3"}
    assert [text for text in texts(picture, is_left=False) if "app!" in text] == [
        f"0{number} app!f{number}+0x10" for number in range(4)
    ]


def test_a_guessed_frame_is_drawn_as_one():
    walk = WalkReport((frame(0, BASE - 0x100), frame(1, BASE - 0x80, trust=Trust.SCAN)), End.THREAD_START)
    picture = picture_of(crash(throwing=walk, blocked=None))
    assert [block.kind for block in picture.blocks if block.link] == ["frame", "guess"]
    assert "guess" in {label.kind for label in picture.labels}


def test_the_bounds_of_the_stack_are_named_if_they_can_be_right():
    picture = picture_of(crash())
    assert [label.text for label in picture.bounds] == [
        "StackLimit 00000000`000fe000",
        "StackBase 00000000`00100000",
    ]
    lie = StackExtent(Hexadecimal(BASE - 0x40), Hexadecimal(BASE - 0x80))
    picture = picture_of(crash(stack_bounds=lie))
    assert [label.text for label in picture.bounds] == ["00000000`000ff600", "00000000`000fffc8"]
    assert picture.notes[0].startswith("The stack's bounds in the TEB, 0xfff80 to 0xfffc0, are not")


def test_a_context_on_another_stack_is_said_and_not_drawn():
    exception = replace(crash().exceptions[0], context_address=Hexadecimal(0x7FF000000000))
    picture = picture_of(crash(exceptions=(exception,)))
    assert "context" not in {block.kind for block in picture.blocks}
    assert picture.notes == ("The CONTEXT 00007ff0`00000000 is not on this part of the stack.",)


def test_a_picture_of_10_000_frames_is_no_larger_than_others():
    picture = picture_of(crash(throwing=stack(10_000, base=0x1000000), blocked=None))
    assert len(picture.blocks) < 600
    assert len(picture.labels) <= MOST_LABELS + 2
    assert picture.height < 1000
    assert " frames, 00 to " in picture.blocks[0].title


@pytest.mark.parametrize("sps", [(0, 1 << 63, (1 << 64) - 8), (5, 5, 5), (9, 8, 7)], ids=str)
def test_stack_pointers_that_no_stack_has_are_drawn_inside_the_picture(sps: tuple[int, ...]):
    walk = WalkReport(tuple(frame(number, sp) for number, sp in enumerate(sps)), End.NO_PROGRESS)
    picture = picture_of(crash(throwing=walk, blocked=walk))
    assert all(0 <= block.y <= block.y + block.height <= picture.height for block in picture.blocks)
    assert all(0 <= label.y <= picture.height for label in picture.labels)
