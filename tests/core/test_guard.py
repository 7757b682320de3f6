# SPDX-License-Identifier: Apache-2.0
"""The guard: which exceptions it catches, which pass through, and what it does with an iterator that raises."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from throwstack.core.guard import Guard
from throwstack.core.memory import MemoryUnreadable


def test_the_message_of_a_foreseen_exception_is_the_reason():
    reasons: list[str] = []
    with Guard(reasons.append):
        raise MemoryUnreadable(0x1000)
    assert reasons == ["memory at 0x1000 is not readable"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OverflowError("int too big to convert"), "unexpected OverflowError: int too big to convert"),
        (MemoryError(), "unexpected MemoryError"),
        (RecursionError("too deep"), "unexpected RecursionError: too deep"),
        (ValueError("\x1b[2Jgone"), r"unexpected ValueError: \x1b[2Jgone"),
    ],
)
def test_an_exception_that_was_not_foreseen_is_called_unexpected_and_logged_with_its_traceback(
    caught: list[logging.LogRecord], error: Exception, reason: str
):
    reasons: list[str] = []
    with Guard(reasons.append):
        raise error
    assert reasons == [reason]
    assert [(record.levelno, record.getMessage()) for record in caught] == [(logging.DEBUG, reason)]
    assert caught[0].exc_info is not None


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_exceptions_that_end_the_program_or_a_generator_pass_through(error: type[BaseException]):
    with pytest.raises(error), Guard(lambda _: None):
        raise error


def list_that_breaks_off() -> Iterator[int]:
    yield 1
    yield 2
    raise MemoryUnreadable(0x2000)


def test_an_iterator_that_raises_keeps_the_items_before():
    reasons: list[str] = []
    assert list(Guard(reasons.append).each(list_that_breaks_off())) == [1, 2]
    assert reasons == ["memory at 0x2000 is not readable"]


def test_an_exception_in_the_loop_body_is_not_caught_by_each():
    reasons: list[str] = []
    guard = Guard(reasons.append, (ZeroDivisionError,))
    found = []
    for item in guard.each(iter([2, 0, 4])):
        with guard:
            found.append(8 // item)
    assert found == [4, 2]
    assert len(reasons) == 1
