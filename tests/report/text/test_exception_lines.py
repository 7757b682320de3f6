# SPDX-License-Identifier: Apache-2.0
"""What the text says of exceptions: messages cannot look like what follows them."""

from __future__ import annotations

from dataclasses import replace

from tests.support.made_reports import crash
from throwstack.report.crash_report import InnerException
from throwstack.report.text.crash_lines import crash_lines
from throwstack.report.text.exception_lines import inner_lines
from throwstack.report.values import Hexadecimal

MESSAGE = 'no "Berlin" here'
QUOTED = r'"no \"Berlin\" here"'


def test_quotation_marks_of_inner_messages_are_marked_as_in_titles() -> None:
    inner = InnerException(type="Shop.X", message=MESSAGE, hresult=Hexadecimal(0x80131500))
    (line,) = inner_lines([inner], is_64bit=True)
    assert line.text.endswith(rf"Shop.X {QUOTED}, HRESULT 80131500")


def test_a_message_that_the_title_has_with_marked_quotation_marks_is_not_repeated() -> None:
    made = crash()
    assert made.exception is not None
    for title, count in ((f"Shop.X {QUOTED}", 1), ("Shop.X", 1)):
        told = replace(made.exception, title=title, message=MESSAGE)
        lines = [line.text for line in crash_lines(replace(made, exceptions=(told,)), None)]
        assert sum("Berlin" in line for line in lines) == count
        assert any(QUOTED in line for line in lines)
