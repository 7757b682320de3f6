# SPDX-License-Identifier: Apache-2.0
"""The frames that a reader looks at first: where an exception was thrown, and the function that the signature names."""

from __future__ import annotations

import pytest

from tests.support.made_reports import BASE, crash, frame
from throwstack.core.frames import End
from throwstack.report.crash_report import CrashReport
from throwstack.report.frame_report import WalkReport
from throwstack.report.key_frames import program_frame, thrown_frame
from throwstack.stuck.signature import Signature


def thrown(thrown_at: str, signature: str, *names: str) -> CrashReport:
    """Return a crash whose throwing stack has frames of these names, innermost first."""
    frames = (frame(number, BASE - 0x400 + 0x40 * number, name) for number, name in enumerate(names))
    walk = WalkReport(tuple(frames), End.THREAD_START)
    return crash(throwing=walk, thrown_at=thrown_at, signature=Signature(signature, "0badcafe"))


REFERENCE = thrown(
    "ftpsrvdata_pg!_com_raise_error+0x32",
    "ftpsrvdata_pg!PrintProviderError",
    *("KERNEL32!RaiseException+0x53", "ftpsrvdata_pg!_com_raise_error+0x32", "ftpsrvdata_pg!PrintProviderError+0x35"),
)
MANAGED = thrown(
    "Crashes!Shop.Scenario.Level(Int32 depth)+0xa6",
    "crashes!Shop.Scenario.Level",
    *("coreclr+0x22d94", "Crashes!Shop.Scenario.Level(Int32 depth)+0xa7", "Crashes!Shop.Scenario.Inner()+0x86"),
)
COLD = thrown("app!g+0x176c0", "app!g", "KERNEL32!RaiseException+0x53", "app!g$cold+0x40", "app!main+0x20")
FAULT = thrown("App!f+0x10", "app!f | app!main", "App!f+0x10", "App!main+0x20")
NAMELESS = thrown("app+0x1a2f", "app+0x1a2f", "app+0x1a2f", "app!main+0x20")


@pytest.mark.parametrize(
    ("stuck", "thrown_at", "program"),
    [(REFERENCE, 1, 2), (MANAGED, 1, None), (COLD, 1, None), (FAULT, 0, None), (NAMELESS, 0, None)],
    ids=[
        "reported by another function",
        "recorded before the call",
        "in the cold part",
        "in the function itself",
        "without a name",
    ],
)
def test_frames_that_matter(stuck: CrashReport, thrown_at: int, program: int | None):
    found = thrown_frame(stuck), program_frame(stuck)
    assert [each and each.number for each in found] == [thrown_at, program]


def test_a_crash_without_a_stack_has_none():
    assert (thrown_frame(crash(throwing=None, blocked=None)), program_frame(crash(throwing=None, blocked=None))) == (
        None,
        None,
    )
