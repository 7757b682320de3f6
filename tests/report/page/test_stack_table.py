# SPDX-License-Identifier: Apache-2.0
"""A stack as tables of a page: what is folded, and the text that is copied."""

from __future__ import annotations

from dataclasses import replace

from tests.support.made_reports import frame, stack
from throwstack.core.frames import Trust
from throwstack.report.frame_report import Variable
from throwstack.report.page.stack_table import MOST_FRAMES, StackTable, stack_table
from throwstack.report.values import Hexadecimal


def labels(table: StackTable) -> list[tuple[int, str]]:
    return [(len(chunk.rows), chunk.label) for chunk in table.chunks]


def test_without_frames_there_is_no_table():
    assert stack_table("k", "Stack", (), is_64bit=True) is None


def test_a_short_stack_is_one_table():
    table = stack_table("k", "Stack", stack(11).frames, is_64bit=True)
    assert labels(table) == [(11, "")]
    assert table.text[0] == " # Child-SP          RetAddr           Call Site"
    assert table.text[11] == "0a 00000000`000fffc0 00000000`004010b0 app!f10+0x10"


def test_of_a_long_stack_the_middle_is_folded_in_parts():
    table = stack_table("k", "Stack", stack(1000).frames, is_64bit=True)
    assert labels(table) == [
        (120, ""),
        (400, "400 frames, 78 to 207"),
        (400, "400 frames, 208 to 397"),
        (20, "20 frames, 398 to 3ab"),
        (60, ""),
    ]
    assert [row.index for chunk in table.chunks for row in chunk.rows] == list(range(1000))


def test_a_deep_recursion_is_folded():
    frames = [replace(each, name="app!again+0x20") if 3 <= each.number < 503 else each for each in stack(510).frames]
    table = stack_table("k", "Stack", frames, is_64bit=True)
    assert labels(table) == [(5, ""), (498, "498 more frames of the same functions, 05 to 1f6"), (7, "")]
    assert len(table.text) < 20


def test_frames_that_are_shown_elsewhere_are_not_shown_again():
    table = stack_table("k", "Stack", stack(10).frames, is_64bit=True, elsewhere=4)
    assert (labels(table), table.elsewhere, table.cut) == ([(6, "")], 6, 0)
    assert table.text[-1] == "From frame 06 on it is the stack that threw."


def test_a_stack_without_an_end_is_cut_and_that_is_said():
    one = frame(0, 0x1000)
    table = stack_table("k", "Stack", [one] * (MOST_FRAMES + 7), is_64bit=True)
    assert (table.frame_count, table.cut) == (MOST_FRAMES, 7)


def test_columns_are_there_for_what_is_known():
    words = (Hexadecimal(1), None, Hexadecimal(3))
    native = stack_table("k", "Stack", [frame(0, 0x1000, args=words)], is_64bit=False)
    assert (native.frame_heading, native.has_args, native.has_returns) == ("ChildEBP", True, True)
    recorded = stack_table("k", "Stack", [replace(frame(0, 0x1000), return_address=None)], is_64bit=True)
    assert (recorded.frame_heading, recorded.has_args, recorded.has_returns) == ("Child-SP", False, False)


def test_parameters_are_on_one_line_and_what_is_not_known_is_a_question_mark():
    parameters = (Variable("hr", "HRESULT", None, "0x80004003 E_POINTER"), Variable("p", "void *", reason="paged out"))
    given = frame(0, 0x1000, parameters=parameters)
    guessed = frame(1, 0x1040, trust=Trust.SCAN, parameters=parameters * 20)
    table = stack_table("k", "Stack", [given, guessed], is_64bit=True, tags=((given, "thrown here"),))
    first, second = table.chunks[0].rows
    assert first.values == "hr = 0x80004003 E_POINTER, p = ?"
    assert (first.tag, first.kind) == ("thrown here", "tagged")
    assert second.values.endswith(", …")
    assert (second.kind, table.guesses) == ("guess", 1)
