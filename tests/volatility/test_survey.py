# SPDX-License-Identifier: Apache-2.0
"""Which of the two sides of a WoW64 thread a row tells of."""

from __future__ import annotations

from typing import cast

import pytest

from tests.support.targets import make_target
from throwstack.core.frames import End, StackBounds, Walk
from throwstack.core.registers import Arch
from throwstack.dispatch.saved import SavedException
from throwstack.stuck.triage import Stuck
from throwstack.unwind.target import ThreadStack
from throwstack.volatility.objects.threads import Thread
from throwstack.volatility.processes import Process
from throwstack.volatility.survey import Finding, the_crash

EXCEPTION = cast(SavedException, object())
FILTER, SHUTDOWN = ("KERNELBASE", "UnhandledExceptionFilter"), ("mscoree", "CorExitProcess")


def finding(arch: str, blocked_in: tuple[str, str], *, has_exception: bool) -> Finding:
    target = make_target(Arch.X86 if arch == "wow64" else Arch.X64, [], {}, {}, Walk((), End.THREAD_START))
    stack = ThreadStack(StackBounds(0x1000, 0x2000), None)
    exceptions = (EXCEPTION,) if has_exception else ()
    stuck = Stuck(target, stack, (blocked_in,), exceptions, None, ("as found",))
    return Finding(cast(Process, None), cast(Thread, None), arch, stuck, "")


def test_a_thread_stuck_on_one_side_is_as_it_was_found():
    only = finding("x64", FILTER, has_exception=True)
    assert the_crash([only]) is only


@pytest.mark.parametrize(
    ("native", "wow64", "arch"),
    [
        pytest.param(True, True, "wow64", id="one fault in 32-bit code, on both stacks"),
        pytest.param(False, True, "wow64", id="only 32-bit code threw"),
        pytest.param(True, False, "x64", id="only 64-bit code threw"),
        pytest.param(False, False, "wow64", id="no exception at all"),
    ],
)
def test_of_two_sides_the_one_that_threw_is_the_row_and_the_other_a_note(native: bool, wow64: bool, arch: str):
    sides = [finding("x64", FILTER, has_exception=native), finding("wow64", SHUTDOWN, has_exception=wow64)]
    row = the_crash(sides)
    assert row.arch == arch
    other = (
        "stuck on the 64-bit side too, in KERNELBASE!UnhandledExceptionFilter"
        if arch == "wow64"
        else "stuck on the 32-bit side too, in mscoree!CorExitProcess"
    )
    assert row.stuck.notes == ("as found", other)
