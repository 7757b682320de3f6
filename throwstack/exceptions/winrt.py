# SPDX-License-Identifier: Apache-2.0
"""WinRT: a program failed with errors that it had stowed away (0xC000027B).

An error that WinRT code returns is noted, and raised only when nobody has handled it: the parameters are an array of
pointers to STOWED_EXCEPTION_INFORMATION (size, signature `SE01` or `SE02`, HRESULT, …; Windows documentation) and how
many there are.
"""

from __future__ import annotations

from contextlib import suppress

from throwstack.core.memory import MemoryUnreadable
from throwstack.exceptions.model import ExceptionKind, ExceptionText, RaisedException
from throwstack.exceptions.status import hresult

STOWED = 0xC000027B
_MAX_STOWED = 64
_STOWED_SIGNATURES = (b"10ES", b"20ES")
"""The multi-character constants 'SE01' and 'SE02'."""


def stowed(raised: RaisedException) -> ExceptionText:
    """Describe a WinRT program's failure: the HRESULTs of the errors that were stowed away before it."""
    size = raised.arch.pointer_size
    codes: list[int] = []
    with suppress(MemoryUnreadable):
        for index in range(min(raised.parameter(1), _MAX_STOWED)):
            entry = raised.pointer(raised.parameter(0) + index * size)
            if raised.memory.read(entry + 4, 4) in _STOWED_SIGNATURES:
                codes.append(raised.memory.u32(entry + 8))
    if not codes:
        return ExceptionText(
            ExceptionKind.WINRT, "WinRT stowed exception", details=("the stowed errors are not in memory",)
        )
    details = tuple(f"stowed: {hresult(code)}" for code in codes[1:])
    return ExceptionText(
        ExceptionKind.WINRT, f"WinRT stowed exception, HRESULT {hresult(codes[0])}", hresult=codes[0], details=details
    )
