# SPDX-License-Identifier: Apache-2.0
"""Says whether a thread has only just arrived at an address: by a call, from which no instruction has run since.

Such a thread has called through a bad pointer into memory that can be read: `call [rax+8]` of an object that was freed.
The call has pushed its return address, and every nonvolatile register has the caller's value.

A virtual call may go through an adjustor thunk, which has no frame of its own:

    call  [rax+18h]                ; to the thunk
    thunk: sub rcx, 10h            ; from the second base class to the object
           mov rax, [rcx]
           jmp [rax+8]             ; into data

Then the call before the return address leads to the thunk, and the thunk's jump to where the thread is.
"""

from __future__ import annotations

import capstone
from capstone import x86

from throwstack.core.memory import Memory, MemoryUnreadable
from throwstack.core.registers import Registers
from throwstack.images.image import ImageMap
from throwstack.unwind.after_call import call_targets, is_after_call

_LONGEST_THUNK = 48
_MAX_INSTRUCTIONS = 5
_IN_THUNKS = frozenset({x86.X86_INS_MOV, x86.X86_INS_LEA, x86.X86_INS_ADD, x86.X86_INS_SUB, x86.X86_INS_MOVSXD})
_PRESERVED = frozenset(
    getattr(x86, f"X86_REG_{name}") for name in ("RSP", "ESP", "RBP", "RBX", "RSI", "RDI", "R12", "R13", "R14", "R15")
)


def has_just_arrived(images: ImageMap, registers: Registers) -> bool:
    """Say whether the word on top of the stack is the return address of a call that led to `registers.ip`.

    `registers` are those of the thread. The call's target, computed with them, is ip itself, or a thunk in an image
    that ends with a jump through a register.
    """
    memory = images.memory
    try:
        address = memory.u64(registers.sp)
    except MemoryUnreadable:
        return False
    if not is_after_call(memory, address):
        return False
    targets = call_targets(memory, address, registers)
    return registers.ip in targets or any(images.is_code(target) and _jumps_on(memory, target) for target in targets)


def _jumps_on(memory: Memory, address: int) -> bool:
    """Say whether a thunk at `address` ends with a jump through a register, so that it may have led anywhere."""
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    decoder.detail = True
    code = memory.read_available(address, _LONGEST_THUNK)
    for instruction in decoder.disasm(code, address, _MAX_INSTRUCTIONS):
        operands = instruction.operands
        if instruction.id == x86.X86_INS_JMP:
            target = operands[0]
            if target.type == x86.X86_OP_REG:
                return True
            return bool(target.type == x86.X86_OP_MEM and target.mem.base not in (0, x86.X86_REG_RIP))
        _, written = instruction.regs_access()
        if instruction.id not in _IN_THUNKS or _PRESERVED & set(written) or operands[0].type != x86.X86_OP_REG:
            return False
    return False
