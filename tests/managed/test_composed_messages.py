# SPDX-License-Identifier: Apache-2.0
"""What Message returns: the texts that the runtime's own classes compose."""

from __future__ import annotations

import pytest

from tests.support.managed_heap import ForgedRuntime, Style


def test_an_exception_without_a_message_says_its_class() -> None:
    process = ForgedRuntime()
    found = process.thrown(process.exception("Shop.OrderException", None))
    assert found.message == "Exception of type 'Shop.OrderException' was thrown."


@pytest.mark.parametrize(
    ("is_old", "message"), [(False, "bad (Parameter 'count')"), (True, r"bad\r\nParameter name: count")]
)
def test_the_name_of_a_parameter_follows_as_that_version_writes_it(is_old: bool, message: str) -> None:
    process = ForgedRuntime(Style.ABSOLUTE, old_messages=is_old)
    bad = process.exception("System.ArgumentException", "bad", _paramName=process.string("count"))
    assert process.thrown(bad).message == message


@pytest.mark.parametrize(("value", "text"), [(-7, "-7"), (None, "minus seven")])
def test_the_actual_value_follows_if_it_is_a_number_or_a_string(value: int | None, text: str) -> None:
    process = ForgedRuntime()
    actual = process.string("minus seven") if value is None else process.number(value)
    bad = process.exception("System.ArgumentOutOfRangeException", "bad", _actualValue=actual)
    assert process.thrown(bad).message == rf"bad\r\nActual value was {text}."


def test_an_actual_value_of_another_class_is_left_out() -> None:
    process = ForgedRuntime()
    actual = process.exception("Shop.OrderException", None)
    bad = process.exception("System.ArgumentOutOfRangeException", "bad", _actualValue=actual)
    assert process.thrown(bad).message == "bad"


def test_a_disposed_object_is_named() -> None:
    process = ForgedRuntime()
    bad = process.exception("System.ObjectDisposedException", "gone", _objectName=process.string("Stock"))
    assert process.thrown(bad).message == r"gone\r\nObject name: 'Stock'."


@pytest.mark.parametrize(("stored", "end"), [(None, ""), ("half", ": this is what it stores")])
def test_a_class_that_composes_its_message_itself_is_named(stored: str | None, end: str) -> None:
    process = ForgedRuntime()
    found = process.thrown(process.exception("Shop.ComposedException", stored))
    assert found.message == stored
    assert found.reasons == (f"Shop.ComposedException composes its message when it is asked for it{end}",)
