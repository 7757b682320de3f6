# SPDX-License-Identifier: Apache-2.0
"""Recognizes the stubs with which 32-bit code makes system calls, by their instructions.

A stub is `mov eax, number`, up to three instructions that set ecx or edx, the call of the gate to the kernel (or
`sysenter`, `int 2Eh`), then `ret n` or `add esp, 4; ret n`. The gate is called

- through edx (`call edx`, `call [edx]`): up to Windows 7, and under WoW64 since Windows 8,
- through fs (`call fs:[0C0h]`): under WoW64 up to Windows 7,
- directly, where it is a part of the stub, `gate: mov edx, esp; sysenter; ret`: on 32-bit Windows 8 and later.

ntdll, user32, gdi32 and win32u have stubs, and libraries that hook system calls have copies of them in private memory.
"""

from __future__ import annotations

from throwstack.core.registers import SP
from throwstack.unwind.x86.code import Code
from throwstack.unwind.x86.decode import Immediate, Indirect, Instruction, Opcode, Register
from throwstack.unwind.x86.stack_adjustment import is_add_esp_4

_EAX, _EDX = Register(0), Register(2)
_MAX_STUB = 0x20
_STUB_INSTRUCTIONS = 4


def return_in_stub_before(code: Code, address: int) -> bool:
    """Say whether `address` is the return address in a system call stub: where the gate to the kernel returns to."""
    if not _ends_stub(code, address):
        return False
    return any(return_in_stub(code, address - size) == address for size in range(_MAX_STUB))


def _ends_stub(code: Code, address: int) -> bool:
    """Say whether the instructions at `address` are `ret n` or `add esp, 4; ret n`."""
    following = code.at(address)
    if following is not None and is_add_esp_4(following):
        following = code.at(following.end)
    return following is not None and following.op is Opcode.RETURN


def return_in_stub(code: Code, start: int) -> int | None:
    """Return the address after the call (or `sysenter`) in the system call stub at `start`; None if it is no stub."""
    first = code.at(start)
    if first is None or first.op is not Opcode.MOV or first.operand(0) != _EAX:
        return None
    gate = _gate(code, first.end) if isinstance(first.operand(1), Immediate) else None
    return gate.end if gate is not None and _ends_stub(code, gate.end) else None


def _gate(code: Code, address: int) -> Instruction | None:
    """Return the instruction that enters the kernel, at `address` or after instructions that set registers."""
    for _ in range(_STUB_INSTRUCTIONS):
        instruction = code.at(address)
        if instruction is None or instruction.op is Opcode.SYSTEM_CALL:
            return instruction
        if instruction.op is Opcode.CALL:
            return instruction if _calls_gate(code, instruction) else None
        if instruction.op not in {Opcode.MOV, Opcode.LEA, Opcode.XOR}:
            return None
        address = instruction.end
    return None


def _calls_gate(code: Code, call: Instruction) -> bool:
    gate = call.operand(0)
    if isinstance(gate, Immediate):
        first = code.at(gate.value)
        return first is not None and first.op is Opcode.MOV and first.operands == (_EDX, Register(SP))
    return gate == _EDX or (isinstance(gate, Indirect) and (gate.has_segment or gate.base == _EDX.number))
