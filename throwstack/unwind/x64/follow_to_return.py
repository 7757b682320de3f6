# SPDX-License-Identifier: Apache-2.0
"""Finds the caller of code that has no unwind data and is no leaf function, by following its instructions to a return.

Hand-written code may move rsp and save registers without an entry in the function table. For example, `___chkstk_ms` of
GCC's runtime library pushes rax and rcx and then touches the pages of the stack one by one. So a stack overflow
interrupts it with two words between rsp and the return address. The rsp of an interrupted frame is exact, and so is
that of a frame right after its call has returned. The instructions ahead say how the code will change it. At one
instruction the stack has the same depth on every path, so any path to a `ret` gives the right result. Code that keeps
a frame pointer may give the stack back by it, with `leave` or `lea rsp, [rbp+constant]`.

The ways are, best first:

- A `ret`, with no call on the way.
- A `ret` after calls. An x64 function pops nothing of its caller's, so rsp is the same after a call. But a call may
  never return, and then what follows it may be another function.
- A jump out of the code. The detour of a hook library ends with `add rsp, 28h; jmp [original]`: at a tail call the
  return address is on top of the stack. A trampoline holds the first instructions of a function that was hooked, and
  jumps to the others: `push rbx; sub rsp, 20h; jmp original+5`. The function's unwind data says the rest. Where the
  target is not known, the jump may also be a `switch`.

So after a call or a jump, the word that is found must be a return address. A call that never returns shows as well by
the function after it: that gives back as much of the stack as it takes, and would return by the word at which rsp was
when the call was made. A function that makes a call has that word, and at least 20h bytes, for the callee's arguments.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from enum import Enum

import capstone
from capstone import x86

from throwstack.core.registers import BP, SP, X64
from throwstack.unwind.x64.functions import Function, Functions
from throwstack.unwind.x64.unwind_plan import LEAF, RegisterOffset, UnwindPlan, compile_codes

_LONGEST_INSTRUCTION = 15
_MAX_INSTRUCTIONS = 256
_MAX_WAYS = 8
_FARTHEST_IN_FUNCTION = 1 << 16
"""A jump over more bytes than this is taken for one to another function."""
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
_STOPS = {
    *(x86.X86_INS_INT3, x86.X86_INS_UD0, x86.X86_INS_UD1, x86.X86_INS_UD2, x86.X86_INS_HLT, x86.X86_INS_SYSCALL),
    *(x86.X86_INS_RETF, x86.X86_INS_RETFQ, x86.X86_INS_IRET, x86.X86_INS_IRETD, x86.X86_INS_IRETQ, x86.X86_INS_LJMP),
    *(x86.X86_INS_SYSRET, x86.X86_INS_SYSRETQ, x86.X86_INS_SYSEXIT, x86.X86_INS_ENTER),
}
"""Instructions after which code is not followed: most never go on to the next one, and no compiler writes `enter`."""
_FASTFAIL = 0x29
_PUSHES = {x86.X86_INS_PUSH, x86.X86_INS_PUSHF, x86.X86_INS_PUSHFQ}
_POPS_FLAGS = {x86.X86_INS_POPF, x86.X86_INS_POPFQ}
_OPERAND_SIZE = 0x66
_LOST: RegisterOffset = (SP, 1 << 62)
"""The place given for a register that the code changes. No stack is there, so the register is unknown."""


class Way(Enum):
    """How code that is followed leaves its frame, best first."""

    RETURN = "ret"
    RETURN_AFTER_CALLS = "ret after calls"
    JUMP = "jump out of the code"


@dataclass(frozen=True, slots=True)
class Ahead:
    """What the code ahead of a frame's next instruction says: the plans to its caller, best first.

    `uses_frame_pointer` says that the code reads or writes memory below the address in rbp, which it has not changed:
    its own locals, if rbp points at a saved rbp on the stack.
    """

    ways: tuple[tuple[Way, UnwindPlan], ...]
    uses_frame_pointer: bool


@dataclass(frozen=True, slots=True)
class _Path:
    """The state before the instruction `at`: rsp, and where the caller's nonvolatile registers are.

    `sp` is rsp as an offset from the value that a register (rsp or rbp) had where the frame was interrupted, and so are
    the places in `saves`. A register that is not in `saves` still has the caller's value. `at_call` is rsp at the last
    call that was made, None if there was none.
    """

    at: int
    sp: RegisterOffset
    saves: dict[int, RegisterOffset]
    at_call: RegisterOffset | None


def ahead_of(functions: Functions, address: int, *, is_interrupted: bool) -> Ahead:
    """Follow the code of a frame whose next instruction is at `address`, through at most 256 instructions.

    The frame was interrupted there, or has made a call that returns there.
    """
    return _Search(functions, _Path(address, (SP, 0), {}, None if is_interrupted else (SP, 0))).run()


class _Search:
    """Follows all paths ahead of `first`: those without a call, then those after calls."""

    def __init__(self, functions: Functions, first: _Path) -> None:
        self._functions = functions
        self._decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        self._decoder.detail = True
        self._ahead = deque([first])
        self._after_calls: deque[_Path] = deque()
        self._seen: set[int] = set()
        self._ways: dict[Way, list[UnwindPlan]] = {way: [] for way in Way}
        self._uses_frame_pointer = False

    def run(self) -> Ahead:
        for way in (Way.RETURN, Way.RETURN_AFTER_CALLS):
            while self._ahead and len(self._seen) < _MAX_INSTRUCTIONS:
                self._follow(self._ahead.popleft(), way)
            self._ahead, self._after_calls = self._after_calls, deque()
        ways = tuple((way, plan) for way, plans in self._ways.items() for plan in plans)
        return Ahead(ways, self._uses_frame_pointer)

    def _follow(self, path: _Path, way: Way) -> None:
        """Go over the instruction of `path`; `way` is how a `ret` there would be reached."""
        if path.at in self._seen or isinstance(self._functions.find(path.at), Function):
            return  # unwind data covers the address: it is in another function
        self._seen.add(path.at)
        code = self._functions.code(path.at, _LONGEST_INSTRUCTION)
        instruction = next(self._decoder.disasm(code, path.at, 1), None)
        if instruction is None or _is_last(instruction):
            return
        if BP not in path.saves and any(_is_below_rbp(operand) for operand in instruction.operands):
            self._uses_frame_pointer = True
        following = path.at + instruction.size
        if instruction.group(x86.X86_GRP_CALL):
            if _immediate(instruction) != following:  # `call $+5` leaves a word on the stack
                after_call = replace(path, at=following, at_call=path.sp)
                (self._after_calls if way is Way.RETURN else self._ahead).append(after_call)
        elif instruction.id == x86.X86_INS_RET:
            if not instruction.operands:
                self._leave(way, path, LEAF)
        elif instruction.group(x86.X86_GRP_JUMP):
            self._jump(instruction, path)
        else:
            after = _after(instruction, path)
            if after is not None and abs(after.sp[1]) <= _MAX_DEPTH:
                self._ahead.append(replace(after, at=following))

    def _jump(self, instruction: capstone.CsInsn, path: _Path) -> None:
        target = _immediate(instruction)
        if instruction.id != x86.X86_INS_JMP:
            self._ahead.append(replace(path, at=path.at + instruction.size))
            if target is not None:
                self._ahead.append(replace(path, at=target))
            return
        is_out = target is None or abs(target - path.at) > _FARTHEST_IN_FUNCTION or not self._functions.code(target, 1)
        target = self._through_slot(instruction) if target is None else target
        function = None if target is None else self._functions.find(target)
        if target is None or not isinstance(function, Function):
            if is_out:
                self._leave(Way.JUMP, path, LEAF)
            if target is not None:
                self._ahead.append(replace(path, at=target))
            return
        rest = compile_codes(function, target - function.base)
        if isinstance(rest, UnwindPlan) and not rest.is_machine_frame:
            self._leave(Way.JUMP, path, rest)

    def _through_slot(self, instruction: capstone.CsInsn) -> int | None:
        """Return where `jmp [rip+displacement]` leads, or None."""
        operand = instruction.operands[0]
        if operand.type != x86.X86_OP_MEM or operand.mem.base != x86.X86_REG_RIP or operand.mem.index:
            return None
        slot = instruction.address + instruction.size + int(operand.mem.disp)
        pointer = self._functions.code(slot, 8)
        return int.from_bytes(pointer, "little") if len(pointer) == 8 else None

    def _leave(self, way: Way, path: _Path, rest: UnwindPlan) -> None:
        """Note that the frame is left as `rest` says after `path`."""
        result = _moved_place(rest.result, path)
        if result is None or _is_pushed_since(result) or result == path.at_call or len(self._ways[way]) >= _MAX_WAYS:
            return
        saves = dict(path.saves)
        for number, *place in rest.saves:
            moved = _moved_place((place[0], place[1]), path) or _LOST
            if not _is_pushed_since(moved):
                saves[number] = moved  # else the register itself was pushed: it has the value that `path` knows
        plan = UnwindPlan(tuple((number, *place) for number, place in saves.items()), result)
        if plan not in self._ways[way]:
            self._ways[way].append(plan)


def _moved_place(place: RegisterOffset, path: _Path) -> RegisterOffset | None:
    """Return `place`, which is relative to a register's value after `path`, relative to one before it; None if lost."""
    anchor, offset = place
    if anchor == SP:
        return path.sp[0], path.sp[1] + offset
    return None if anchor in path.saves else place


def _is_pushed_since(place: RegisterOffset) -> bool:
    """Say whether `place` is below the rsp at which the frame was interrupted, so that nothing is there yet."""
    return place[0] == SP and place[1] < 0


def _is_last(instruction: capstone.CsInsn) -> bool:
    """Say whether code is not followed after `instruction`; `int 29h` is __fastfail, which ends the process."""
    is_fastfail = instruction.id == x86.X86_INS_INT and instruction.operands[0].imm == _FASTFAIL
    return instruction.id in _STOPS or is_fastfail


def _immediate(instruction: capstone.CsInsn) -> int | None:
    operands = instruction.operands
    return int(operands[0].imm) if operands and operands[0].type == x86.X86_OP_IMM else None


def _is_below_rbp(operand: x86.X86Op) -> bool:
    return bool(operand.type == x86.X86_OP_MEM and operand.mem.base == _RBP and operand.mem.disp < 0)


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
    size = 2 if instruction.prefix[2] == _OPERAND_SIZE else 8
    if instruction.id in _PUSHES:
        return anchor, depth - size
    if instruction.id in _POPS_FLAGS:
        return anchor, depth + size
    if instruction.id == x86.X86_INS_POP:
        is_plain = operands[0].type == x86.X86_OP_REG and operands[0].reg not in _STACK_POINTER
        return (anchor, depth + size) if is_plain else None
    _, written = instruction.regs_access()
    if not _STACK_POINTER & set(written):
        return path.sp
    return _added(instruction, path) if len(operands) == 2 and operands[0].reg == _RSP else None


def _added(instruction: capstone.CsInsn, path: _Path) -> RegisterOffset | None:
    """Return rsp after an `add`, `sub`, `lea` or `mov` to rsp; None after any other. `path` is the state before."""
    anchor, depth = path.sp
    source = instruction.operands[1]
    if instruction.id in (x86.X86_INS_ADD, x86.X86_INS_SUB) and source.type == x86.X86_OP_IMM:
        size = int(source.imm)
        return anchor, depth + size if instruction.id == x86.X86_INS_ADD else depth - size
    if instruction.id == x86.X86_INS_MOV and source.type == x86.X86_OP_REG and source.reg == _RBP:
        return None if BP in path.saves else (BP, 0)
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
    number = _NUMBERS.get(instruction.operands[0].reg) if instruction.id == x86.X86_INS_POP else None
    if number is not None:
        place = _LOST if _is_pushed_since(path.sp) else path.sp
        return {**saves, number: place} if number in _NONVOLATILE_PARTS.values() else saves
    _, written = instruction.regs_access()
    changed = {_NONVOLATILE_PARTS[register] for register in written if register in _NONVOLATILE_PARTS}
    return {**saves, **dict.fromkeys(changed, _LOST)} if changed else saves
