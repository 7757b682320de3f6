# SPDX-License-Identifier: Apache-2.0
"""Threads with equal stacks are one group; what is special about one of them is a note."""

from __future__ import annotations

from throwstack.core.sides import Side
from throwstack.report.crash_report import ProcessSummary
from throwstack.report.frame_report import FrameReport
from throwstack.report.stack_parts import StackPartReport, ThreadWait
from throwstack.report.thread_groups import grouped
from throwstack.report.thread_report import ThreadStackReport
from throwstack.report.values import Hexadecimal


def thread(tid: int, *places: int, reason: str = "UserRequest", lock: str = "") -> ThreadStackReport:
    """Return a waiting thread with these instruction pointers; each thread has its own stack pointers."""
    frames = tuple(
        FrameReport(number, Hexadecimal(ip), Hexadecimal(tid * 0x10000 + number), f"app!f+{ip:#x}", "cfi")
        for number, ip in enumerate(places)
    )
    wait = ThreadWait(reason=reason, lock=lock)
    parts = (StackPartReport(Side.NATIVE, frames),)
    return ThreadStackReport(ProcessSummary(4, "app.exe"), tid, Hexadecimal(tid), parts, "Waiting", wait)


def test_the_largest_group_is_first():
    groups = grouped([thread(8, 1, 2), thread(12, 1, 3), thread(4, 1, 3), thread(16, 1, 3)])
    assert [group.tids for group in groups] == [(4, 12, 16), (8,)]
    assert [frame.sp for frame in groups[0].frames] == [0x40000, 0x40001], "the frames of the first thread"


def test_threads_that_wait_otherwise_are_apart_though_their_stacks_are_equal():
    groups = grouped([thread(4, 1, 2), thread(8, 1, 2, reason="Suspended")])
    assert [(group.tids, group.wait_reason) for group in groups] == [((4,), "UserRequest"), ((8,), "Suspended")]


def test_a_lock_is_told_of_its_thread():
    (group,) = grouped([thread(4, 1), thread(8, 1, lock="critical section 0x407020")])
    assert group.notes == ("thread 8: critical section 0x407020",)
