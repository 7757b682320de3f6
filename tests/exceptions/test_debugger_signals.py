# SPDX-License-Identifier: Apache-2.0
"""Which exceptions only tell a debugger something."""

from __future__ import annotations

import pytest

from throwstack.exceptions.debugger_signals import is_debugger_signal


@pytest.mark.parametrize("code", [0x40010006, 0x4001000A, 0x406D1388, 0x40010005, 0x04242420, 0x40080201, 0x0EEDFADF])
def test_a_signal_is_no_failure(code: int):
    assert is_debugger_signal(code)


@pytest.mark.parametrize("code", [0xC0000005, 0xE06D7363, 0x80000003, 0x40000015, 0x4000001F, 0x0EEDFADE])
def test_breakpoints_fatal_exits_and_exceptions_of_runtimes_are_none(code: int):
    """0x40000015 is STATUS_FATAL_APP_EXIT, and 0x4000001F a breakpoint of 32-bit code on 64-bit Windows."""
    assert not is_debugger_signal(code)
