# SPDX-License-Identifier: Apache-2.0
"""Decodes instructions for the x86 unwinder, which needs their effects on the stack pointer and the registers.

Capstone decodes the bytes, and its result is reduced to an `Instruction`. These are cached by address and shared by all
analyses. Compilers write the same few encodings again and again, such as `push ebp`. So an encoding that means the same
at any address is kept too, and asks capstone once. No encoding is the begin of another one, so the bytes tell where it
ends. Only 32-bit code is decoded. The reference is the Intel SDM, volume 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import capstone
from capstone import x86

from throwstack.core.memory import Memory

_MAX_LENGTH = 15
_CAPACITY, _MAX_ENCODINGS = 1 << 18, 1 << 15
MASK = 0xFFFFFFFF


class Opcode(Enum):
    """The kinds of instructions that a stack walk tells apart."""

    PUSH = "push"
    PUSH_ALL = "pushad"
    PUSH_FLAGS = "pushfd"
    POP = "pop"
    POP_ALL = "popad"
    POP_FLAGS = "popfd"
    MOV = "mov"
    LEA = "lea"
    ADD = "add"
    SUB = "sub"
    AND = "and"
    OR = "or"
    XOR = "xor"
    XCHG = "xchg"
    LEAVE = "leave"
    ENTER = "enter"
    CALL = "call"
    JUMP = "jump"
    BRANCH = "conditional jump"
    RETURN = "return"
    STOP = "no instruction follows"
    SYSTEM_CALL = "system call"
    OTHER = "anything else"


@dataclass(frozen=True, slots=True)
class Register:
    """An operand that is a whole 32-bit register, with the register's number (0 is eax, 4 is esp)."""

    number: int


@dataclass(frozen=True, slots=True)
class Immediate:
    """An operand that is a constant, as an unsigned 32-bit number."""

    value: int


@dataclass(frozen=True, slots=True)
class Indirect:
    """An operand in memory, at the address `base` + `index` * `scale` + `displacement`.

    `base` and `index` are numbers of registers, or None if the operand does not use one. `displacement` is signed.
    `size` is the size of the operand in bytes. `has_segment` says that the address is relative to fs or gs.
    """

    base: int | None
    index: int | None
    scale: int
    displacement: int
    size: int
    has_segment: bool

    @property
    def absolute(self) -> int | None:
        """Return the address of an operand that is a plain `[address]`, or None if registers or a segment are in it."""
        if self.base is None and self.index is None and not self.has_segment:
            return self.displacement & MASK
        return None


Operand = Register | Immediate | Indirect


@dataclass(frozen=True, slots=True)
class Instruction:
    """One decoded instruction.

    `address` and `size` (in bytes) say where the instruction is, and `op` is its kind. `operands` are its operands,
    each None if it is of a kind that has no class here (a part of a register, a segment register, a vector register).
    `written` are the numbers of the general registers that the instruction changes in whole or in part. It is empty if
    `op` alone determines them, as for a push or a call. `writes_memory` says whether the first operand is memory and
    the instruction writes it.
    """

    address: int
    size: int
    op: Opcode
    operands: tuple[Operand | None, ...] = ()
    written: tuple[int, ...] = ()
    writes_memory: bool = False

    @property
    def end(self) -> int:
        """Return the address of the instruction that follows in memory."""
        return (self.address + self.size) & MASK

    def operand(self, index: int) -> Operand | None:
        """Return the operand at `index`, or None if there is none or if no class here describes its kind."""
        return self.operands[index] if index < len(self.operands) else None


_PARTS = (
    ("EAX", "AX", "AL", "AH"),
    ("ECX", "CX", "CL", "CH"),
    ("EDX", "DX", "DL", "DH"),
    ("EBX", "BX", "BL", "BH"),
    ("ESP", "SP"),
    ("EBP", "BP"),
    ("ESI", "SI"),
    ("EDI", "DI"),
)
_NUMBERS = {getattr(x86, f"X86_REG_{name}"): number for number, names in enumerate(_PARTS) for name in names}
_WHOLE = {getattr(x86, f"X86_REG_{names[0]}"): number for number, names in enumerate(_PARTS)}

_OPS = {
    x86.X86_INS_PUSH: Opcode.PUSH,
    x86.X86_INS_PUSHAL: Opcode.PUSH_ALL,
    x86.X86_INS_PUSHFD: Opcode.PUSH_FLAGS,
    x86.X86_INS_POP: Opcode.POP,
    x86.X86_INS_POPAL: Opcode.POP_ALL,
    x86.X86_INS_POPFD: Opcode.POP_FLAGS,
    x86.X86_INS_MOV: Opcode.MOV,
    x86.X86_INS_LEA: Opcode.LEA,
    x86.X86_INS_ADD: Opcode.ADD,
    x86.X86_INS_SUB: Opcode.SUB,
    x86.X86_INS_AND: Opcode.AND,
    x86.X86_INS_OR: Opcode.OR,
    x86.X86_INS_XOR: Opcode.XOR,
    x86.X86_INS_XCHG: Opcode.XCHG,
    x86.X86_INS_LEAVE: Opcode.LEAVE,
    x86.X86_INS_ENTER: Opcode.ENTER,
    x86.X86_INS_CALL: Opcode.CALL,
    x86.X86_INS_JMP: Opcode.JUMP,
    x86.X86_INS_LJMP: Opcode.STOP,
    x86.X86_INS_RET: Opcode.RETURN,
    x86.X86_INS_RETF: Opcode.STOP,
    x86.X86_INS_IRETD: Opcode.STOP,
    x86.X86_INS_INT3: Opcode.STOP,
    x86.X86_INS_HLT: Opcode.STOP,
    x86.X86_INS_UD2: Opcode.STOP,
    x86.X86_INS_SYSEXIT: Opcode.STOP,
    x86.X86_INS_SYSENTER: Opcode.SYSTEM_CALL,
    x86.X86_INS_SYSCALL: Opcode.SYSTEM_CALL,
}
_WRITES_OPERANDS = frozenset(
    {
        *(Opcode.OTHER, Opcode.MOV, Opcode.LEA, Opcode.ADD, Opcode.SUB),
        *(Opcode.AND, Opcode.OR, Opcode.XOR, Opcode.XCHG),
    }
)
_ONLY_READS = frozenset(
    getattr(x86, f"X86_INS_{name}")
    for name in (
        *("CMP", "TEST", "BT", "MUL", "IMUL", "DIV", "IDIV", "PUSH", "CALL", "JMP", "NOP", "CMPSB", "CMPSW", "CMPSD"),
        *("FLD", "FILD", "FBLD", "FADD", "FIADD", "FMUL", "FIMUL", "FSUB", "FISUB", "FSUBR", "FISUBR"),
        *("FDIV", "FIDIV", "FDIVR", "FIDIVR", "FCOM", "FCOMP", "FICOM", "FICOMP"),
        *("FLDCW", "FLDENV", "FRSTOR", "FXRSTOR", "XRSTOR", "XRSTORS", "LDMXCSR"),
        *("PREFETCH", "PREFETCHW", "PREFETCHNTA", "PREFETCHT0", "PREFETCHT1", "PREFETCHT2"),
    )
)
"""Instructions that do not write to their first operand where it is memory (Intel's manual, volume 2).

capstone's own word is not taken: of `fstp qword ptr [esp]`, `movups [esp], xmm0` and others it says that they read.
"""
_SAVED_STATE = {
    x86.X86_INS_FNSAVE: 108,
    x86.X86_INS_FXSAVE: 512,
    **dict.fromkeys((x86.X86_INS_XSAVE, x86.X86_INS_XSAVEC, x86.X86_INS_XSAVEOPT, x86.X86_INS_XSAVES), 576),
}
"""How many bytes instructions write that save the state of the processor; capstone says 4 of each.

XSAVE and its kin write the area of FXSAVE and a header of 64 bytes, and after these what else the processor has.
"""
_OPERAND_SIZE = 0x66
_INT_SERVICE = 0x2E
_INT_FASTFAIL = 0x29


def _operand(raw: x86.X86Op, size: int | None) -> Operand | None:
    """Return an operand; `size` is that of an operand in memory if capstone's is wrong."""
    if raw.type == x86.X86_OP_REG:
        number = _WHOLE.get(raw.reg)
        return None if number is None else Register(number)
    if raw.type == x86.X86_OP_IMM:
        return Immediate(raw.imm & MASK)
    memory = raw.mem
    base, index = _WHOLE.get(memory.base), _WHOLE.get(memory.index)
    if (memory.base and base is None) or (memory.index and index is None):
        return None
    displacement = memory.disp & MASK
    if displacement > MASK >> 1:
        displacement -= MASK + 1
    # ds, es and ss are flat in Windows user mode and in the kernel; fs points to the TEB or the PCR.
    segment = memory.segment in {x86.X86_REG_FS, x86.X86_REG_GS}
    return Indirect(base, index, memory.scale, displacement, size or raw.size, segment)


def _translate(raw: capstone.CsInsn) -> Instruction:
    operands = tuple(_operand(operand, _SAVED_STATE.get(raw.id)) for operand in raw.operands)
    op = _OPS.get(raw.id)
    if op in {Opcode.PUSH, Opcode.POP} and raw.prefix[2] == _OPERAND_SIZE:
        op = Opcode.STOP  # moves esp by 2: no compiler writes that
    if raw.id == x86.X86_INS_INT:
        number = raw.operands[0].imm
        op = {_INT_SERVICE: Opcode.SYSTEM_CALL, _INT_FASTFAIL: Opcode.STOP}.get(number, Opcode.OTHER)
    if op is None and x86.X86_GRP_BRANCH_RELATIVE in raw.groups:
        op = Opcode.BRANCH
    if op is None:
        op = Opcode.OTHER
    written: tuple[int, ...] = ()
    if op in _WRITES_OPERANDS:
        _, registers = raw.regs_access()
        written = tuple({_NUMBERS[register] for register in registers if register in _NUMBERS})
    first = raw.operands[0] if raw.operands else None
    writes_memory = first is not None and first.type == x86.X86_OP_MEM and raw.id not in _ONLY_READS
    return Instruction(raw.address, raw.size, op, operands, written, writes_memory)


class Decoder:
    """Decodes the code of one address space, one instruction at a time."""

    __slots__ = ("_capstone", "_decoded", "_encodings", "memory")

    def __init__(self, memory: Memory) -> None:
        """`memory` is the address space's memory, from which instructions are read."""
        self.memory = memory
        self._capstone = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32)
        self._capstone.detail = True
        self._decoded: dict[int, Instruction | None] = {}
        self._encodings: dict[bytes, Instruction] = {}

    def at(self, address: int) -> Instruction | None:
        """Return the instruction at `address`; None if the bytes cannot be read or are no instruction."""
        try:
            return self._decoded[address]
        except KeyError:
            pass
        if len(self._decoded) >= _CAPACITY:
            self._decoded.clear()
        code = self.memory.read_available(address, _MAX_LENGTH)
        instruction = self._encoded(code, address) or self._disassembled(code, address)
        self._decoded[address] = instruction
        return instruction

    def _encoded(self, code: bytes, address: int) -> Instruction | None:
        """Return the instruction with which `code` begins, if its encoding was met before."""
        for size in range(1, len(code) + 1):
            known = self._encodings.get(code[:size])
            if known is not None:
                return Instruction(address, size, known.op, known.operands, known.written, known.writes_memory)
        return None

    def _disassembled(self, code: bytes, address: int) -> Instruction | None:
        raw = next(self._capstone.disasm(code, address, 1), None)
        if raw is None:
            return None
        instruction = _translate(raw)
        # The operand of a relative jump or call is the address that it leads to, and differs from place to place.
        if x86.X86_GRP_BRANCH_RELATIVE not in raw.groups:
            if len(self._encodings) >= _MAX_ENCODINGS:
                self._encodings.clear()
            self._encodings[code[: instruction.size]] = instruction
        return instruction
