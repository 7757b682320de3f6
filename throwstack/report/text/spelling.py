# SPDX-License-Identifier: Apache-2.0
"""Spells figures as WinDbg does: addresses of 8 digits, or of 16 with a backtick in the middle."""

from __future__ import annotations

import datetime
import re
import shlex

from throwstack.report.crash_report import CrashReport

_WIDE = 1 << 32
_NEEDS_NO_QUOTES = re.compile(r"[\w.,:+@%/\\-]+")
"""What has no meaning of its own on a command line, of a shell or of Windows."""
_MEANS_MORE = re.compile(r'["$`!\\]')
"""What has a meaning for a shell in double quotation marks."""


def address(value: int | None, *, is_64bit: bool) -> str:
    """Return `045ba888`, or ``00000012`345ba888``; question marks for a value that is not known."""
    if value is None:
        return "????????`????????" if is_64bit else "????????"
    return f"{value >> 32:08x}`{value & 0xFFFFFFFF:08x}" if is_64bit else f"{value:08x}"


def bare_address(value: int, *, is_64bit: bool) -> str:
    """Return an address without a backtick, as commands take it: `045ba888`, `0000001200000034`."""
    return f"{value:0{16 if is_64bit else 8}x}"


def is_64bit_code(crash: CrashReport) -> bool:
    """Say whether the code that a thread is stuck in is 64-bit."""
    return crash.arch == "x64"


def is_64bit_system(crash: CrashReport) -> bool:
    """Say whether Windows is 64-bit where a thread is stuck."""
    return crash.arch != "x86"


def is_wide(value: int) -> bool:
    """Say whether an address takes 16 digits: that of a kernel structure on 64-bit Windows."""
    return value >= _WIDE


def both_bases(number: int) -> str:
    """Return an identifier in decimal, and as WinDbg shows it: `2564 = 0xa04`."""
    return f"{number} = {number:#x}"


def time(moment: datetime.datetime, *, digits: int = 0) -> str:
    """Return `2008-03-14 20:26:39`, with up to three digits of fractions of a second."""
    text = f"{moment:%Y-%m-%d %H:%M:%S}"
    return f"{text}.{moment.microsecond // 1000:03d}"[: len(text) + 1 + digits] if digits else text


def duration(seconds: float) -> str:
    """Return `0:01:52`, or `0.3 s` if it is less than a minute; `3 days 0:01:52` if it is more than a day."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return str(datetime.timedelta(seconds=int(seconds)))


def count(number: int, noun: str, plural: str = "") -> str:
    """Return `1 thread`, `1,200 threads`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def argument(text: str) -> str:
    """Return `text` as an argument on a command line: in quotation marks if it has spaces or the like.

    A command line of Windows knows double ones alone; a shell does as it reads in double ones if there is a `$`.
    """
    path = f"./{text}" if text.startswith("-") else text
    if _NEEDS_NO_QUOTES.fullmatch(path):
        return path
    return shlex.quote(path) if _MEANS_MORE.search(path) else f'"{path}"'
