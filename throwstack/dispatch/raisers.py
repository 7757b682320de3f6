# SPDX-License-Identifier: Apache-2.0
"""Functions that raise an exception in software: they build its CONTEXT from their own state or their caller's.

A fault's CONTEXT is where the fault was, so that its ip is the record's address. For an exception that one of these
functions raises, both may differ:

- x64 RtlRaiseStatus (ntdll of 17763 and 26100) captures its own state into its own frame. The ip is in RtlRaiseStatus,
  and the CONTEXT is above the sp that it holds.
- The CLR raises a fault anew. An unhandled NullReferenceException of .NET Core 3.1 and 8 on x64 has a record 0xC0000005
  whose address is the instruction that faulted, in code of the JIT compiler. Its CONTEXT is that of the second raise,
  whose ip is in RaiseException.
- The CLR ends its process: Environment.FailFast, or an error of its own (EEPolicy::HandleFatalError). It makes the
  record itself, zeroed but for the code, an HRESULT of its facility, and the address, which is where managed code
  called it. The CONTEXT is of the function of the runtime that makes both, in whose frame they are.
"""

from __future__ import annotations

from throwstack.core.exception_record import ExceptionRecord
from throwstack.managed.runtime_module import is_runtime
from throwstack.names.dispatch_functions import DispatchRole, functions_of
from throwstack.names.symbols import Name
from throwstack.unwind.target import Target

FAIL_FAST = "RaiseFailFastException"
_RAISING = functions_of(DispatchRole.RAISER) | {"RaiseException", FAIL_FAST}
_CAPTURE_THEMSELVES = frozenset({"RtlRaiseStatus", FAIL_FAST})
_MODULES = frozenset({"ntdll", "kernel32", "kernelbase"})
_LOWEST_CODE = 0x40000000
_CLR_FACILITY = 0x8013
_NONCONTINUABLE = 1
MAX_FLAGS = 0xFF
"""The largest flags of a record: any of EXCEPTION_NONCONTINUABLE (1) to EXCEPTION_SOFTWARE_ORIGINATE (0x80)."""


def is_in_raiser(target: Target, ip: int) -> bool:
    """Say whether `ip`, a return address in a captured CONTEXT, is known to be in a function that raises exceptions."""
    return is_raiser(target.symbols.name(ip, is_return_address=True))


def is_raiser(name: Name) -> bool:
    """Say whether `name` is known to be that of a function that raises exceptions."""
    return _is_among(_RAISING, name)


def captures_itself(target: Target, ip: int) -> bool:
    """Say whether `ip` is in a function that may have the CONTEXT of its own state in its frame.

    On x86 no function has, because RtlCaptureContext captures there what the function that calls it returns to.
    """
    name = target.symbols.name(ip, is_return_address=True)
    return not target.arch.facts.arguments_on_stack and _is_among(_CAPTURE_THEMSELVES, name)


def is_fail_fast_of_clr(target: Target, record: ExceptionRecord, ip: int) -> bool:
    """Say whether the runtime of .NET made `record` to end its process; `ip` is that of the CONTEXT with it.

    Example: of Environment.FailFast the code is 0x80131623 COR_E_FAILFAST.
    """
    return record.code >> 16 == _CLR_FACILITY and is_made_by_clr(target, record, ip)


def is_made_by_clr(target: Target, record: ExceptionRecord, ip: int) -> bool:
    """Say whether the runtime of .NET may have made `record` to end its process, whatever the code is.

    Example: managed code calls native code, which faults. .NET Core 2.1 ends the process with a second record of the
    same code, 0xC0000005, which has no parameters and the address of a function of the runtime.
    """
    if record.flags & ~_NONCONTINUABLE or record.nested or not record.address:
        return False
    if record.parameters or not record.is_well_formed or not target.images.is_code(ip):
        return False
    image = target.images.find(ip)
    return image is not None and is_runtime(image)


def _is_among(functions: frozenset[str], name: Name) -> bool:
    return name.symbol in functions and name.module.lower() in _MODULES and name.is_certain


def is_plausible_record(target: Target, record: ExceptionRecord) -> bool:
    """Say whether `record` can be an exception's, whatever its CONTEXT is.

    The code is an NTSTATUS with a severity or one of a runtime, and not an address in an image. The instruction that
    the record names can be read, as far as it is in an image it is code.
    """
    if not (record.is_well_formed and has_plausible_head(target, record)):
        return False
    if target.images.find(record.address) is not None:
        return target.images.is_code(record.address)
    return bool(record.address) and target.memory.is_readable(record.address)


def has_plausible_head(target: Target, record: ExceptionRecord) -> bool:
    """Say whether code, flags and the pointer to the next record can be an exception record's.

    Example of words that are not a record: a saved instruction pointer three words after a small number. A code that
    Windows or a runtime raises starts with 0x4, 0x8 or 0xC (NTSTATUS), or 0xE (the C++ runtime, the CLR), and is not an
    address in an image.
    """
    if record.code < _LOWEST_CODE or record.flags > MAX_FLAGS or target.images.find(record.code) is not None:
        return False
    return not record.nested or target.memory.is_readable(record.nested)
