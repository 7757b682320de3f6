# SPDX-License-Identifier: Apache-2.0
"""Which of the two sides of a WoW64 thread a row tells of."""

from __future__ import annotations

from typing import cast

import pytest

from throwstack.core.frames import StackBounds
from throwstack.core.sides import Side
from throwstack.dispatch.saved_exception import SavedException
from throwstack.stuck.stuck_thread import StuckThread
from throwstack.unwind.target import ThreadStack
from throwstack.volatility.objects.threads import Thread
from throwstack.volatility.processes import Process
from throwstack.volatility.survey import Finding, the_crash

EXCEPTION = cast(SavedException, object())
FILTER, SHUTDOWN = ("KERNELBASE", "UnhandledExceptionFilter"), ("mscoree", "CorExitProcess")


def finding(side: Side, blocked_in: tuple[str, str], *, has_exception: bool) -> Finding:
    stack = ThreadStack(StackBounds(0x1000, 0x2000), None)
    exceptions = (EXCEPTION,) if has_exception else ()
    stuck = StuckThread(stack, (blocked_in,), exceptions, (), None, ("as found",))
    return Finding(cast(Process, None), cast(Thread, None), side, stuck, "")


def test_a_thread_stuck_on_one_side_is_as_it_was_found():
    only = finding(Side.NATIVE, FILTER, has_exception=True)
    assert the_crash([only]) is only


@pytest.mark.parametrize(
    ("native", "wow64", "side"),
    [
        pytest.param(True, True, Side.X86, id="one fault in 32-bit code, on both stacks"),
        pytest.param(False, True, Side.X86, id="only 32-bit code threw"),
        pytest.param(True, False, Side.NATIVE, id="only 64-bit code threw"),
        pytest.param(False, False, Side.X86, id="no exception at all"),
    ],
)
def test_of_two_sides_the_one_that_threw_is_the_row_and_the_other_a_note(native: bool, wow64: bool, side: Side):
    sides = [finding(Side.NATIVE, FILTER, has_exception=native), finding(Side.X86, SHUTDOWN, has_exception=wow64)]
    row = the_crash(sides)
    assert row.side is side
    other = (
        "stuck on the 64-bit side too, in KERNELBASE!UnhandledExceptionFilter"
        if side is Side.X86
        else "stuck on the 32-bit side too, in mscoree!CorExitProcess"
    )
    assert (row.stuck.notes, row.other_side) == (("as found",), other)
