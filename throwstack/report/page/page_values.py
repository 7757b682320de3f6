# SPDX-License-Identifier: Apache-2.0
"""Values of reports as a page shows them: addresses, identifiers, sizes and times. Templates use these as filters."""

from __future__ import annotations

import datetime
from enum import Enum

from throwstack.core.sides import Side

UNKNOWN = "-"
"""What is shown in a column of addresses for a word that is not known."""
_KIBI = 1024
_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")


def digits_of(side: Side, architecture: str) -> int:
    """Return how many digits an address of `side` has, on a machine of `architecture` (`x86`, `x64`)."""
    if side is Side.KERNEL:
        return 8 if architecture == "x86" else 16
    return 8 if side is Side.X86 else 16


def address(value: int | None, digits: int) -> str:
    """Return an address as WinDbg prints it, `0341ac5e`, or `-` if it is not known."""
    return UNKNOWN if value is None else f"{value:0{digits}x}"


def number(value: int) -> str:
    """Return a number of a frame as WinDbg prints it: `0a`."""
    return f"{value:02x}"


def identifier(value: int) -> str:
    """Return a process or thread ID, `2564 (0xa04)`."""
    return f"{value} ({value:#x})"


def size(count: int) -> str:
    """Return a number of bytes, `5.1 MiB`."""
    if count < _KIBI:
        return f"{count} bytes"
    value = float(count)
    for unit in _UNITS:
        value /= _KIBI
        if value < _KIBI or unit == _UNITS[-1]:
            return f"{value:.1f} {unit}"
    raise AssertionError


def moment(time: datetime.datetime) -> str:
    """Return a time in UTC, `2008-03-14 20:26:39.687 UTC`, or `2008-03-14 20:26:40 UTC` if it is of a whole second."""
    if time.tzinfo is not None:
        time = time.astimezone(datetime.timezone.utc)
    shown = time.replace(tzinfo=None)
    return f"{shown.isoformat(sep=' ', timespec='milliseconds' if time.microsecond else 'seconds')} UTC"


def duration(seconds: float) -> str:
    """Return a length of time: `0.3 s`, `0:01:52`, `3 days 0:01:52`."""
    if 0 <= seconds < 60:
        return f"{seconds:.1f} s"
    try:
        text = str(datetime.timedelta(seconds=int(seconds)))
    except OverflowError:
        return f"{seconds:.0f} s"
    return text.replace(",", "")


def word(member: Enum) -> str:
    """Return the word that JSON has for a member of an enum: `thread-start`."""
    return member.name.lower().replace("_", "-")


def counted(count: int, one: str, many: str = "") -> str:
    """Return a number with its noun: `1 thread`, `2,564 threads`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
