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
from throwstack.unwind.x86.decode import Immediate, Opcode, Register
from throwstack.unwind.x86.return_address import ReturnAddresses
from throwstack.unwind.x86.stack_adjustment import is_add_esp_4

CALLBACK_DISPATCHER = "KiUserCallbackDispatcher"
_EAX = Register(0)
_SLACK = 8
"""How many words above the end of the kernel's copy are searched for the return address.

The kernel rounds the start of the copy down to 4 or 16 bytes, so that unused words can be between the two.
"""
_MAX_STUB = 0x20
_STUB_INSTRUCTIONS = 4


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
        for slot in range(end, min(end + 4 * _SLACK, stack.base - 3), 4):
            word = memory.u32(slot)
            if any(_return_in_stub(code, word - size) == word for size in range(_MAX_STUB)):
                return _caller(slot, word, slot + 4, at_entry)
            for site in calls.calls_before(word):
                waits = None if site.target is None else _return_in_stub(code, code.after_thunks(site.target))
                if waits is not None:
                    return _caller(slot - 4, waits, slot, at_entry)
    except MemoryUnreadable:
        pass
    return None


def _caller(slot: int, return_address: int, sp: int, at_entry: tuple[int | None, ...]) -> Caller:
    return Caller(slot, return_address, sp, 0, (*at_entry[:SP], sp, *at_entry[SP + 1 :]))


def _return_in_stub(code: Code, start: int) -> int | None:
    """Return the address after the call (or `sysenter`) in the system call stub at `start`; None if it is no stub.

    A stub is `mov eax, number`, instructions that set ecx or edx, the call, then `ret n` or `add esp, 4; ret n`.
    """
    instruction = code.at(start)
    if instruction is None or instruction.op is not Opcode.MOV or instruction.operand(0) != _EAX:
        return None
    if not isinstance(instruction.operand(1), Immediate):
        return None
    for _ in range(_STUB_INSTRUCTIONS):
        instruction = code.at(instruction.end)
        if instruction is None:
            return None
        if instruction.op in {Opcode.CALL, Opcode.SYSTEM_CALL}:
            following = code.at(instruction.end)
            if following is not None and is_add_esp_4(following):
                following = code.at(following.end)
            return instruction.end if following is not None and following.op is Opcode.RETURN else None
        if instruction.op not in {Opcode.MOV, Opcode.LEA, Opcode.XOR}:
            return None
    return None
