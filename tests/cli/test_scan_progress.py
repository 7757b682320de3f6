# SPDX-License-Identifier: Apache-2.0
"""What is said on standard error while a scan goes on."""

from __future__ import annotations

import json
from collections import Counter

import pytest

pytest.importorskip("psutil")

from throwstack.cli import scan_progress
from throwstack.cli.scan_progress import progress_display
from throwstack.scan.dump_record import DumpOutcome
from throwstack.scan.run_scan import ScanCount

BEGIN = ScanCount(10, before=2)
MIDDLE = ScanCount(10, before=2, outcomes=Counter({DumpOutcome.EXAMINED: 3, DumpOutcome.FAILED: 1}), crashes=5)
END = ScanCount(10, before=2, outcomes=Counter({DumpOutcome.EXAMINED: 8}), crashes=7)


@pytest.fixture(autouse=True)
def _clock(monkeypatch):
    """A clock that goes on by ten seconds whenever it is asked."""
    ticks = iter(range(0, 10_000, 10))
    monkeypatch.setattr(scan_progress.time, "monotonic", lambda: float(next(ticks)))


def watched(**options) -> None:
    with progress_display(**{"is_quiet": False, "as_json": False, **options}) as watch:
        for count in (BEGIN, MIDDLE, END):
            watch(count)


def test_lines_where_there_is_no_terminal(capsys):
    watched()
    assert capsys.readouterr().err.splitlines() == [
        "2 of 10 dumps, 2 done before, 0 crashes",
        "10 of 10 dumps, 16.0 a minute, 7 crashes",
    ]


def test_lines_of_json_for_scripts(capsys):
    watched(as_json=True)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["done"] for line in lines] == [0, 4, 8]
    assert lines[1] == {
        "total": 10,
        "done_before": 2,
        "done": 4,
        "failed": 1,
        "crashes": 5,
        "seconds": 20.0,
        "dumps_per_second": 0.2,
        "seconds_left": 20.0,
    }


def test_nothing_if_quiet(capsys):
    watched(is_quiet=True)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("seconds", "shown"), [(0.4, "0:00:00"), (61, "0:01:01"), (36_000, "10:00:00")])
def test_time_that_is_left(seconds, shown):
    assert scan_progress._duration(seconds) == shown
