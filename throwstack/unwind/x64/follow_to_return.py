# SPDX-License-Identifier: Apache-2.0
"""Finds the caller of code that has no unwind data and is no leaf function, by following its instructions to a `ret`.

Hand-written code may move rsp and save registers without an entry in the function table. For example, `___chkstk_ms` of
GCC's runtime library pushes rax and rcx and then touches the pages of the stack one by one. So a stack overflow
interrupts it with two words between rsp and the return address. The rsp of an interrupted frame is exact, and so is
that of a frame right after its call has returned. The instructions ahead say how the code will change it. At one
instruction the stack has the same depth on every path, so any path to a `ret` gives the right result. Code that keeps
a frame pointer may give the stack back by it, with `leave` or `lea rsp, [rbp+constant]`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import capstone
from capstone import x86

from throwstack.core.registers import BP, SP, X64
from throwstack.unwind.x64.functions import Function, Functions
from throwstack.unwind.x64.unwind_plan import RegisterOffset, UnwindPlan

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
_RSP, _RBP = x86.X86_REG_RSP, x86.X86_REG_RBP
_STACK_POINTER = {x86.X86_REG_RSP, x86.X86_REG_ESP, x86.X86_REG_SP, x86.X86_REG_SPL}
_STOPS = {x86.X86_INS_INT3, x86.X86_INS_UD2, x86.X86_INS_HLT, x86.X86_INS_SYSCALL}
_LOST: RegisterOffset = (SP, 1 << 62)
"""The place given for a register that the code changes. No stack is there, so the register is unknown."""


@dataclass(frozen=True, slots=True)
class _Path:
    """The state before the instruction `at`: rsp, and where the caller's nonvolatile registers are.

    `sp` is rsp as an offset from the value that a register (rsp or rbp) had where the frame was interrupted, and so are
    the places in `saves`. A register that is not in `saves` still has the caller's value.
    """

    at: int
    sp: RegisterOffset
    saves: dict[int, RegisterOffset]


def plan_to_return(functions: Functions, address: int) -> UnwindPlan | None:
    """Return the plan for a frame whose next instruction is at `address`; None if no `ret` is found.

    The frame was interrupted there, or has made a call that returns there.
    """
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    decoder.detail = True
    ahead = deque([_Path(address, (SP, 0), {})])
    seen: set[int] = set()
    while ahead and len(seen) < _MAX_INSTRUCTIONS:
        path = ahead.popleft()
        if path.at in seen or isinstance(functions.find(path.at), Function):
            continue  # unwind data covers the address: it is in another function
        seen.add(path.at)
        instruction = next(decoder.disasm(functions.code(path.at, _LONGEST_INSTRUCTION), path.at, 1), None)
        if instruction is None or instruction.id in _STOPS or instruction.group(x86.X86_GRP_CALL):
            continue
        anchor, depth = path.sp
        operands = instruction.operands
        if instruction.id == x86.X86_INS_RET:
            if (anchor == SP and depth < 0) or operands:
                continue
            return UnwindPlan(tuple((number, *place) for number, place in path.saves.items()), path.sp)
        if instruction.group(x86.X86_GRP_JUMP):
            if operands and operands[0].type == x86.X86_OP_IMM:
                ahead.append(replace(path, at=operands[0].imm))
            if instruction.id == x86.X86_INS_JMP:
                continue
            after: _Path | None = path
        else:
            after = _after(instruction, path)
        if after is not None and abs(after.sp[1]) <= _MAX_DEPTH:
            ahead.append(replace(after, at=path.at + instruction.size))
    return None


def _after(instruction: capstone.CsInsn, path: _Path) -> _Path | None:
    """Return the state after `instruction`, which is no jump, with the address unchanged; None if rsp is not known."""
    if instruction.id == x86.X86_INS_LEAVE:
        if BP in path.saves:
            return None
        return replace(path, sp=(BP, 8), saves={**path.saves, BP: (BP, 0)})
    sp = _moved(instruction, path)
    return None if sp is None else replace(path, sp=sp, saves=_saved(instruction, path))


def _moved(instruction: capstone.CsInsn, path: _Path) -> RegisterOffset | None:
    """Return rsp after `instruction`; None if it is not known. `path` is the state before."""
    anchor, depth = path.sp
    operands = instruction.operands
    if instruction.id == x86.X86_INS_PUSH:
        return anchor, depth - 8
    if instruction.id == x86.X86_INS_POP:
        is_plain = operands[0].type == x86.X86_OP_REG and operands[0].reg in _NUMBERS and operands[0].reg != _RSP
        return (anchor, depth + 8) if is_plain else None
    _, written = instruction.regs_access()
    if not _STACK_POINTER & set(written):
        return path.sp
    return _added(instruction, path) if len(operands) == 2 and operands[0].reg == _RSP else None


def _added(instruction: capstone.CsInsn, path: _Path) -> RegisterOffset | None:
    """Return rsp after an `add`, `sub` or `lea` to rsp; None after any other. `path` is the state before."""
    anchor, depth = path.sp
    source = instruction.operands[1]
    if instruction.id in (x86.X86_INS_ADD, x86.X86_INS_SUB) and source.type == x86.X86_OP_IMM:
        size = int(source.imm)
        return anchor, depth + size if instruction.id == x86.X86_INS_ADD else depth - size
    if instruction.id != x86.X86_INS_LEA or source.mem.index:
        return None
    if source.mem.base == _RSP:
        return anchor, depth + int(source.mem.disp)
    return (BP, int(source.mem.disp)) if source.mem.base == _RBP and BP not in path.saves else None


def _saved(instruction: capstone.CsInsn, path: _Path) -> dict[int, RegisterOffset]:
    """Return where the caller's nonvolatile registers are after `instruction`; `path` is the state before.

    A word popped from below the interrupted rsp was pushed after the interruption, so it may not be the caller's value.
    """
    saves = path.saves
    if instruction.id == x86.X86_INS_POP:
        number = _NUMBERS[instruction.operands[0].reg]
        anchor, depth = path.sp
        place = _LOST if anchor == SP and depth < 0 else path.sp
        return {**saves, number: place} if number in _NONVOLATILE_PARTS.values() else saves
    _, written = instruction.regs_access()
    changed = {_NONVOLATILE_PARTS[register] for register in written if register in _NONVOLATILE_PARTS}
    return {**saves, **dict.fromkeys(changed, _LOST)} if changed else saves
