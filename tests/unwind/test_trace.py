# SPDX-License-Identifier: Apache-2.0
"""Whether a trace is made depends on who would see it, and not on the level of the root logger alone."""

from __future__ import annotations

import logging

import pytest

from throwstack.core.logs import install
from throwstack.unwind import trace

LOG = logging.getLogger("throwstack.trace")


def shown_from(level: int, monkeypatch) -> logging.Handler:
    """Give the root logger one handler, and let it pass every message, as `vol` does."""
    root = logging.getLogger()
    handler = logging.Handler(level)
    monkeypatch.setattr(root, "handlers", [handler])
    monkeypatch.setattr(LOG, "level", 1)
    monkeypatch.setattr(LOG, "_cache", {})
    install()
    return handler


@pytest.mark.parametrize(("level", "is_on"), [(logging.DEBUG, False), (logging.DEBUG - 1, True), (1, True)])
def test_the_handler_decides_as_vol_sets_it_for_vv_and_vvv(monkeypatch, level, is_on):
    shown_from(level, monkeypatch)
    assert trace.is_on() is is_on


def test_a_logger_that_lets_nothing_pass_needs_no_handler_to_say_so(monkeypatch):
    shown_from(1, monkeypatch)
    monkeypatch.setattr(LOG, "level", logging.WARNING)
    monkeypatch.setattr(LOG, "_cache", {})
    assert not trace.is_on()


def test_a_logger_that_does_not_pass_on_is_shown_by_its_own_handlers_alone(monkeypatch):
    shown_from(1, monkeypatch)
    monkeypatch.setattr(LOG, "propagate", False)
    assert not trace.is_on()


def test_a_step_is_a_line_with_its_control_characters_escaped(monkeypatch):
    handler = shown_from(1, monkeypatch)
    lines = []
    handler.emit = lambda record: lines.append(record.getMessage())
    trace.step(0x401000, "frame pointer", "0x402000 \x1b[2J")
    assert lines == ["0x401000: frame pointer: 0x402000 \\x1b[2J"]
