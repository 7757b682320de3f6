# SPDX-License-Identifier: Apache-2.0
"""Calls before an address: whether it can be a return address at all, and where the call went.

Near calls as in Intel's manual: E8 rel32, and FF /2 with any addressing form; a REX prefix before them does not matter
but to the operand.
"""

from __future__ import annotations

from collections.abc import Iterator

import capstone
from capstone import x86

from throwstack.core.memory import Memory, MemoryUnreadable
from throwstack.core.registers import X64, Registers

_LONGEST = 7
_MASK = (1 << 64) - 1
_NUMBERS = [getattr(x86, f"X86_REG_{name.upper()}") for name in X64.register_names]
_DECODER = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
_DECODER.detail = True


def follows_call(memory: Memory, address: int) -> bool | None:
    """Say whether a call instruction ends at `address`; None if the bytes before it cannot be read."""
    if not _LONGEST < address < 1 << 64:
        return False
    try:
        code = memory.read(address - _LONGEST, _LONGEST)
    except MemoryUnreadable:
        return None
    return next(_starts(code), None) is not None


def went_to(memory: Memory, address: int, registers: Registers) -> set[int]:
    """Return where the call that ends at `address` can have gone, `registers` being those at its target.

    More than one answer where the bytes can be read as more than one call. With Control Flow Guard the call goes to
    a dispatcher that jumps to rax, so that rax counts too.
    """
    try:
        code = memory.read(address - _LONGEST - 1, _LONGEST + 1)
    except MemoryUnreadable:
        return set()
    targets: set[int | None] = {registers.gpr[0]}
    for start in _starts(code[1:]):
        has_rex = code[start] & 0xF0 == 0x40
        first = start + 1 - has_rex
        for instruction in _DECODER.disasm(code[first:], address - len(code) + first, 1):
            if instruction.id == x86.X86_INS_CALL:
                targets.add(_target(memory, instruction, registers))
    return {target for target in targets if target is not None}


def _target(memory: Memory, instruction: capstone.CsInsn, registers: Registers) -> int | None:
    operand = instruction.operands[0]
    if operand.type == x86.X86_OP_IMM:
        target: int = operand.imm & _MASK
        return target
    known = {0: 0, x86.X86_REG_RIP: instruction.address + instruction.size}
    known.update((number, value) for number, value in zip(_NUMBERS, registers.gpr, strict=True) if value is not None)
    known[x86.X86_REG_RSP] = registers.sp + 8  # as it was before the call pushed its return address
    if operand.type == x86.X86_OP_REG:
        return known.get(operand.reg)
    base, index = known.get(operand.mem.base), known.get(operand.mem.index)
    if operand.type != x86.X86_OP_MEM or base is None or index is None:
        return None
    try:
        return memory.u64(base + index * operand.mem.scale + operand.mem.disp & _MASK)
    except MemoryUnreadable:
        return None


def _starts(code: bytes) -> Iterator[int]:
    """Yield where in the seven bytes `code` a call can start that ends with them, prefixes left out."""
    if code[2] == 0xE8:
        yield 2
    for start in range(_LONGEST - 1):
        if code[start] == 0xFF and code[start + 1] & 0x38 == 0x10 and _length(code[start + 1 :]) == _LONGEST - start:
            yield start


def _length(operand: bytes) -> int:
    """Return the length of `FF` and the ModRM operand that starts `operand`."""
    mode, base = operand[0] >> 6, operand[0] & 7
    if mode == 3:
        return 2
    has_index = base == 4
    displacement = (0, 1, 4)[mode]
    if mode == 0 and (base == 5 or (has_index and len(operand) > 1 and operand[1] & 7 == 5)):
        displacement = 4
    return 2 + has_index + displacement
