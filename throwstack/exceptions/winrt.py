# SPDX-License-Identifier: Apache-2.0
"""WinRT stowed exceptions (0xC000027B): a program failed because of errors that WinRT had recorded before.

WinRT records ("stows") an error that its code returns, and raises the exception only if nobody has handled the error.
The first parameter is the address of an array of pointers to STOWED_EXCEPTION_INFORMATION (size, signature `SE01` or
`SE02`, HRESULT, …; Windows documentation). The second parameter is the number of pointers.
"""

from __future__ import annotations

from contextlib import suppress

from throwstack.core.memory import MemoryUnreadable
from throwstack.exceptions.model import ExceptionKind, ExceptionText, RaisedException
from throwstack.exceptions.status import hresult

STOWED = 0xC000027B
_MAX_STOWED = 64
_STOWED_SIGNATURES = (b"10ES", b"20ES")
"""The multi-character constants 'SE01' and 'SE02' as they are in memory."""


def stowed(raised: RaisedException) -> ExceptionText:
    """Describe a WinRT stowed exception by the HRESULTs of the errors that were recorded before it."""
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
