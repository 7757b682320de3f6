# SPDX-License-Identifier: Apache-2.0
"""Runtimes whose exceptions are recognized by the code alone: C++Builder, Free Pascal, LuaJIT, Go, Chromium, Crashpad.

The codes are from the source code of these runtimes.
"""

from __future__ import annotations

from throwstack.exceptions.model import ExceptionKind, ExceptionText, RaisedException
from throwstack.exceptions.status import win32

GO_FATAL = 2
_LUAJIT = 0xE24C4A00
_LUAJIT_MASK = 0xFFFFFF00
"""The last byte of LuaJIT's code is the kind of error."""
_NAMES = {
    0x0EEFFACE: "C++ exception (C++Builder)",
    0xE0465043: "Free Pascal exception",
    0xE0000008: "out of memory (Chromium)",
    0x0517A7ED: "dump requested without a crash (Crashpad)",
    0xCFFFFFFF: "application hang (a report of WER's, not raised)",
}


def other_runtime(raised: RaisedException) -> ExceptionText | None:
    """Describe an exception of one of these runtimes by its code alone, or return None for other codes."""
    if raised.record.code & _LUAJIT_MASK == _LUAJIT:
        return ExceptionText(ExceptionKind.OTHER_RUNTIME, "LuaJIT error")
    name = _NAMES.get(raised.record.code)
    return ExceptionText(ExceptionKind.OTHER_RUNTIME, name) if name is not None else None


def go_fatal(raised: RaisedException) -> ExceptionText:
    """Describe the code with which Go's runtime fails fast after a fatal error, if GOTRACEBACK=wer tells it to.

    The code is also a Win32 error, and RPC raises Win32 errors in the same way. A record with parameters is not of Go.
    """
    status = win32(raised.record.code)
    return ExceptionText(
        ExceptionKind.STATUS, str(status) if raised.record.parameters else f"{status} or a fatal error of a Go program"
    )
