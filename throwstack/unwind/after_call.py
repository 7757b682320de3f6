# SPDX-License-Identifier: Apache-2.0
"""Says whether a call instruction ends right before an address, and where that call went.

If a call ends there, the address can be a return address. The calls recognized are the near calls of Intel's manual:
E8 rel32, and FF /2 with any addressing form. Their encoding is the same on x86 and x64, because an x64 REX prefix only
changes the operand.

Code cannot be read backwards for certain, so the bytes before an address can be read as more than one call. For
example, `FF 15 00 10 FF D0` is `call [0xd0ff1000]`, and its last two bytes are `call eax`.
"""

from __future__ import annotations

from collections.abc import Iterator

import capstone
from capstone import x86

from throwstack.core.memory import PAGE_SIZE, Memory, MemoryUnreadable
from throwstack.core.registers import AX, X64, Registers

LONGEST_CALL = 7
"""Bytes of the longest near call without prefixes: FF, ModRM, SIB and four bytes of displacement."""

_SEGMENT_OVERRIDES = frozenset(bytes.fromhex("26 2e 36 3e 64 65"))
_MASK = (1 << 64) - 1
_NUMBERS = [getattr(x86, f"X86_REG_{name.upper()}") for name in X64.register_names]
_DECODER = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
_DECODER.detail = True


def is_after_call(memory: Memory, address: int) -> bool | None:
    """Say whether a call instruction ends at `address`; None if the bytes before it cannot be read."""
    if not LONGEST_CALL < address < 1 << 64:
        return False
    try:
        code = memory.read(address - LONGEST_CALL, LONGEST_CALL)
    except MemoryUnreadable:
        return None
    return next(_sizes(code), None) is not None


def calls_before(memory: Memory, address: int) -> Iterator[int]:
    """Yield each address at which an x86 call that ends at `address` may begin.

    A segment override prefix belongs to the call: `64 FF 15 C0 00 00 00` is `call fs:[0C0h]`, with which WoW64 leaves
    32-bit code. For such a call both the address of `FF` and the address of the prefix are yielded. If the page before
    `address` is absent, only calls within the page of `address - 1` are found.
    """
    if not LONGEST_CALL < address < 1 << 64:
        return
    try:
        code = memory.read(address - LONGEST_CALL - 1, LONGEST_CALL + 1)
    except MemoryUnreadable:
        start = (address - 1) & -PAGE_SIZE
        code = memory.read_available(start, address - start).rjust(LONGEST_CALL + 1, b"\0")[-LONGEST_CALL - 1 :]
    for size in _sizes(code[1:]):
        yield address - size
        if code[LONGEST_CALL - size] in _SEGMENT_OVERRIDES:
            yield address - size - 1


def call_targets(memory: Memory, address: int, registers: Registers) -> set[int]:
    """Return the addresses to which the x64 call that ends at `address` can have gone.

    `registers` are the values right after the call, before the called code has run an instruction. There is more than
    one target if the bytes can be read as more than one call. The value of rax is always in the set, because under
    Control Flow Guard a call goes to a dispatcher that jumps to rax.
    """
    try:
        code = memory.read(address - LONGEST_CALL - 1, LONGEST_CALL + 1)
    except MemoryUnreadable:
        return set()
    targets: set[int | None] = {registers.gpr[AX]}
    for size in _sizes(code[1:]):
        start = len(code) - size
        has_rex = code[start - 1] & 0xF0 == 0x40
        first = start - has_rex
        for instruction in _DECODER.disasm(code[first:], address - len(code) + first, 1):
            if instruction.id == x86.X86_INS_CALL:
                targets.add(_target(memory, instruction, registers))
    return {target for target in targets if target is not None}


def _target(memory: Memory, instruction: capstone.CsInsn, registers: Registers) -> int | None:
    operand = instruction.operands[0]
    if operand.type == x86.X86_OP_IMM:
        target: int = operand.imm & _MASK
        return target
    values = {0: 0, x86.X86_REG_RIP: instruction.address + instruction.size}
    values.update((number, value) for number, value in zip(_NUMBERS, registers.gpr, strict=True) if value is not None)
    values[x86.X86_REG_RSP] = registers.sp + 8  # as it was before the call pushed its return address
    if operand.type == x86.X86_OP_REG:
        return values.get(operand.reg)
    base, index = values.get(operand.mem.base), values.get(operand.mem.index)
    if operand.type != x86.X86_OP_MEM or base is None or index is None:
        return None
    try:
        return memory.u64(base + index * operand.mem.scale + operand.mem.disp & _MASK)
    except MemoryUnreadable:
        return None


def _sizes(code: bytes) -> Iterator[int]:
    """Yield the size in bytes, without prefixes, of each call instruction that can be the end of the 7 bytes `code`."""
    if code[2] == 0xE8:
        yield 5
    for start in range(LONGEST_CALL - 1):
        if code[start] == 0xFF and code[start + 1] & 0x38 == 0x10 and _size(code[start + 1 :]) == LONGEST_CALL - start:
            yield LONGEST_CALL - start


def _size(operand: bytes) -> int:
    """Return the size of a call of the form FF /2; `operand` begins with its ModRM byte, the byte after `FF`."""
    mode, base = operand[0] >> 6, operand[0] & 7
    if mode == 3:
        return 2
    has_index = base == 4
    displacement = (0, 1, 4)[mode]
    if mode == 0 and (base == 5 or (has_index and len(operand) > 1 and operand[1] & 7 == 5)):
        displacement = 4
    return 2 + has_index + displacement
