# SPDX-License-Identifier: Apache-2.0
"""What runtimes print of unhandled exceptions, read back: worked examples of each form."""

from __future__ import annotations

import pytest

from tests.managed_live.console_text import (
    OVERFLOW,
    ConsoleTextError,
    PrintedException,
    PrintedFrame,
    parse_console,
    parse_stack,
)

BY_WINE = "wine: Unhandled exception 0xe0434352 in thread 1bc at address 7B013D7E (thread 01bc), starting debugger\n"


def parsed(text: str) -> PrintedException:
    return parse_console(text + BY_WINE).exception


def test_an_exception_its_frames_and_its_thread():
    text = """Unhandled exception. Shop.OrderException: order 17: no way to Berlin
   at Shop.Basket`2.Line`1.Convert[TOther](TKey[] keys, Func`2 how)\r
   at Shop.Program.Main(String[] arguments)
"""

    crash = parse_console(text + BY_WINE)

    assert crash.tid == 0x1BC
    assert crash.exception == PrintedException(
        "Shop.OrderException",
        "order 17: no way to Berlin",
        (
            PrintedFrame("Shop.Basket`2.Line`1.Convert[TOther]", "TKey[] keys, Func`2 how"),
            PrintedFrame("Shop.Program.Main", "String[] arguments"),
        ),
    )


def test_wine_names_an_access_violation_in_other_words():
    by_wine = "wine: Unhandled page fault on read access to 00000000 at address 1AE93F52 (thread 014c), starting\n"

    assert parse_console("Unhandled exception. N.E: m\n   at N.T.M()\n" + by_wine).tid == 0x14C


INNER = """
 ---> N.B: two
 ---> N.C: three
   at N.T.Third(Int32 depth)
   --- End of inner exception stack trace ---
   at N.T.Second()
   --- End of inner exception stack trace ---
   at N.T.First()
"""


@pytest.mark.parametrize(
    "text",
    [
        "Unhandled exception. N.A: one" + INNER,
        "Unhandled Exception: N.A: one" + INNER.replace("\n --->", " --->"),
    ],
    ids=["on lines of their own", "on one line, as .NET Core 2.1 prints them"],
)
def test_inner_exceptions_have_frames_of_their_own(text: str):
    exceptions = parsed(text).flat()

    assert [(e.type, e.message) for e in exceptions] == [("N.A", "one"), ("N.B", "two"), ("N.C", "three")]
    assert [[f.method for f in e.frames] for e in exceptions] == [["N.T.First"], ["N.T.Second"], ["N.T.Third"]]


def test_a_message_can_have_several_lines():
    found = parsed("Unhandled Exception: N.A: negative\nParameter name: count\n   at N.T.M()\n")

    assert found.message == "negative\nParameter name: count"
    assert len(found.frames) == 1


@pytest.mark.parametrize("where", ["", " where exception was thrown"])
def test_an_earlier_stack_ends_with_a_line(where: str):
    separator = f"--- End of stack trace from previous location{where} ---"

    found = parsed(f"Unhandled exception. N.A: m\n   at N.T.First()\n{separator}\n   at N.T.Again()\n")

    assert [(f.method, f.is_last_of_earlier) for f in found.frames] == [("N.T.First", True), ("N.T.Again", False)]


def test_an_aggregate_exception_has_all_its_inner_ones():
    text = """Unhandled exception. System.AggregateException: Some. (a) (b) (c)
 ---> N.A: a
   at N.T.A()
   --- End of inner exception stack trace ---
   at N.T.Main()
 ---> (Inner Exception #1) N.B: b
   at N.T.B()
   at N.T.Run()<---

 ---> (Inner Exception #2) N.C: c<---

"""

    found = parsed(text)

    assert [inner.type for inner in found.inner] == ["N.A", "N.B", "N.C"]
    assert [[f.method for f in e.frames] for e in found.flat()] == [["N.T.Main"], ["N.T.A"], ["N.T.B", "N.T.Run"], []]
    assert found.inner[2].message == "c"


def test_an_exception_without_message_or_frames():
    assert parsed("Unhandled exception. N.A\n") == PrintedException("N.A", None)


def test_a_stack_overflow_prints_what_repeats_once():
    text = """Stack overflow.
Repeat 32231 times:
--------------------------------
   at N.T.Down(Int32, Double)
--------------------------------
   at N.T.Main(System.String[])
Stack overflow.
   at N.T.Down(Int32, Double)
"""

    found = parsed(text)

    assert found.type == OVERFLOW
    assert found.frames == (
        PrintedFrame("N.T.Down", "Int32, Double", times=32231),
        PrintedFrame("N.T.Main", "System.String[]"),
    )


def test_net_core_2_prints_no_stack_of_an_overflow():
    text = "\nProcess is terminating due to StackOverflowException.\n\nUnhandled Exception: StackOverflowException.\n"

    assert parsed(text) == PrintedException(OVERFLOW, None)


def test_the_stack_that_a_thread_noted():
    assert parse_stack("   at System.Environment.get_StackTrace()\r\n   at N.T.Wait(Int32 a)") == [
        PrintedFrame("System.Environment.get_StackTrace", ""),
        PrintedFrame("N.T.Wait", "Int32 a"),
    ]


@pytest.mark.parametrize("text", ["", BY_WINE, "Unhandled exception. N.A: m\n   at N.T.M()\n"])
def test_other_text_is_refused(text: str):
    with pytest.raises(ConsoleTextError):
        parse_console(text)


def test_an_inner_exception_that_does_not_end_is_refused():
    with pytest.raises(ConsoleTextError, match="does not end"):
        parsed("Unhandled exception. N.A: one\n ---> N.B: two\n   at N.T.M()\n")
