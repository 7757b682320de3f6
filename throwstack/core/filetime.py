# SPDX-License-Identifier: Apache-2.0
"""FILETIME: Windows counts time in units of 100 ns since the beginning of 1601, UTC."""

from __future__ import annotations

import datetime

_EPOCH = datetime.datetime(1601, 1, 1, tzinfo=datetime.timezone.utc)


def time_of(filetime: int) -> datetime.datetime | None:
    """Return the UTC time of a FILETIME, or None if it is after the year 9999."""
    try:
        return _EPOCH + datetime.timedelta(microseconds=filetime // 10)
    except OverflowError:
        return None
