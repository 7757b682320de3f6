# SPDX-License-Identifier: Apache-2.0
"""Says whether code without unwind data is seen to keep rbp as a frame pointer, by the instructions before it.

A function that does so begins with `push rbp; mov rbp, rsp`, and then does not write rbp before it ends. Any other
function without unwind data leaves rbp alone or uses it as it likes. Then rbp often is the frame pointer of a function
further out, and a step by rbp leaves out all frames between.

A call that never returns may end a function, and another one follows at the next multiple of 16 bytes, mostly after
`nop`s. So no code is followed over a call to such an address.
"""

from __future__ import annotations

from collections import deque

import capstone
from capstone import x86

from throwstack.unwind.x64.functions import Function, Functions

_PROLOGUES = (bytes.fromhex("554889e5"), bytes.fromhex("55488bec"))
"""`push rbp; mov rbp, rsp` in its two encodings."""
_FARTHEST = 0x1000
_MAX_PROLOGUES = 4
_MAX_INSTRUCTIONS = 512
_LONGEST_INSTRUCTION = 15
_PARTS_OF_RBP = {x86.X86_REG_RBP, x86.X86_REG_EBP, x86.X86_REG_BP, x86.X86_REG_BPL}
_STOPS = {x86.X86_INS_RET, x86.X86_INS_INT3, x86.X86_INS_UD2, x86.X86_INS_HLT}
_ALIGNMENT = 16


def keeps_frame_pointer(functions: Functions, address: int) -> bool:
    """Say whether rbp at `address` is the frame pointer that a prologue up to 4 KiB before has set up.

    The code is followed from the prologue to `address`; of all prologues together at most 512 instructions.
    """
    start = max(address - _FARTHEST, 0)
    code = functions.code(start, address - start)
    if len(code) < address - start:  # a page before is absent
        start = max(start, address & -0x1000)
        code = functions.code(start, address - start)
    left = _MAX_INSTRUCTIONS
    end = len(code)
    for _ in range(_MAX_PROLOGUES):
        end = max(code.rfind(prologue, 0, end) for prologue in _PROLOGUES)
        if end < 0 or left <= 0:
            return False
        is_reached, used = _reaches(functions, start + end + len(_PROLOGUES[0]), address, left)
        if is_reached:
            return True
        left -= used
    return False


def _reaches(functions: Functions, start: int, address: int, limit: int) -> tuple[bool, int]:
    """Say whether code from `start` on leads to `address` with rbp unchanged, and how many instructions were read."""
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    decoder.detail = True
    ahead, seen = deque([start]), set[int]()
    while ahead and len(seen) < limit:
        at = ahead.popleft()
        if at == address:
            return True, len(seen)
        if at in seen or isinstance(functions.find(at), Function):
            continue
        seen.add(at)
        instruction = next(decoder.disasm(functions.code(at, _LONGEST_INSTRUCTION), at, 1), None)
        if instruction is None or instruction.id in _STOPS or _PARTS_OF_RBP & set(instruction.regs_access()[1]):
            continue
        if instruction.group(x86.X86_GRP_CALL) and _may_end_function(functions, decoder, at + instruction.size):
            continue
        operands = instruction.operands
        if instruction.group(x86.X86_GRP_JUMP) and operands and operands[0].type == x86.X86_OP_IMM:
            ahead.append(int(operands[0].imm))
        if instruction.id != x86.X86_INS_JMP:
            ahead.append(at + instruction.size)
    return False, len(seen)


def _may_end_function(functions: Functions, decoder: capstone.Cs, address: int) -> bool:
    """Say whether a function may begin at `address`, which is after a call, or after the `nop`s there."""
    code = functions.code(address, _ALIGNMENT)
    padding = 0
    for instruction in decoder.disasm(code, address):
        if instruction.id != x86.X86_INS_NOP:
            break
        padding += instruction.size
    return (address + padding) % _ALIGNMENT == 0
