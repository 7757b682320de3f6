# SPDX-License-Identifier: Apache-2.0
"""What the kernel interrupted to have user code do something: the frames that no `ret` leaves.

The kernel lays a CONTEXT of the interrupted code on its stack and lets the thread go on in one of ntdll's dispatchers,
which hands the CONTEXT back with NtContinue. KiUserExceptionDispatcher is entered with esp at a pointer to the
EXCEPTION_RECORD and one to the CONTEXT, and calls RtlDispatchException with the same two; NtRaiseException takes them
too. KiUserApcDispatcher is entered with the routine and its three arguments at esp, the CONTEXT right above them; it
pops the routine and calls it. So both are known by where esp stands before the call.
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
    """Return the CONTEXT that the frame at `place`, in ntdll's `function`, goes back to, or None.

    The CONTEXT is believed if it has the flags and selectors of user-mode code, lies on the stack above the frame, and
    the interrupted code's stack above it in turn.
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
