# SPDX-License-Identifier: Apache-2.0
"""Writes the results of a scan: the tables and lists, and the page, in one pass over the records."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from throwstack import __version__
from throwstack.scan.dump_record import DumpRecord
from throwstack.scan.overview.crash_groups import CrashGroups
from throwstack.scan.overview.overview_page import overview_page
from throwstack.scan.part_store import StorageFailed, durably_write
from throwstack.scan.scan_totals import ScanTotals
from throwstack.scan.table_files import write_tables

PAGE = "index.html"


def write_results(out: Path, records: Iterable[DumpRecord]) -> ScanTotals:
    """Write the results of `records` into the directory `out`, and return the totals. Raises StorageFailed."""
    totals, groups = ScanTotals(), CrashGroups()
    write_tables(out, groups.collected(totals.counted(records)))
    page = overview_page(groups.as_json(), version=__version__)
    try:
        durably_write(out / PAGE, page.encode("utf-8", "backslashreplace"))
    except OSError as error:
        message = f"{out / PAGE}: {error.strerror or error}"
        raise StorageFailed(message) from error
    return totals
