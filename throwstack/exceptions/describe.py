# SPDX-License-Identifier: Apache-2.0
"""Turns an exception record into facts and words. Each kind of exception has its own module in `throwstack.exceptions`.

A code that has no module of its own is looked up as an NTSTATUS, then as an HRESULT. If it is less than 0x10000, it is
looked up as a Win32 error instead, because RPC raises Win32 errors. A code that is in no table was made up by the
program, and is shown with its parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from throwstack.core.exception_record import STACK_BUFFER_OVERRUN, ExceptionRecord, nested_records
from throwstack.core.memory import Memory
from throwstack.core.registers import Arch
from throwstack.exceptions import (
    clr,
    cpp,
    debugger_signals,
    delay_load,
    delphi,
    faults,
    gcc,
    other_runtimes,
    visual_basic,
    winrt,
)
from throwstack.exceptions.model import ExceptionKind, ExceptionText, ManagedThrow, RaisedException
from throwstack.exceptions.status import hresult, ntstatus, win32
from throwstack.images.image import ImageMap

_CUSTOMER_BIT = 0x20000000
_WIN32_LIMIT = 0x10000

_FAMILIES: dict[int, Callable[[RaisedException], ExceptionText]] = {
    faults.ACCESS_VIOLATION: faults.access_violation,
    faults.IN_PAGE_ERROR: faults.in_page_error,
    faults.GUARD_PAGE_VIOLATION: faults.guard_page,
    faults.STACK_OVERFLOW: faults.stack_overflow,
    STACK_BUFFER_OVERRUN: faults.stack_buffer_overrun,
    cpp.CPP: cpp.cpp_exception,
    clr.CLR: clr.clr_exception,
    clr.CLR_OLD: clr.clr_exception,
    delphi.DELPHI: delphi.delphi_exception,
    delphi.DELPHI_OLD: delphi.delphi_exception,
    gcc.GCC_THROW: gcc.gcc_exception,
    gcc.GCC_UNWIND: gcc.gcc_exception,
    gcc.GCC_FORCED: gcc.gcc_exception,
    debugger_signals.THREAD_NAME: debugger_signals.thread_name,
    debugger_signals.DEBUG_PRINT: debugger_signals.debug_print,
    debugger_signals.DEBUG_PRINT_WIDE: debugger_signals.debug_print,
    delay_load.DELAY_LOAD_MODULE: delay_load.delay_load,
    delay_load.DELAY_LOAD_FUNCTION: delay_load.delay_load,
    winrt.STOWED: winrt.stowed,
    visual_basic.FLOAT_INEXACT_RESULT: visual_basic.float_inexact,
    other_runtimes.GO_FATAL: other_runtimes.go_fatal,
    **dict.fromkeys(debugger_signals.SIGNALS, debugger_signals.signal),
}


def describe(
    record: ExceptionRecord,
    memory: Memory,
    images: ImageMap,
    arch: Arch,
    owner: Callable[[int], str] | None = None,
    *,
    managed: ManagedThrow | None = None,
) -> ExceptionText:
    """Describe a raised exception. Never raises an exception itself: `details` of the result say what is not in memory.

    Args:
        record: the exception record.
        memory: the process's memory. C++ type data is in the read-only pages of modules, so it should have these too.
        images: the process's modules.
        arch: the architecture of the code that raised it.
        owner: returns what an address outside all modules belongs to ("private memory, PAGE_READWRITE"), or "".
        managed: what .NET's runtime says of the exception; None in a process without a runtime.
    """
    raised = RaisedException(record, memory, images, arch, owner, managed)
    family = _FAMILIES.get(record.code)
    text = family(raised) if family is not None else _by_kind(raised)
    text = clr.with_managed_object(raised, text)
    return replace(text, details=(*text.details, *_common(raised)))


def _by_kind(raised: RaisedException) -> ExceptionText:
    return clr.fail_fast(raised) or other_runtimes.other_runtime(raised) or _by_code(raised)


def _by_code(raised: RaisedException) -> ExceptionText:
    code = raised.record.code
    status = win32(code) if code < _WIN32_LIMIT else ntstatus(code)
    if not status.name and code & 0x80000000:
        status = hresult(code)
        if status.name:
            return ExceptionText(ExceptionKind.STATUS, str(status), hresult=code)
    if status.name:
        kind = ExceptionKind.HARDWARE_FAULT if code in faults.WITHOUT_ADDRESS else ExceptionKind.STATUS
        return ExceptionText(kind, str(status))
    if code & _CUSTOMER_BIT:
        kind, words = ExceptionKind.APPLICATION, "defined by the application"
    else:
        kind, words = ExceptionKind.UNKNOWN, "unknown code"
    return ExceptionText(kind, _with_parameters(raised, f"0x{code:08X} ({words})"))


def _with_parameters(raised: RaisedException, title: str) -> str:
    parameters = raised.record.parameters
    if not parameters:
        return title
    return f"{title}, parameters {' '.join(f'0x{value:x}' for value in parameters)}"


def _common(raised: RaisedException) -> list[str]:
    """Return the details that the description of each exception has.

    These are the record's parameters and the exceptions during whose handling this one was raised (nested records).
    """
    record = raised.record
    details = []
    if record.parameters:
        details.append(_with_parameters(raised, f"code 0x{record.code:08X}"))
    if not record.is_well_formed:
        details.append(f"the record claims {record.declared_parameters} parameters")
    details += [
        f"raised while handling 0x{nested.code:08X} at {raised.hex(nested.address)}"
        for nested in nested_records(raised.memory, record, raised.arch)
    ]
    return details
