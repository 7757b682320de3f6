# SPDX-License-Identifier: Apache-2.0
"""Recognizes a CONTEXT that a function has captured of its caller, and whose eip is therefore a return address.

RtlCaptureContext stores the registers with which the function that called it will return: eip is its return address,
and esp and ebp are those of its caller. `_invoke_watson`, `__report_gsfailure` and `abort` report such a CONTEXT. As
they never return, the compiler may have ended the calling function with the call:

    outer:  ... call report          eip is the address after this call,
    next:   push ebp                 which is the first byte of another function, or filling before one

If eip is taken for an address at which code was stopped, the frame gets the name of `next`, and is unwound as if `next`
had just been entered. But at the entry of a function the word at esp is a return address. Here it is not.
"""

from __future__ import annotations

from throwstack.core.memory import MemoryUnreadable
from throwstack.core.registers import Registers
from throwstack.unwind.x86.code import Code
from throwstack.unwind.x86.function_starts import FunctionStarts
from throwstack.unwind.x86.return_address import ReturnAddresses

_FILLING = b"\xcc\x90"
_ALIGNMENT = 16


def is_captured_return(registers: Registers, code: Code, calls: ReturnAddresses, starts: FunctionStarts) -> bool:
    """Say whether the ip of `registers`, those of a CONTEXT, is the return address of a call that never returns.

    `calls` finds the calls before an address. `starts` guesses the starts of functions that symbols do not name.
    """
    ip = registers.ip
    if not calls.calls_before(ip) or not _begins_function(ip, code, starts):
        return False
    try:
        return not calls.calls_before(code.memory.u32(registers.sp))
    except MemoryUnreadable:
        return False


def _begins_function(ip: int, code: Code, starts: FunctionStarts) -> bool:
    """Say whether a function begins at `ip`, or after filling up to the next multiple of 16."""
    aligned = (ip + _ALIGNMENT - 1) & -_ALIGNMENT
    filling = code.memory.read_available(ip, aligned - ip)
    if len(filling) < aligned - ip or filling.strip(_FILLING):
        aligned = ip
    return any(code.is_function_start(start) or starts.nearest(start) == start for start in {ip, aligned})
