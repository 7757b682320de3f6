# SPDX-License-Identifier: Apache-2.0
"""Names and messages of NTSTATUS, HRESULT and Win32 error codes, of the CLR's HRESULTs, and of fail-fast codes.

The tables in data/ are made from [MS-ERREF] and other sources: see tools/make_status_tables.py and data/NOTICE.
[MS-ERREF] section 2.1 says how an HRESULT is made of severity, facility and code, and how the other codes are embedded
in one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_FACILITY_MASK = 0xFFFF0000
_FACILITY_WIN32 = 0x80070000
_NT_BIT = 0x10000000


@dataclass(frozen=True, slots=True)
class Status:
    """A 32-bit code with its name and message. Both are "" if no table has the code."""

    code: int
    name: str
    message: str

    def __str__(self) -> str:
        """Return `0x80004003 E_POINTER (Invalid pointer)`, without the name or message if it is not known."""
        parts = [f"0x{self.code:08X}", self.name, f"({self.message})" if self.message else ""]
        return " ".join(part for part in parts if part)


def ntstatus(code: int) -> Status:
    """Return name and message of `code` as an NTSTATUS."""
    return _look_up("ntstatus", code)


def win32(code: int) -> Status:
    """Return name and message of `code` as a Win32 error."""
    return _look_up("win32", code)


def hresult(code: int) -> Status:
    """Return name and message of `code` as an HRESULT.

    The HRESULT may have a name of its own, be one of the CLR's, or have a Win32 error or an NTSTATUS embedded in it.
    The message of an HRESULT of the facility Win32 is that of the Win32 error, as FormatMessage gives it.
    """
    code &= 0xFFFFFFFF
    found = _look_up("hresult", code)
    if code & _FACILITY_MASK == _FACILITY_WIN32:
        inner = win32(code & 0xFFFF)
        name = found.name or (f"HRESULT_FROM_WIN32({inner.name})" if inner.name else "")
        return Status(code, name, inner.message or found.message)
    if found.name:
        return found
    if code & _NT_BIT and ntstatus(code & ~_NT_BIT).name:
        inner = ntstatus(code & ~_NT_BIT)
        return Status(code, f"HRESULT_FROM_NT({inner.name})", inner.message)
    return Status(code, _table("clr").get(code, ("", ""))[0], "")


def managed_exceptions(code: int) -> tuple[str, ...]:
    """Return the .NET exception classes that have this HRESULT, the usual one first (`System.IO.IOException`)."""
    return tuple(_table("clr").get(code & 0xFFFFFFFF, ("", ""))[1].split())


def fast_fail_name(code: int) -> str:
    """Return the name of a fail-fast code (`FAST_FAIL_CORRUPT_LIST_ENTRY`), or "" if the code is not known."""
    return _table("fastfail").get(code, ("", ""))[0]


def _look_up(table: str, code: int) -> Status:
    code &= 0xFFFFFFFF
    return Status(code, *_table(table).get(code, ("", "")))


@cache
def _table(name: str) -> dict[int, tuple[str, str]]:
    text = (files("throwstack.exceptions") / "data" / f"{name}.tsv").read_text("ascii")
    rows = (line.split("\t") for line in text.splitlines() if not line.startswith("#"))
    return {int(code, 16): (symbol, message) for code, symbol, message in rows}
