# SPDX-License-Identifier: Apache-2.0
"""What the instruction at which the CPU stopped means for the variables of its function.

A PDB says where variables are when an instruction begins. Two cases are not described by it:

- The function is already being left. The stack pointer is no longer where the body of the function had it. A PDB says
  nothing of epilogues, so that a place at a distance from the stack pointer would be read next to it. The CPU stops
  there if the return address is one that cannot be, or if a function ends with a call by a jump (`jmp [rax+18h]`), and
  the object with the pointer was overwritten.
- The instruction stopped on its way. `rep movsb` copies byte for byte and counts in registers, so that at a fault rsi
  and rdi are where the fault is, and no longer where they were. Other instructions have changed nothing if they fault.
"""

from __future__ import annotations

import re

from throwstack.core.frames import Frame
from throwstack.core.registers import Arch
from throwstack.pdb.function_details import FunctionAt

MOST_BYTES = 48
"""How much code at the instruction is looked at: the pops of an epilogue, and the instruction after them."""
_POPS = {
    Arch.X64: re.compile(rb"(?:\xC5\xF8\x77|\x41?[\x58-\x5F])*", re.DOTALL),
    Arch.X86: re.compile(rb"(?:\xC5\xF8\x77|[\x58-\x5F]|\x8D\x61.)*", re.DOTALL),
}
"""Pops of registers, `vzeroupper` before or after them, and `lea esp,[ecx-4]` of a function that aligns its stack."""
_KEPT = {Arch.X64: re.compile(rb"[\x5B\x5D-\x5F]|\x41[\x5C-\x5F]"), Arch.X86: re.compile(rb"[\x5B\x5D-\x5F]")}
"""A pop of a register that functions keep for their callers."""
_RETURN = re.compile(rb"[\xF2\xF3]?(?:\xC3|\xC2)", re.DOTALL)
_DIRECT_JUMP = re.compile(rb"\xF2?(?:\xEB(.)|\xE9(....))", re.DOTALL)
_INDIRECT_JUMP = {
    Arch.X64: re.compile(
        rb"[\x2E\x36\x3E\x64\x65\xF2]*([\x40-\x4F]?)\xFF([\x20-\x27\x60-\x67\xA0-\xA7\xE0-\xE7])(.)", re.DOTALL
    ),
    Arch.X86: re.compile(rb"[\x2E\x36\x3E\x64\x65\xF2]*()\xFF([\x20-\x27\x60-\x67\xA0-\xA7\xE0-\xE7])(.)", re.DOTALL),
}
"""Groups: the REX prefix, the ModRM byte, and the SIB byte if there is one."""
_REX_W = 8
_PREFIXES = rb"[\x26\x2E\x36\x3E\x64-\x67\xF2\xF3]*"
_STRING = {
    Arch.X64: re.compile(rb"%b[\xF2\xF3]%b[\x40-\x4F]?(.)" % (_PREFIXES, _PREFIXES), re.DOTALL),
    Arch.X86: re.compile(rb"%b[\xF2\xF3]%b(.)" % (_PREFIXES, _PREFIXES), re.DOTALL),
}
"""A repeated string instruction; the group is its opcode."""
_AX, _CX, _SI, _DI = 0, 1, 6, 7
_CHANGED = {
    **dict.fromkeys(b"\x6c\x6d\xaa\xab\xae\xaf", frozenset({_CX, _DI})),  # ins, stos, scas
    **dict.fromkeys(b"\x6e\x6f", frozenset({_CX, _SI})),  # outs
    **dict.fromkeys(b"\xa4\xa5\xa6\xa7", frozenset({_CX, _SI, _DI})),  # movs, cmps
    **dict.fromkeys(b"\xac\xad", frozenset({_AX, _CX, _SI})),  # lods
}


def changing_registers(arch: Arch, code: bytes) -> frozenset[int]:
    """Return the general registers that the first instruction in `code` may have changed before it was interrupted."""
    found = _STRING[arch].match(code)
    return _CHANGED.get(found[1][0], frozenset()) if found else frozenset()


def is_leaving(arch: Arch, frame: Frame, at: FunctionAt, code: bytes) -> bool:
    """Say whether the function `at` has left its frame at the first instruction in `code`, where `frame` stopped.

    A function without a frame has nothing to leave before it jumps.
    """
    pops = _POPS[arch].match(code)
    popped, after = (b"", 0) if pops is None else (pops[0], pops.end())
    if _RETURN.match(code, after):
        return True
    direct = _DIRECT_JUMP.match(code, after)
    if direct is not None:
        distance = int.from_bytes(direct[1] or direct[2], "little", signed=True)
        extent = at.function.scope.extent
        is_outside = extent is None or not extent.covers(at.section, at.offset + direct.end() + distance)
        if not is_outside:  # the frame of a branch may end in the middle of a function
            return _KEPT[arch].search(popped) is not None
        return bool(popped) or at.function.has_frame
    jump = _INDIRECT_JUMP[arch].match(code, after)
    if jump is None or not (popped or at.function.has_frame):
        return False
    if popped or _is_tail_call(arch, *(group[0] if group else 0 for group in jump.groups())):
        return True
    return frame.return_slot is None or frame.sp == frame.return_slot


def _is_tail_call(arch: Arch, rex: int, modrm: int, sib: int) -> bool:
    """Say whether an indirect jump cannot be that of a `switch`, by its prefix and its operand.

    On x64, compilers give a tail call the prefix REX.W, if it is not by the slot of an import. On x86, the jump of a
    `switch` has an index, or its operand is a register.
    """
    mode, base = modrm >> 6, modrm & 7
    if mode == 0 and base == 5:  # the address of an import
        return True
    if arch is Arch.X64:
        return bool(rex & _REX_W)
    has_index = base == 4 and sib >> 3 & 7 != 4
    return mode != 3 and not has_index
