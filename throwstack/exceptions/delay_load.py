# SPDX-License-Identifier: Apache-2.0
"""Exceptions of delay-loaded imports: a DLL or function was not found when the program first called the function.

The helper that the linker adds to a program raises these exceptions. The first parameter points to DelayLoadInfo
(delayimp.h): size, descriptor, thunk, name of the DLL, whether the function is imported by name, and that name or the
ordinal.
"""

from __future__ import annotations

from throwstack.core.memory import MemoryUnreadable
from throwstack.core.text import ansi_at
from throwstack.exceptions.model import ExceptionKind, ExceptionText, RaisedException

DELAY_LOAD_MODULE = 0xC06D007E
DELAY_LOAD_FUNCTION = 0xC06D007F


def delay_load(raised: RaisedException) -> ExceptionText:
    """Describe a failed delay-loaded import by the names of the DLL and, if the DLL was found, of the function."""
    what = "DLL" if raised.record.code == DELAY_LOAD_MODULE else "function"
    title = f"delay-loaded {what} not found"
    size = raised.arch.pointer_size
    info = raised.parameter(0)
    try:
        dll = ansi_at(raised.memory, raised.pointer(info + (12 if size == 4 else 24)))
    except MemoryUnreadable:
        return ExceptionText(ExceptionKind.DELAY_LOAD, title, details=("the name is not in memory",))
    if raised.record.code == DELAY_LOAD_MODULE:
        return ExceptionText(ExceptionKind.DELAY_LOAD, f"{title}: {dll}", message=dll)
    try:
        by_name = raised.memory.u32(info + (16 if size == 4 else 32))
        which = raised.pointer(info + (20 if size == 4 else 40))
        function = ansi_at(raised.memory, which) if by_name else f"#{which & 0xFFFF}"
    except MemoryUnreadable:
        return ExceptionText(
            ExceptionKind.DELAY_LOAD, f"{title}: in {dll}", details=("the function's name is not in memory",)
        )
    return ExceptionText(ExceptionKind.DELAY_LOAD, f"{title}: {dll}!{function}", message=f"{dll}!{function}")
