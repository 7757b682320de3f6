# SPDX-License-Identifier: Apache-2.0
"""Finds the system call that a kernel callback interrupted. Window procedures and hooks run inside system calls.

For example, a thread calls SendMessage, and win32k, in the kernel, calls the window procedure back. The kernel copies
what the routine needs to the user's stack and lets the thread go on in ntdll's KiUserCallbackDispatcher. That function
calls the routine with the address and the size of the copy, and ends with NtCallbackReturn. So the dispatcher has no
return address, and the kernel saves no CONTEXT on the user's stack.

But the word right above the copy is the one that esp pointed at during the system call. In most cases the word is the
return address of the call in the system call stub (`call [SystemCallStub]; ret n`), and points into the stub. If the
switch to the kernel has popped that return address (WoW64 since Windows 8), or if the stub enters the kernel without a
call (`int 2Eh`), the word is the return address of the stub itself.
"""

from __future__ import annotations

from throwstack.core.frames import StackBounds
from throwstack.core.memory import MemoryUnreadable
from throwstack.core.registers import SP
from throwstack.unwind.x86.call_frame import Caller, Place
from throwstack.unwind.x86.code import Code
from throwstack.unwind.x86.return_address import ReturnAddresses
from throwstack.unwind.x86.system_call_stub import return_in_stub, return_in_stub_before

CALLBACK_DISPATCHER = "KiUserCallbackDispatcher"
_SLACK = 8
"""How many words above the end of the kernel's copy are searched for the return address.

The kernel rounds the start of the copy down to 4 or 16 bytes, so that unused words can be between the two.
"""


def interrupted_system_call(
    place: Place, at_entry: tuple[int | None, ...], stack: StackBounds, code: Code, calls: ReturnAddresses
) -> Caller | None:
    """Return the frame of the system call stub from which the kernel called back, or None if it is not found.

    `place` is the dispatcher's frame (KiUserCallbackDispatcher), and `stack` the bounds of the thread's stack.
    `at_entry` are the registers with which the dispatcher was entered. All of them but esp are also those of the system
    call. `code` is the address space's code. `calls` finds the call instructions before a return address.
    """
    memory = code.memory
    try:
        copy, size = memory.u32(place.lowest_sp), memory.u32(place.lowest_sp + 4)
        if copy <= place.lowest_sp or not stack.contains(copy, size):
            return None
        end = (copy + size + 3) & ~3
        for slot in range(end, min(end + 4 * _SLACK, stack.base), 4):
            word = memory.u32(slot)
            if return_in_stub_before(code, word):
                return _caller(slot, word, slot + 4, at_entry)
            for site in calls.calls_before(word):
                waits = None if site.target is None else return_in_stub(code, code.after_thunks(site.target))
                if waits is not None:
                    return _caller(slot - 4, waits, slot, at_entry)
    except MemoryUnreadable:
        pass
    return None


def _caller(slot: int, return_address: int, sp: int, at_entry: tuple[int | None, ...]) -> Caller:
    return Caller(slot, return_address, sp, 0, (*at_entry[:SP], sp, *at_entry[SP + 1 :]))
