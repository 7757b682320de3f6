# SPDX-License-Identifier: Apache-2.0
"""The totals that a scan prints."""

from __future__ import annotations

from dataclasses import replace

from tests.scan.made_records import made_crash, made_record
from throwstack.scan.dump_record import DumpOutcome, DumpRecord
from throwstack.scan.scan_totals import ScanTotals


def test_dumps_by_outcome_and_crashes_by_signature():
    totals = ScanTotals()
    records = [
        made_record("/a", made_crash("app!g"), made_crash("app!f")),
        made_record("/b", made_crash("app!f"), {**made_crash(), "signature": {"text": "x", "digest": "1"}}),
        DumpRecord("/c", "k", DumpOutcome.TIMED_OUT),
    ]
    assert list(totals.counted(records)) == records
    assert list(totals.lines()) == [
        "3 dumps: 2 examined",
        "       1 timed out",
        "4 stuck threads, 3 signatures",
        "       2 app!f (0123abcd)",
        "       1 app!g (0123abcd)",
        "       1 x (1)",
    ]
    assert (totals.dumps, totals.failed) == (3, 1)


def test_more_signatures_than_are_printed():
    totals = ScanTotals()
    list(totals.counted([made_record("/a", *(made_crash(f"app!f{number}") for number in range(13)))]))
    assert list(totals.lines())[-1] == "         and 3 more"


def test_files_that_were_asked_for_and_not_written():
    totals = ScanTotals()
    full = replace(made_record("/a", made_crash()), files_problem="/out/reports: No space left on device")
    list(totals.counted([full, made_record("/b")]))
    assert list(totals.lines())[1] == (
        "       1 of which not all reports or minidumps were written: /out/reports: No space left on device"
    )
