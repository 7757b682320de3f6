# SPDX-License-Identifier: Apache-2.0
"""Describes faults that the processor or the memory manager raised, and fail-fast, by their parameters.

The Windows documentation of EXCEPTION_RECORD describes the parameters of EXCEPTION_ACCESS_VIOLATION and
EXCEPTION_IN_PAGE_ERROR. The code of a fail-fast (`__fastfail`) is the first parameter of STATUS_STACK_BUFFER_OVERRUN
since Windows 8.
"""

from __future__ import annotations

from dataclasses import replace

from throwstack.core.registers import Arch
from throwstack.exceptions.model import ExceptionKind, ExceptionText, FaultAccess, RaisedException
from throwstack.exceptions.status import fast_fail_name, ntstatus

ACCESS_VIOLATION = 0xC0000005
IN_PAGE_ERROR = 0xC0000006
GUARD_PAGE_VIOLATION = 0x80000001
STACK_OVERFLOW = 0xC00000FD
WITHOUT_ADDRESS = frozenset(
    {
        *(0x80000002, 0x80000003, 0x80000004),  # misaligned data, breakpoint, single step
        *(0xC000001D, 0xC000001E, 0xC0000096),  # illegal instruction, invalid lock sequence, privileged instruction
        *range(0xC000008C, 0xC0000096),  # array bounds, floating-point numbers, integers
        *(0xC00002B4, 0xC00002B5, 0xC0000420),  # multiple floating-point faults and traps, assertion (int 2Ch)
    }
)
"""Codes of faults whose records have no parameters that say more, such as an address (ntstatus.h)."""
_RAISED_BY_INSTRUCTION = frozenset({0x80000003, 0xC000001D, 0xC0000420})
"""int3, ud2 and int 2Ch: what a function that reports a failure may end the program with."""

_ACCESSES = {0: FaultAccess.READ, 1: FaultAccess.WRITE, 8: FaultAccess.EXECUTE}
_WORDS = {FaultAccess.READ: "reading", FaultAccess.WRITE: "writing", FaultAccess.EXECUTE: "executing"}
_FAST_FAIL_HINTS = {
    2: "a function found its stack cookie overwritten",
    5: "the C runtime refused an argument",
    7: "abort, terminate or a failed check ended the program",
}


def is_fault(code: int) -> bool:
    """Say whether `code` is that of a fault of an instruction, and not of one that is there to raise an exception."""
    of_memory = code in {ACCESS_VIOLATION, IN_PAGE_ERROR, GUARD_PAGE_VIOLATION, STACK_OVERFLOW}
    return of_memory or (code in WITHOUT_ADDRESS and code not in _RAISED_BY_INSTRUCTION)


def access_violation(raised: RaisedException) -> ExceptionText:
    """Describe an access violation: the kind of access, the accessed address, and what is there.

    If the upper bits of an accessed address are not all equal, an x64 processor raises a general protection fault,
    which does not come with the address. So Windows reports a read of 0xffffffffffffffff, whatever the address was. In
    this case the description says so, and `fault_address` is None.
    """
    text = _memory_fault(raised, "ACCESS_VIOLATION")
    if raised.arch is not Arch.X64 or raised.record.parameters[:2] != (0, (1 << 64) - 1):
        return text
    details = (*text.details, "the processor reports this address for every address that is not canonical")
    return replace(text, fault_address=None, details=details)


def guard_page(raised: RaisedException) -> ExceptionText:
    """Describe an access to a guard page: the kind of access, the address, and what is there."""
    return _memory_fault(raised, "GUARD_PAGE_VIOLATION")


def stack_overflow(raised: RaisedException) -> ExceptionText:
    """Describe a stack overflow. The address in the record is where the stack ran out."""
    return _memory_fault(raised, "STACK_OVERFLOW")


def in_page_error(raised: RaisedException) -> ExceptionText:
    """Describe a page that could not be read from its file, with the NTSTATUS of the failed read."""
    text = _memory_fault(raised, "IN_PAGE_ERROR")
    if len(raised.record.parameters) < 3:
        return text
    return replace(text, title=f"{text.title}, {ntstatus(raised.parameter(2))}")


def stack_buffer_overrun(raised: RaisedException) -> ExceptionText:
    """Describe a fail-fast by its code, the first parameter.

    A record without parameters comes from the stack cookie check of systems before Windows 8. NativeAOT of .NET leaves
    a buffer that says more.
    """
    if not raised.record.parameters:
        return ExceptionText(
            ExceptionKind.FAIL_FAST, "STACK_BUFFER_OVERRUN", details=("a function found its stack cookie overwritten",)
        )
    from throwstack.exceptions.native_aot import native_aot_failure  # noqa: PLC0415 imports what reads objects of .NET

    of_runtime = native_aot_failure(raised)
    if of_runtime is not None:
        return of_runtime
    code = raised.parameter(0)
    name = fast_fail_name(code)
    title = f"fail-fast {code} {name}" if name else f"fail-fast {code}"
    hint = _FAST_FAIL_HINTS.get(code, "")
    return ExceptionText(ExceptionKind.FAIL_FAST, title, details=(hint,) if hint else ())


def _memory_fault(raised: RaisedException, name: str) -> ExceptionText:
    if len(raised.record.parameters) < 2:
        return ExceptionText(ExceptionKind.HARDWARE_FAULT, name, details=("the record does not say which address",))
    address, access = raised.parameter(1), _ACCESSES.get(raised.parameter(0))
    place = raised.place(address)
    words = f"access {raised.parameter(0)} at" if access is None else _WORDS[access]
    return ExceptionText(
        ExceptionKind.HARDWARE_FAULT,
        f"{name} {words} {raised.hex(address)}",
        fault_address=address,
        fault_kind=access,
        details=(f"{raised.hex(address)}: {place}",) if place else (),
    )
