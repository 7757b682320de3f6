# SPDX-License-Identifier: Apache-2.0
"""Exceptions by which a program tells a debugger something: a thread's name, a line of text, a caught exception.

Sources: THREADNAME_INFO (Microsoft's documentation of how to name a thread by an exception), DBG_PRINTEXCEPTION_C of
ntstatus.h, and the sources of the runtimes named.
"""

from __future__ import annotations

from throwstack.core.memory import MemoryUnreadable
from throwstack.core.text import ansi_at, in_quotes, wide_at
from throwstack.exceptions.model import ExceptionKind, ExceptionText, RaisedException

THREAD_NAME = 0x406D1388
DEBUG_PRINT = 0x40010006
DEBUG_PRINT_WIDE = 0x4001000A

SIGNALS = {
    0x40010005: "Ctrl+C, told to a debugger",
    0x40010008: "Ctrl+Break, told to a debugger",
    0x4001000E: "a Unicode debug message",
    0x0000087A: "DXGI: a debug message, told to a debugger",
    0x04242420: "the CLR's notification to a debugger",
    0x40080201: "WinRT: an error was originated, told to a debugger",
    0x40080202: "WinRT: an error was transformed, told to a debugger",
    0x0EEDFADF: "Delphi: an exception is raised again, told to a debugger",
    0x0EEDFAE0: "Delphi: an except block was found, told to a debugger",
    0x0EEDFAE1: "Delphi: a finally block runs, told to a debugger",
    0x0EEDFAE2: "Delphi: an exception ends the program, told to a debugger",
    0x0EEDFAE3: "Delphi: an exception is unhandled, told to a debugger",
    0x0EEDFAE4: "Delphi: an exception of another language, told to a debugger",
    0x0EEDFAE5: "Delphi: a finally block is left, told to a debugger",
}


_DBG_FACILITY = 0x4001
"""The upper half of the codes DBG_* of ntstatus.h that inform a debugger, such as DBG_PRINTEXCEPTION_C."""


def is_debugger_signal(code: int) -> bool:
    """Say whether an exception with this code only tells a debugger something, whoever handles it."""
    return code in SIGNALS or code == THREAD_NAME or code >> 16 == _DBG_FACILITY


def signal(raised: RaisedException) -> ExceptionText:
    """Describe an exception of `SIGNALS`, which only informs a debugger."""
    return ExceptionText(ExceptionKind.DEBUGGER_SIGNAL, f"0x{raised.record.code:08X}: {SIGNALS[raised.record.code]}")


def thread_name(raised: RaisedException) -> ExceptionText:
    """Describe the exception by which a program tells a debugger a thread's name."""
    name = _string(raised, 1, is_wide=False) if len(raised.record.parameters) > 1 else ""
    quoted = f" {in_quotes(name)}" if name else ""
    return ExceptionText(ExceptionKind.DEBUGGER_SIGNAL, f"thread name{quoted} told to a debugger", message=name)


def debug_print(raised: RaisedException) -> ExceptionText:
    """Describe the exception by which OutputDebugString passes length and text of a message to a debugger."""
    text = _string(raised, 1, is_wide=raised.record.code == DEBUG_PRINT_WIDE)
    quoted = f" {in_quotes(text)}" if text else ""
    return ExceptionText(ExceptionKind.DEBUGGER_SIGNAL, f"debug message{quoted}", message=text)


def _string(raised: RaisedException, index: int, *, is_wide: bool) -> str:
    try:
        return (wide_at if is_wide else ansi_at)(raised.memory, raised.parameter(index))
    except MemoryUnreadable:
        return ""
