# SPDX-License-Identifier: Apache-2.0
"""Unwinds a frame that was interrupted in its epilogue, where the unwind codes no longer hold, by its instructions.

Microsoft's documentation allows one form of epilogue, so that an unwinder can recognize it by decoding forward:
`add rsp, constant` or `lea rsp, constant[frame register]`, pops of general registers, then `ret` or a jump that
leaves the function. If such instructions end with a `ret`, the result is certain, because the processor would execute
exactly them. The same is true of `iretq`, which takes a machine frame off the stack; ntdll's RtlRestoreContext ends
with it.

A jump is the end of an epilogue only if it leaves the function. Version 2 unwind information says where the epilogues
are. It lets them begin after the instruction that releases the stack, so the unwind codes still hold at that
instruction. For version 1 the rules are those of Windows:

- A direct jump leaves if its target is outside the function, or is its first instruction (recursion).
- An indirect jump leaves if it has a REX.W prefix, which compilers give to tail calls to tell them from the jump of a
  switch, or if it goes through the slot of an import.

Windows' rules do not cover one habit of GCC. It moves cold code of a function `foo` to an entry of its own
(`foo.cold`), which is not chained to the entry of `foo`, and jumps there in the middle of `foo` without releasing the
stack. Such a jump looks like a tail call. But the unwind codes of `foo.cold` hold from its first byte, whereas no
unwind code holds at the first byte of a function that is called. So a jump to an address at which any unwind code
holds does not leave the function.
"""

from __future__ import annotations

import capstone
from capstone import x86

from throwstack.core.registers import SP, X64
from throwstack.core.stop import Stop
from throwstack.unwind.x64.functions import Function, Functions
from throwstack.unwind.x64.unwind_plan import RegisterOffset, UnwindPlan

_LONGEST_INSTRUCTION = 15
_MAX_POPS = 16
_MAX_BYTES = 7 + 2 * _MAX_POPS + _LONGEST_INSTRUCTION
_REX_W = 8
_RULE = "instructions of the epilogue"

_NUMBERS = {getattr(x86, f"X86_REG_{name.upper()}"): number for number, name in enumerate(X64.register_names)}


class EpilogueDecoder:
    """Recognizes epilogues in the images of an address space."""

    __slots__ = ("_decoder", "_functions")

    def __init__(self, functions: Functions) -> None:
        """`functions` gives the code, and the function to which the target of a jump belongs."""
        self._functions = functions
        self._decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        self._decoder.detail = True

    def plan(self, function: Function, rva: int) -> UnwindPlan | None:
        """Return the plan to unwind a frame interrupted at `rva` if that is in an epilogue of `function`, else None."""
        code = self._functions.code(function.base + rva, _MAX_BYTES)
        at: RegisterOffset = (SP, 0)
        saves: dict[int, tuple[int, int, int]] = {}
        for index, instruction in enumerate(self._decoder.disasm(code, function.base + rva)):
            released = self._release(instruction, function) if index == 0 else None
            if released is not None:
                if function.parts[0].info.epilogues is not None:
                    return None
                at = released
            elif instruction.id == x86.X86_INS_POP:
                operand = instruction.operands[0]
                number = _NUMBERS.get(operand.reg, SP) if operand.type == x86.X86_OP_REG else SP
                if number == SP:
                    return None
                saves[number] = (number, *at)
                at = (at[0], at[1] + 8)
            elif instruction.id == x86.X86_INS_IRETQ:
                return UnwindPlan(tuple(saves.values()), at, is_machine_frame=True, rule=_RULE)
            elif instruction.id != x86.X86_INS_VZEROUPPER:  # Intel's compiler puts it right before the `ret`
                leaves = self._leaves(instruction, function, rva)
                return UnwindPlan(tuple(saves.values()), at, rule=_RULE) if leaves else None
        return None

    @staticmethod
    def _release(instruction: capstone.CsInsn, function: Function) -> RegisterOffset | None:
        """Return rsp after `instruction`, as a register and an offset from its value before the instruction.

        None if `instruction` is neither `add rsp, constant` nor `lea rsp, constant[frame register]`.
        """
        if instruction.id not in (x86.X86_INS_ADD, x86.X86_INS_LEA):
            return None
        target, source = instruction.operands
        if target.type != x86.X86_OP_REG or target.reg != x86.X86_REG_RSP:
            return None
        if instruction.id == x86.X86_INS_ADD:
            return (SP, source.imm) if source.type == x86.X86_OP_IMM and source.imm > 0 else None
        base = _NUMBERS.get(source.mem.base, SP)
        is_frame_register = base != SP and base == function.parts[0].info.frame_register
        return (base, source.mem.disp) if is_frame_register and not source.mem.index else None

    def _leaves(self, instruction: capstone.CsInsn, function: Function, rva: int) -> bool:
        """Say whether `instruction` leaves `function`, so that it ends an epilogue.

        `rva` is where the frame was interrupted; version 2 unwind information says whether it is in an epilogue.
        """
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
        """Say whether a direct jump to `address` leaves `function`: to another function, or to its own start."""
        rva = address - function.base
        entry = function.parts[0].entry
        target = self._functions.find(address)
        if target is None or isinstance(target, Stop):
            return not entry.begin <= rva < entry.end
        if target.base == function.base and target.begin == function.begin and rva != function.begin:
            return False
        return not target.has_frame_at(address - target.base)
