# SPDX-License-Identifier: Apache-2.0
"""Faults that the processor or the memory manager raised, and fail-fast: what the parameters say in words.

Parameters of EXCEPTION_ACCESS_VIOLATION and EXCEPTION_IN_PAGE_ERROR: EXCEPTION_RECORD in the Windows documentation;
fail-fast: `__fastfail`, whose code is the first parameter of STATUS_STACK_BUFFER_OVERRUN since Windows 8.
"""

from __future__ import annotations

from throwstack.core.registers import Arch
from throwstack.exceptions.model import ExceptionText, RaisedException
from throwstack.exceptions.status import fast_fail_name, ntstatus

ACCESS_VIOLATION = 0xC0000005
IN_PAGE_ERROR = 0xC0000006
GUARD_PAGE_VIOLATION = 0x80000001
STACK_OVERFLOW = 0xC00000FD

_ACCESS = {0: "reading", 1: "writing", 8: "executing"}
_FAST_FAIL_HINTS = {
    2: "a function found its stack cookie overwritten",
    5: "the C runtime refused an argument",
    7: "abort, terminate or a failed check ended the program",
}


def access_violation(raised: RaisedException) -> ExceptionText:
    """Describe an access violation: which access, to which address, and what lies there."""
    details = []
    if (
        raised.arch is Arch.X64
        and raised.parameter(0) == 0
        and raised.parameter(1) == (1 << 64) - 1
        and len(raised.record.parameters) > 1
    ):
        details.append("the processor reports this address for every address that is not canonical")
    return _memory_fault(raised, "ACCESS_VIOLATION", details)


def guard_page(raised: RaisedException) -> ExceptionText:
    """Describe a touched guard page."""
    return _memory_fault(raised, "GUARD_PAGE_VIOLATION", [])


def stack_overflow(raised: RaisedException) -> ExceptionText:
    """Describe a stack overflow; the address is where the stack ran out."""
    return _memory_fault(raised, "STACK_OVERFLOW", [])


def in_page_error(raised: RaisedException) -> ExceptionText:
    """Describe a page that could not be read in: with the NTSTATUS of the failed read."""
    text = _memory_fault(raised, "IN_PAGE_ERROR", [])
    if len(raised.record.parameters) < 3:
        return text
    return ExceptionText(f"{text.title}, {ntstatus(raised.parameter(2))}", details=text.details)


def stack_buffer_overrun(raised: RaisedException) -> ExceptionText:
    """Describe a fail-fast by its code; without one it is the stack cookie check of older systems."""
    if not raised.record.parameters:
        return ExceptionText("STACK_BUFFER_OVERRUN", details=("a function found its stack cookie overwritten",))
    code = raised.parameter(0)
    name = fast_fail_name(code)
    title = f"fail-fast {code} {name}" if name else f"fail-fast {code}"
    hint = _FAST_FAIL_HINTS.get(code, "")
    return ExceptionText(title, details=(hint,) if hint else ())


def _memory_fault(raised: RaisedException, name: str, details: list[str]) -> ExceptionText:
    if len(raised.record.parameters) < 2:
        return ExceptionText(name, details=("the record does not say which address",))
    kind, address = raised.parameter(0), raised.parameter(1)
    place = raised.place(address)
    if place:
        details = [f"{raised.hex(address)}: {place}", *details]
    access = _ACCESS.get(kind, f"access {kind} at")
    return ExceptionText(f"{name} {access} {raised.hex(address)}", details=tuple(details))
