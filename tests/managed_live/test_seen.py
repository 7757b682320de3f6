# SPDX-License-Identifier: Apache-2.0
"""What is compared of a report: functions without modules, ends of earlier stacks, inner exceptions but no records."""

from __future__ import annotations

from tests.managed_live.managed_compare import SeenException, SeenFrame
from tests.managed_live.seen import seen_exception
from throwstack.report.crash_report import ExceptionReport, InnerException
from throwstack.report.frame_report import FrameReport
from throwstack.report.values import Hexadecimal


def frame(function: str, note: str = "") -> FrameReport:
    return FrameReport(
        0, Hexadecimal(1), Hexadecimal(2), f"shop!{function}+0x4", "recorded", function=function, note=note
    )


def report(code: int, *inner: InnerException, message: str = "", type_name: str = "") -> ExceptionReport:
    stack = (
        frame("N.T.M()", "compiled as N.T.d.MoveNext; end of stack trace from previous location"),
        frame("N.T.Main()"),
    )
    return ExceptionReport(
        Hexadecimal(code),
        Hexadecimal(1),
        type=type_name,
        message=message,
        hresult=Hexadecimal(0x80131500),
        inner=inner,
        logical_stack=stack,
    )


def test_an_exception_with_its_inner_ones() -> None:
    cause = InnerException(address=Hexadecimal(0x500), type="N.Cause", message="why", hresult=Hexadecimal(0x80004005))
    record = InnerException(code=Hexadecimal(0xC0000005), address=Hexadecimal(0x7B000000))
    assert seen_exception(
        report(0xE0434352, cause, record, message=r"two\r\nlines", type_name="N.Error")
    ) == SeenException(
        "N.Error",
        "two\nlines",
        (SeenFrame("N.T.M()", is_last_of_earlier=True), SeenFrame("N.T.Main()")),
        (SeenException("N.Cause", "why", (), (), 0x80004005),),
        0x80131500,
    )


def test_a_stack_overflow_has_the_class_that_the_runtime_prints() -> None:
    assert seen_exception(report(0xC00000FD)).type == "System.StackOverflowException"
    assert seen_exception(report(0xC0000005)).type == ""
