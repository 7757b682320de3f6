# SPDX-License-Identifier: Apache-2.0
"""FILETIMEs: where they begin, one that WinDbg shows, and one that no calendar has."""

from __future__ import annotations

from throwstack.core.filetime import time_of


def test_filetimes_count_from_1601_in_units_of_100_ns():
    assert str(time_of(0)) == "1601-01-01 00:00:00+00:00"
    assert str(time_of(116444736000000000)) == "1970-01-01 00:00:00+00:00"


def test_a_filetime_after_the_year_9999_is_no_time():
    assert time_of((1 << 64) - 1) is None
