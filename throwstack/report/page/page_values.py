# SPDX-License-Identifier: Apache-2.0
"""Values of reports as a page shows them. Templates use these as filters, with those of the text's `spelling`."""

from __future__ import annotations

import datetime
from enum import Enum

from throwstack.report.text import spelling

_KIBI = 1024
_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")


def place(value: int | None, is_64bit: bool | None = None) -> str:
    """Return an address as WinDbg prints it; without `is_64bit` it has as many digits as it takes."""
    wide = is_64bit if is_64bit is not None else value is not None and spelling.is_wide(value)
    return spelling.address(value, is_64bit=wide)


def number(value: int) -> str:
    """Return the number of a frame as WinDbg prints it: `0a`."""
    return f"{value:02x}"


def short(text: str, limit: int = 160) -> str:
    """Return a text that fits a heading: cut after `limit` characters, with `…`."""
    return text if len(text) <= limit else f"{text[:limit]}…"


def size(count: int) -> str:
    """Return a number of bytes, `5.1 MiB`."""
    if count < _KIBI:
        return spelling.count(count, "byte")
    power = min((count.bit_length() - 1) // 10, len(_UNITS))
    return f"{count / _KIBI**power:,.1f} {_UNITS[power - 1]}"


def moment(time: datetime.datetime) -> str:
    """Return a time in UTC, `2008-03-14 20:26:39.687 UTC`, or `2008-03-14 20:26:40 UTC` if it is of a whole second."""
    return f"{spelling.time(time, digits=3 if time.microsecond else 0)} UTC"


def word(member: Enum) -> str:
    """Return the word that JSON has for a member of an enum: `thread-start`."""
    return member.name.lower().replace("_", "-")
