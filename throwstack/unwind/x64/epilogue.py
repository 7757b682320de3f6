# SPDX-License-Identifier: Apache-2.0
"""A frame that was interrupted in its epilogue: the unwind codes no longer hold there, the instructions do.

Microsoft's documentation admits one form of epilogue, so that an unwinder can recognize it by decoding forward:
`add rsp, constant` or `lea rsp, constant[frame register]`, pops of general registers, then `ret` or a jump that
leaves the function. Before the first of these instructions has run the unwind codes hold, so it is the rest that is
looked for. Where pops lead to a `ret` there is no doubt: the processor would do just that. So it is for `iretq`,
with which ntdll's RtlRestoreContext ends: it takes a machine frame off the stack.

Which jumps leave a function, version 2 unwind information tells by naming the places of the epilogues. For version 1
it is decided as Windows decides it: a direct jump leaves if its target lies outside the function (or at its begin:
recursion), an indirect one if it has a REX.W prefix, which compilers give to tail calls so that they can be told from
a switch's, or goes through an import's slot. One addition: GCC moves cold code of a function to an entry of its own
(`foo.cold`) that is not chained to the first, and jumps there with the frame standing. The codes of such an entry
hold from its first byte, so a target at which any code holds is not that of a tail call.
"""

from __future__ import annotations

import capstone
from capstone import x86

from throwstack.registers import SP, X64_NAMES
from throwstack.unwind.x64.functions import Function, Functions
from throwstack.unwind.x64.plan import Place, Plan
from throwstack.unwind.x64.stop import Stop

_LONGEST_INSTRUCTION = 15
_MAX_POPS = 16
_MAX_BYTES = 2 * _MAX_POPS + _LONGEST_INSTRUCTION
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
        code = function.memory.read_available(function.base + rva, _MAX_BYTES)
        at: Place = (SP, 0)
        saves: dict[int, tuple[int, int, int]] = {}
        for instruction in self._decoder.disasm(code, function.base + rva):
            if instruction.id == x86.X86_INS_POP:
                operand = instruction.operands[0]
                number = _NUMBERS.get(operand.reg, SP) if operand.type == x86.X86_OP_REG else SP
                if number == SP:
                    return None
                saves[number] = (number, *at)
                at = (at[0], at[1] + 8)
            elif instruction.id == x86.X86_INS_IRETQ:
                return Plan(tuple(saves.values()), at, is_machine_frame=True)
            else:
                return Plan(tuple(saves.values()), at) if self._leaves(instruction, function, rva) else None
        return None

    def _leaves(self, instruction: capstone.CsInsn, function: Function, rva: int) -> bool:
        """Say whether `instruction` ends an epilogue in which `rva` lies."""
        if instruction.id == x86.X86_INS_RET:
            return not instruction.operands or instruction.operands[0].imm == 0
        if instruction.id != x86.X86_INS_JMP:
            return False
        part = function.parts[0]
        if part.info.epilogues is not None:
            return part.info.epilogues.covers(part.entry.end - rva)
        operand = instruction.operands[0]
        if operand.type == x86.X86_OP_IMM:
            return self._is_tail_call(operand.imm, function)
        is_import = operand.type == x86.X86_OP_MEM and operand.mem.base == x86.X86_REG_RIP
        return is_import or bool(instruction.rex & _REX_W)

    def _is_tail_call(self, address: int, function: Function) -> bool:
        """Say whether a direct jump to `address` leaves `function` for the begin of another, or of itself."""
        rva = address - function.base
        entry = function.parts[0].entry
        target = self._functions.find(address)
        if target is None or isinstance(target, Stop):
            return not entry.begin <= rva < entry.end
        if target.base == function.base and target.begin == function.begin and rva != function.begin:
            return False
        return not target.has_frame_at(address - target.base)
