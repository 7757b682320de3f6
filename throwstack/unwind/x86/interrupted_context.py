# SPDX-License-Identifier: Apache-2.0
"""Finds the CONTEXT of code that the kernel interrupted to run one of ntdll's dispatchers, which no `ret` leaves.

For an exception or an APC the kernel saves a CONTEXT of the interrupted code on the user's stack and lets the thread go
on in a dispatcher, which ends with NtContinue(CONTEXT). So the dispatcher's frame has no return address. The CONTEXT is
found by esp before the call that the dispatcher makes:

- KiUserExceptionDispatcher is entered with esp at two pointers, to the EXCEPTION_RECORD and to the CONTEXT. It passes
  the same two to RtlDispatchException and to NtRaiseException.
- KiUserApcDispatcher is entered with esp at the routine and its three arguments, and the CONTEXT follows them. It pops
  the routine and calls it, so that the three arguments are at esp.
"""

from __future__ import annotations

from throwstack.core.contexts import Context, read_context
from throwstack.core.frames import StackBounds
from throwstack.core.memory import Memory, MemoryUnreadable
from throwstack.core.registers import X86, Arch
from throwstack.unwind.x86.call_frame import Place

DISPATCHERS_MODULE = "ntdll"
_EXCEPTION_DISPATCHER = "KiUserExceptionDispatcher"
_APC_DISPATCHER = "KiUserApcDispatcher"
_APC_ARGUMENTS = 12


def interrupted_context(function: str, place: Place, stack: StackBounds, memory: Memory) -> Context | None:
    """Return the CONTEXT with which a dispatcher's frame at `place` will continue; None for other frames.

    `function` is the name of the function in ntdll. The CONTEXT is believed if it has the flags and selectors of
    user-mode code, if it is on the stack above the frame, and if the stack pointer in it is further up.
    """
    low = place.lowest_sp
    try:
        if function == _EXCEPTION_DISPATCHER:
            record, address = memory.u32(low), memory.u32(low + 4)
            if not (stack.contains(record, 8) and record > low and memory.u32(record)):
                return None
        elif function == _APC_DISPATCHER and place.is_return_address:
            address = low + _APC_ARGUMENTS
        else:
            return None
        if address <= low or not stack.contains(address, X86.context_size):
            return None
        context = read_context(memory, address, Arch.X86)
    except MemoryUnreadable:
        return None
    sp = context.registers.sp
    is_above = address + X86.context_ip_at < sp <= stack.base
    return context if context.has_plausible_flags and context.has_user_selectors and is_above else None
