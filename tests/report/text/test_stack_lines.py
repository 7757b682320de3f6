# SPDX-License-Identifier: Apache-2.0
"""Stacks as `kb` prints them: x86 with arguments, x64 with addresses in two halves; what is a guess is marked."""

from __future__ import annotations

from throwstack.core.frames import Trust
from throwstack.report.frame_report import INLINE, LEFT_OUT, FrameReport, Variable
from throwstack.report.text.stack_lines import provenance, stack_lines, with_values
from throwstack.report.values import Hexadecimal


def frame(number: int, name: str, trust: str = "cfi", **more: object) -> FrameReport:
    """Return a frame of x86 code at ChildEBP 045bac0c that returns to 03402f9d."""
    return FrameReport(
        number, Hexadecimal(0x3403222), Hexadecimal(0x45BAC0C), name, trust, Hexadecimal(0x3402F9D), **more
    )


def lines(*frames: FrameReport, is_64bit: bool = False) -> list[str]:
    return [line.text for line in stack_lines(frames, is_64bit=is_64bit)][1:]


def test_an_x86_frame_is_as_kb_prints_it():
    words = (Hexadecimal(0x80004003), Hexadecimal(0), None)
    assert lines(frame(2, "app!f+0x32", args=words)) == ["  02 045bac0c 03402f9d 80004003 00000000 ???????? app!f+0x32"]


def test_an_x64_frame_has_child_sp_and_return_address():
    made = FrameReport(5, Hexadecimal(0), Hexadecimal(0xE3B42FFEF0), "app!f+0x9c", "cfi", Hexadecimal(0x7FFB49A61BB2))
    assert lines(made, is_64bit=True) == ["  05 000000e3`b42ffef0 00007ffb`49a61bb2 app!f+0x9c"]


def test_names_stay_in_their_column_where_there_are_no_words_and_where_a_function_was_inlined():
    plain, inlined = lines(frame(1, "app!f+0x32"), frame(2, "app!g", INLINE))
    assert plain.index("app!f") == inlined.index("app!g") == len("  02 045bac0c 03402f9d 80004003 00000000 00000000 ")


def test_a_source_that_does_not_fit_has_a_line_of_its_own():
    assert lines(frame(0, "app!f", source="f.cpp @ 18"))[0].endswith(" app!f [f.cpp @ 18]")
    assert lines(frame(0, "app!f", source=f"{'d' * 70}.cpp @ 18"))[1] == f"         [{'d' * 70}.cpp @ 18]"


def test_guesses_are_marked_and_explained():
    scanned, doubtful = frame(1, "app!f+0x1", Trust.SCAN.value), frame(2, "app!g+0x900", symbols="export?")
    assert [" ?app!" in line for line in lines(scanned, doubtful)] == [True, True]
    assert "A ? marks a guess" in provenance([scanned]).text
    assert "A ? marks a guess" in provenance([doubtful]).text
    assert "?" not in provenance([frame(0, "app!f")]).text


def test_how_frames_were_found_is_told_in_ranges_of_their_numbers():
    trusts = ["context", "prologue", "cfi", "cfi", "cfi", "prologue", *["cfi"] * 6]
    found = provenance([frame(number, "app!f", trust) for number, trust in enumerate(trusts)])
    assert found.text == "  Found by: 0 context; 1, 5 prologue; 2-4, 6-b cfi"


def test_a_recursion_is_shown_twice_and_counted():
    shown = lines(*(frame(number, "app!f+0x7f") for number in range(300)), frame(300, "app!main+0x5"))
    assert [line.split()[-1] for line in shown if "app!" in line] == ["app!f+0x7f", "app!f+0x7f", "app!main+0x5"]
    assert "  .. 298 more frames of the same functions, 2 to 12b" in shown


def test_frames_that_the_walk_has_not_kept_are_counted():
    assert lines(frame(512, "9,000 more frames of app!f", LEFT_OUT)) == ["  .. 9,000 more frames of app!f"]


def test_values_are_put_into_the_signature():
    parameters = (
        Variable("hr", "HRESULT", text="0x80004003 E_POINTER"),
        Variable("p", "void *", reason="not in the dump"),
    )
    text, left = with_values("void __stdcall f(HRESULT hr, void * p)", parameters)
    assert text == "void __stdcall f(HRESULT hr = 0x80004003 E_POINTER, void * p = <not in the dump>)"
    assert left == []


def test_a_parameter_that_the_signature_does_not_name_comes_after_it():
    shown = lines(frame(0, "app!f", signature="void f(int)", parameters=(Variable("this", text="0x1"),)))
    assert shown[1:] == ["         void f(int)", "         this = 0x1"]


def test_a_name_that_is_the_end_of_another_is_not_taken_for_it():
    """`count` is the second parameter, `discount` the first."""
    text, _ = with_values("void f(int discount, int count)", (Variable("count", text="2"),))
    assert text == "void f(int discount, int count = 2)"


def test_locals_of_unknown_value_are_left_to_the_json():
    known, unknown = Variable("a", text="1"), Variable("b", reason="optimised out")
    assert lines(frame(0, "app!f", locals=(known, unknown)))[1:] == ["         a = 1"]
