# SPDX-License-Identifier: Apache-2.0
"""Finds the CONTEXT of code that the kernel interrupted to run one of ntdll's dispatchers.

For an exception or an APC the kernel saves a CONTEXT of the interrupted code on the user's stack and lets the thread go
on in a dispatcher, which ends with NtContinue(CONTEXT) and not with a `ret`. So the dispatcher's frame has no return
address. The CONTEXT is found from the value of esp before the call that the dispatcher makes:

- At the entry of KiUserExceptionDispatcher, esp points to two pointers, to the EXCEPTION_RECORD and to the CONTEXT. The
  dispatcher passes the same two pointers to RtlDispatchException and to NtRaiseException.
- At the entry of KiUserApcDispatcher, esp points to the address of the routine and its three arguments, and the CONTEXT
  follows them. The dispatcher pops the address and calls the routine, so that esp points to the three arguments.
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
DISPATCHERS = frozenset({_EXCEPTION_DISPATCHER, _APC_DISPATCHER})
_APC_ARGUMENTS = 12


def interrupted_context(function: str, place: Place, stack: StackBounds, memory: Memory) -> Context | None:
    """Return the CONTEXT at which the thread will continue after the dispatcher, or None if there is none.

    `function` is the name of ntdll's function at `place`. If it is not a dispatcher, the result is None. `stack` are
    the bounds of the thread's stack. The CONTEXT is believed only if it has the flags and selectors of user-mode code,
    if it is on the stack above the frame, and if the stack pointer in it is above the CONTEXT's own eip field.
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
