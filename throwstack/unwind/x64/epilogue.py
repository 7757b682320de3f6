# SPDX-License-Identifier: Apache-2.0
"""A frame that was interrupted in its epilogue: the unwind codes no longer hold there, the instructions do.

Microsoft's documentation admits one form of epilogue, so that an unwinder can recognize it by decoding forward:
`add rsp, constant` or `lea rsp, constant[frame register]`, pops of general registers, then `ret` or a jump that
leaves the function. Version 2 unwind information names the places of the epilogues instead.

Which jumps leave a function is decided as Windows decides it: a direct one if its target lies outside the function
(or at its begin: recursion), an indirect one if it has a REX.W prefix, which compilers give to tail calls so that
they can be told from a switch's, or goes through an import's slot. One addition: GCC moves cold code of a function
to an entry of its own (`foo.cold`) that is not chained to the first, and jumps there with the frame standing. The
codes of such an entry hold from its first byte, so a target at which any code holds is not that of a tail call.
"""

from __future__ import annotations

import capstone
from capstone import x86

from throwstack.registers import SP, X64_NAMES
from throwstack.unwind.x64.functions import Function, Functions
from throwstack.unwind.x64.plan import Plan
from throwstack.unwind.x64.stop import Stop

_LONGEST_INSTRUCTION = 15
_MAX_POPS = 16
_MAX_BYTES = 7 + 2 * _MAX_POPS + _LONGEST_INSTRUCTION
_REX_W = 8

_NUMBERS = {getattr(x86, f"X86_REG_{name.upper()}"): number for number, name in enumerate(X64_NAMES)}


class Epilogues:
    """Recognizes epilogues in the images of an address space."""

    __slots__ = ("_decoder", "_functions")

    def __init__(self, functions: Functions) -> None:
        """Judge the targets of jumps by `functions`."""
        self._functions = functions
        self._decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        self._decoder.detail = True

    def plan(self, function: Function, rva: int) -> Plan | None:
        """Return how to unwind from `rva` if it lies in an epilogue of `function`, else None."""
        part = function.parts[0]
        marks = part.info.epilogues
        if marks is not None and not marks.covers(part.entry.end - rva):
            return None
        code = function.memory.read_available(function.base + rva, _MAX_BYTES)
        return self._decode(code, function, rva)

    def _decode(self, code: bytes, function: Function, rva: int) -> Plan | None:
        anchor, offset = SP, 0
        saves: list[tuple[int, int, int]] = []
        is_first = True
        for instruction in self._decoder.disasm(code, function.base + rva):
            released = self._release(instruction, function) if is_first else None
            is_first = False
            if released is not None:
                anchor, offset = released
            elif instruction.id == x86.X86_INS_POP and instruction.operands[0].type == x86.X86_OP_REG:
                number = _NUMBERS.get(instruction.operands[0].reg)
                if number is None or number == SP or len(saves) == _MAX_POPS:
                    return None
                saves.append((number, anchor, offset))
                offset += 8
            elif self._leaves(instruction, function):
                return Plan(tuple({save[0]: save for save in saves}.values()), (anchor, offset))
            else:
                return None
        return None

    @staticmethod
    def _release(instruction: capstone.CsInsn, function: Function) -> tuple[int, int] | None:
        """Return where rsp is after `add rsp, constant` or `lea rsp, constant[frame register]`."""
        if instruction.id not in (x86.X86_INS_ADD, x86.X86_INS_LEA):
            return None
        target, source = instruction.operands
        if target.type != x86.X86_OP_REG or target.reg != x86.X86_REG_RSP:
            return None
        if instruction.id == x86.X86_INS_ADD:
            return (SP, source.imm) if source.type == x86.X86_OP_IMM and source.imm > 0 else None
        base = _NUMBERS.get(source.mem.base)
        if source.mem.index or base is None or base != function.parts[0].info.frame_register:
            return None
        return base, source.mem.disp

    def _leaves(self, instruction: capstone.CsInsn, function: Function) -> bool:
        """Say whether `instruction` ends an epilogue."""
        if instruction.id == x86.X86_INS_RET:
            return not instruction.operands or instruction.operands[0].imm == 0
        if instruction.id != x86.X86_INS_JMP:
            return False
        operand = instruction.operands[0]
        if operand.type == x86.X86_OP_IMM:
            return self._is_tail_call(operand.imm, function)
        is_import = operand.type == x86.X86_OP_MEM and operand.mem.base == x86.X86_REG_RIP
        return is_import or bool(instruction.rex & _REX_W)

    def _is_tail_call(self, address: int, function: Function) -> bool:
        rva = address - function.base
        target = self._functions.find(address)
        if target is None or isinstance(target, Stop):
            return not function.parts[0].entry.begin <= rva < function.parts[0].entry.end
        if target.base == function.base and target.begin == function.begin and rva != function.begin:
            return False
        return not target.has_frame_at(address - target.base)
