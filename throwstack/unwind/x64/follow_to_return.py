# SPDX-License-Identifier: Apache-2.0
"""Finds the caller of code that has no unwind data and is no leaf function, by following its instructions to a `ret`.

Hand-written code may move rsp and save registers without an entry in the function table. For example, `___chkstk_ms` of
GCC's runtime library pushes rax and rcx and then touches the pages of the stack one by one. So a stack overflow
interrupts it with two words between rsp and the return address. The rsp of an interrupted frame is exact, and the
instructions ahead say how the code will change it. At one instruction the stack has the same depth on every path, so
any path to a `ret` gives the right result.
"""

from __future__ import annotations

from collections import deque

import capstone
from capstone import x86

from throwstack.core.registers import SP, X64
from throwstack.unwind.x64.functions import Functions
from throwstack.unwind.x64.unwind_plan import UnwindPlan

_LONGEST_INSTRUCTION = 15
_MAX_INSTRUCTIONS = 64
_MAX_DEPTH = 1 << 16
_NUMBERS = {getattr(x86, f"X86_REG_{name.upper()}"): number for number, name in enumerate(X64.register_names)}
_NONVOLATILE_PARTS = {
    getattr(x86, f"X86_REG_{part}"): number
    for number, parts in {
        3: ("RBX", "EBX", "BX", "BL", "BH"),
        5: ("RBP", "EBP", "BP", "BPL"),
        6: ("RSI", "ESI", "SI", "SIL"),
        7: ("RDI", "EDI", "DI", "DIL"),
        **{number: tuple(f"R{number}{suffix}" for suffix in ("", "D", "W", "B")) for number in range(12, 16)},
    }.items()
    for part in parts
}
_RSP = x86.X86_REG_RSP
_STACK_POINTER = {x86.X86_REG_RSP, x86.X86_REG_ESP, x86.X86_REG_SP, x86.X86_REG_SPL}
_STOPS = {x86.X86_INS_INT3, x86.X86_INS_UD2, x86.X86_INS_HLT, x86.X86_INS_SYSCALL, x86.X86_INS_LEAVE}
_LOST = 1 << 62
"""The offset from rsp given for a register that the code changes. No stack is there, so the register is unknown."""


def plan_to_return(functions: Functions, address: int) -> UnwindPlan | None:
    """Return the plan for a frame that was interrupted at `address`; None if no `ret` is found."""
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    decoder.detail = True
    ahead: deque[tuple[int, int, dict[int, int]]] = deque([(address, 0, {})])
    seen: set[int] = set()
    while ahead and len(seen) < _MAX_INSTRUCTIONS:
        at, depth, saves = ahead.popleft()
        if at in seen or functions.find(at) is not None:
            continue  # unwind data covers the address: it is in another function
        seen.add(at)
        instruction = next(decoder.disasm(functions.code(at, _LONGEST_INSTRUCTION), at, 1), None)
        if instruction is None or instruction.id in _STOPS or instruction.group(x86.X86_GRP_CALL):
            continue
        if instruction.id == x86.X86_INS_RET:
            if depth < 0 or instruction.operands:
                continue
            return UnwindPlan(tuple((number, SP, offset) for number, offset in saves.items()), (SP, depth))
        operands = instruction.operands
        if instruction.group(x86.X86_GRP_JUMP):
            if operands and operands[0].type == x86.X86_OP_IMM:
                ahead.append((operands[0].imm, depth, saves))
            if instruction.id == x86.X86_INS_JMP:
                continue
        else:
            moved = _moved(instruction, depth)
            if moved is None or abs(moved) > _MAX_DEPTH:
                continue
            saves = _after(instruction, depth, saves)
            depth = moved
        ahead.append((at + instruction.size, depth, saves))
    return None


def _moved(instruction: capstone.CsInsn, depth: int) -> int | None:
    """Return rsp after `instruction`, less rsp where the frame was interrupted, in bytes; None if it is not known.

    `depth` is the same difference before `instruction`.
    """
    operands = instruction.operands
    if instruction.id == x86.X86_INS_PUSH:
        return depth - 8
    if instruction.id == x86.X86_INS_POP:
        is_plain = operands[0].type == x86.X86_OP_REG and operands[0].reg in _NUMBERS and operands[0].reg != _RSP
        return depth + 8 if is_plain else None
    _, written = instruction.regs_access()
    if not _STACK_POINTER & set(written):
        return depth
    if len(operands) != 2 or operands[0].reg != _RSP:
        return None
    source = operands[1]
    if instruction.id in (x86.X86_INS_ADD, x86.X86_INS_SUB) and source.type == x86.X86_OP_IMM:
        size = int(source.imm)
        return depth + size if instruction.id == x86.X86_INS_ADD else depth - size
    is_lea = instruction.id == x86.X86_INS_LEA and source.mem.base == _RSP and not source.mem.index
    return depth + int(source.mem.disp) if is_lea else None


def _after(instruction: capstone.CsInsn, depth: int, saves: dict[int, int]) -> dict[int, int]:
    """Return where the caller's nonvolatile registers are after `instruction`, as offsets from the interrupted rsp.

    `saves` is the same before `instruction`. A register that is not among the keys still has the caller's value. A word
    popped from below the interrupted rsp was pushed after the interruption, so it may not be the caller's value.
    """
    if instruction.id == x86.X86_INS_POP:
        number = _NUMBERS[instruction.operands[0].reg]
        return {**saves, number: depth if depth >= 0 else _LOST} if number in _NONVOLATILE_PARTS.values() else saves
    _, written = instruction.regs_access()
    changed = {_NONVOLATILE_PARTS[register] for register in written if register in _NONVOLATILE_PARTS}
    return {**saves, **dict.fromkeys(changed, _LOST)} if changed else saves
