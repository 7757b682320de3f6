# SPDX-License-Identifier: Apache-2.0
"""Log messages are escaped, whichever handler shows them and whether the text is in arguments, errors or tracebacks."""

from __future__ import annotations

import io
import logging
import subprocess
import sys

import pytest

from tests.support.vol import CHECKOUT
from throwstack.core import logs

HOSTILE = "\x1b]0;owned\x07evil\nvol: all is well\u202e"
SHOWN = r"\x1b]0;owned\x07evil\nvol: all is well\u202e"


@pytest.fixture
def shown():
    """Return what a program that imports us shows: it has a handler on the root, as Volatility has."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    logging.getLogger().addHandler(handler)
    yield out
    logging.getLogger().removeHandler(handler)


def test_arguments_and_errors_are_escaped(shown):
    log = logging.getLogger("throwstack.volatility.survey")
    log.warning("%s (PID %d): %s", HOSTILE, 4, LookupError(HOSTILE))
    assert shown.getvalue() == f"{SHOWN} (PID 4): {SHOWN}\n"


def test_a_traceback_is_escaped_line_by_line(shown):
    def examine() -> None:
        raise LookupError(HOSTILE)

    try:
        examine()
    except LookupError:
        logging.getLogger("throwstack.stuck.triage").exception("a process cannot be examined")
    lines = shown.getvalue().splitlines()
    assert lines[:2] == ["a process cannot be examined", "Traceback (most recent call last):"]
    assert lines[-2:] == [r"LookupError: \x1b]0;owned\x07evil", r"vol: all is well\u202e"]


def test_messages_are_bounded(shown):
    logging.getLogger("throwstack").warning("%s", "x" * 100_000)
    assert len(shown.getvalue()) < 3000


def test_messages_of_other_loggers_are_not_changed(shown):
    logging.getLogger("another").warning("a\tb")
    assert shown.getvalue() == "a\tb\n"


def test_a_program_that_sets_up_no_logging_sees_warnings_all_the_same():
    program = "import logging, throwstack; logging.getLogger('throwstack.x').warning('a\\x1bb'); \
logging.getLogger('throwstack.x').info('not this')"
    done = subprocess.run([sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert done.stderr == "a\\x1bb\n"


def test_the_handler_is_there_once():
    logs.install()
    logs.install()
    assert sum(isinstance(handler, logs.EscapingHandler) for handler in logging.getLogger("throwstack").handlers) == 1
