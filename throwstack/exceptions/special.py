# SPDX-License-Identifier: Apache-2.0
"""Exceptions with a meaning of their own: signals to a debugger, delay loading, WinRT, Visual Basic, other runtimes.

Sources: `DelayLoadInfo` of delayimp.h; STOWED_EXCEPTION_INFORMATION of the Windows documentation; the documentation of
SetThreadDescription's predecessor (THREADNAME_INFO); the sources of the runtimes named.
"""

from __future__ import annotations

from contextlib import suppress

from throwstack.core.memory import MemoryUnreadable
from throwstack.core.registers import Arch
from throwstack.core.text import ansi_at, wide_at
from throwstack.exceptions.model import ExceptionText, RaisedException
from throwstack.exceptions.status import hresult, win32

THREAD_NAME = 0x406D1388
DEBUG_PRINT = 0x40010006
DEBUG_PRINT_WIDE = 0x4001000A
DELAY_LOAD_MODULE = 0xC06D007E
DELAY_LOAD_FUNCTION = 0xC06D007F
STOWED = 0xC000027B
FLOAT_INEXACT_RESULT = 0xC000008F

SIGNALS = {
    0x40010005: "Ctrl+C, told to a debugger",
    0x40010008: "Ctrl+Break, told to a debugger",
    0x4001000E: "a Unicode debug message",
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
FOREIGN = {
    0x0EEFFACE: "C++ exception (C++Builder)",
    0xE0465043: "Free Pascal exception",
    0xE0000008: "out of memory (Chromium)",
    0x0517A7ED: "dump requested without a crash (Crashpad)",
    0xCFFFFFFF: "application hang (a report of WER's, not raised)",
}
GO_FATAL = 2
_LUAJIT = 0xE24C4A00
_LUAJIT_MASK = 0xFFFFFF00
_MAX_STOWED = 64
_STOWED_SIGNATURES = (b"10ES", b"20ES")
"""The multi-character constants 'SE01' and 'SE02'."""


def signal(raised: RaisedException) -> ExceptionText:
    """Describe a signal to a debugger."""
    return ExceptionText(f"0x{raised.record.code:08X}: {SIGNALS[raised.record.code]}", is_crash=False)


def foreign(raised: RaisedException) -> ExceptionText | None:
    """Describe an exception of another runtime by its code alone, or return None."""
    if raised.record.code & _LUAJIT_MASK == _LUAJIT:
        return ExceptionText("LuaJIT error")
    name = FOREIGN.get(raised.record.code)
    return ExceptionText(name) if name is not None else None


def thread_name(raised: RaisedException) -> ExceptionText:
    """Describe the exception by which a program tells a debugger a thread's name."""
    name = _string(raised, 1, is_wide=False) if len(raised.record.parameters) > 1 else ""
    quoted = f' "{name}"' if name else ""
    return ExceptionText(f"thread name{quoted} told to a debugger", message=name, is_crash=False)


def debug_print(raised: RaisedException) -> ExceptionText:
    """Describe OutputDebugString's exception: length and text."""
    text = _string(raised, 1, is_wide=raised.record.code == DEBUG_PRINT_WIDE)
    quoted = f' "{text}"' if text else ""
    return ExceptionText(f"debug message{quoted}", message=text, is_crash=False)


def _string(raised: RaisedException, index: int, *, is_wide: bool) -> str:
    try:
        return (wide_at if is_wide else ansi_at)(raised.memory, raised.parameter(index))
    except MemoryUnreadable:
        return ""


def delay_load(raised: RaisedException) -> ExceptionText:
    """Describe a failed delayed import: which DLL, and which function of it."""
    what = "DLL" if raised.record.code == DELAY_LOAD_MODULE else "function"
    title = f"delay-loaded {what} not found"
    size = raised.arch.pointer_size
    info = raised.parameter(0)
    try:
        dll = ansi_at(raised.memory, raised.pointer(info + (12 if size == 4 else 24)))
    except MemoryUnreadable:
        return ExceptionText(title, details=("the name is not in memory",))
    if raised.record.code == DELAY_LOAD_MODULE:
        return ExceptionText(f"{title}: {dll}", message=dll)
    try:
        by_name = raised.memory.u32(info + (16 if size == 4 else 32))
        which = raised.pointer(info + (20 if size == 4 else 40))
        function = ansi_at(raised.memory, which) if by_name else f"#{which & 0xFFFF}"
    except MemoryUnreadable:
        return ExceptionText(f"{title}: in {dll}", details=("the function's name is not in memory",))
    return ExceptionText(f"{title}: {dll}!{function}", message=f"{dll}!{function}")


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
        return ExceptionText("WinRT stowed exception", details=("the stowed errors are not in memory",))
    details = tuple(f"stowed: {hresult(code)}" for code in codes[1:])
    return ExceptionText(f"WinRT stowed exception, HRESULT {hresult(codes[0])}", hresult=codes[0], details=details)


def go_fatal(raised: RaisedException) -> ExceptionText:
    """Describe the code with which Go's runtime fails fast after a fatal error, if it is to (GOTRACEBACK=wer).

    RPC raises Win32 errors the same way, and this is one of those too.
    """
    status = win32(raised.record.code)
    return ExceptionText(str(status) if raised.record.parameters else f"{status} or a fatal error of a Go program")


def float_inexact(raised: RaisedException) -> ExceptionText:
    """Describe a float trap, which Visual Basic 5 and 6 also raise for every run-time error of theirs."""
    is_basic = any(image.module.label.lower().startswith("msvbvm") for image in raised.images)
    if is_basic and raised.arch is Arch.X86:
        return ExceptionText(
            "Visual Basic run-time error",
            details=("raised as FLOAT_INEXACT_RESULT; the Visual Basic runtime is loaded",),
        )
    return ExceptionText("FLOAT_INEXACT_RESULT")
