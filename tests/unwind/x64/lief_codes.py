# SPDX-License-Identifier: Apache-2.0
"""Unwind codes as LIEF decodes them, in the form of ours, and the comparison of the two over a whole image.

The frame register's offset is left out: LIEF 1.0's `frame_reg_offset` is the upper half of the header's first byte
(version and flags) where the specification puts it in the fourth: 1 for every function with handlers, frame register
or not. EPILOG codes are left out too: LIEF shows all of them in the form of the first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import lief

from tests.unwind.x64.pe_files import open_image
from throwstack.core.memory import Memory, MemoryUnreadable
from throwstack.core.stop import Stop
from throwstack.images.function_table import FunctionTable, RuntimeFunction
from throwstack.unwind.x64.unwind_info import UnwindInfo, UnwindOp, decode

_NAMES_OF_REGISTERS = (
    *("RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI"),
    *("R8", "R9", "R10", "R11", "R12", "R13", "R14", "R15"),
)
_OPCODES = lief.PE.RuntimeFunctionX64.UNWIND_OPCODES
_CHAINED = 4


@dataclass
class Comparison:
    """Counts over images, and the first of the differences."""

    images: int = 0
    functions: int = 0
    codes: int = 0
    version2: int = 0
    chained: int = 0
    indirect: int = 0
    discarded: int = 0
    differences: list[str] = field(default_factory=list)
    by_op: dict[str, int] = field(default_factory=dict)


def lief_view(info: object) -> tuple[object, ...]:
    """Return an `unwind_info_t` as a tuple; EPILOG codes apart."""
    codes = []
    for code in info.opcodes:
        match code.opcode:
            case _OPCODES.PUSH_NONVOL:
                operands = (_NAMES_OF_REGISTERS.index(code.reg.name), 0)
            case _OPCODES.ALLOC_LARGE | _OPCODES.ALLOC_SMALL:
                operands = (0, code.size)
            case _OPCODES.SET_FPREG:
                operands = (_NAMES_OF_REGISTERS.index(code.reg.name), None)
            case _OPCODES.SAVE_NONVOL | _OPCODES.SAVE_NONVOL_FAR:
                operands = (_NAMES_OF_REGISTERS.index(code.reg.name), code.offset)
            case _OPCODES.SAVE_XMM128 | _OPCODES.SAVE_XMM128_FAR:
                operands = (code.num, code.offset)
            case _OPCODES.PUSH_MACHFRAME:
                operands = (0, code.value)
            case _OPCODES.EPILOG:
                continue
            case _:
                operands = ("spare",)
        codes.append((code.position, code.opcode.name, *operands))
    chained = info.chained
    link = (chained.rva_start, chained.rva_end, chained.unwind_rva) if chained is not None else None
    if not info.flags & _CHAINED:
        link = None
    return info.version, info.flags, info.sizeof_prologue, info.frame_reg, codes, link


def our_view(info: UnwindInfo) -> tuple[object, ...]:
    """Return our decoded unwind information in the same form."""
    codes = [
        (code.offset, code.op.name, code.register, None if code.op is UnwindOp.SET_FPREG else code.value)
        for code in info.codes
    ]
    chained = info.chained
    link = (chained.begin, chained.end, chained.unwind) if chained is not None else None
    return info.version, info.flags, info.prologue_size, info.frame_register, codes, link


def compare(path: Path, total: Comparison) -> None:
    """Compare every entry of the image in `path` and add to `total`."""
    opened = open_image(path)
    if opened is None:
        return
    images, image = opened
    config = lief.PE.ParserConfig()
    config.parse_exceptions = True
    config.parse_exports = config.parse_imports = config.parse_reloc = config.parse_rsrc = False
    config.parse_signature = False
    pe = lief.PE.parse(str(path), config)
    if pe is None or image.headers is None:
        total.differences.append(f"{path}: not parsed")
        return
    total.images += 1
    rva, size = image.headers.exception_directory
    theirs = {(entry.rva_start, entry.rva_end, entry.unwind_rva): entry for entry in pe.exceptions}
    table = FunctionTable(images.memory, image.base + rva, size)
    for slot in range(size // 12):
        entry = RuntimeFunction.read(images.memory, image.base + rva + 12 * slot)
        if not entry.begin and not entry.end:
            total.discarded += 1
            continue
        total.functions += 1
        if table.find(entry.begin) != entry or table.find(entry.end - 1) != entry:
            difference: str | None = "not found in the table"
        else:
            difference = _compare_entry(images.memory, image.base, entry, theirs, total)
        if difference is not None:
            total.differences.append(f"{path}: {entry.begin:#x}: {difference}")


def _compare_entry(
    memory: Memory, base: int, entry: RuntimeFunction, theirs: dict[tuple[int, int, int], object], total: Comparison
) -> str | None:
    if entry.unwind & 1:
        total.indirect += 1
        return None
    try:
        info = decode(memory, base + entry.unwind)
    except MemoryUnreadable as error:
        return str(error)
    if isinstance(info, Stop):
        return info.detail
    total.version2 += info.version == 2
    total.chained += info.chained is not None
    total.codes += len(info.codes)
    for code in info.codes:
        total.by_op[code.op.name] = total.by_op.get(code.op.name, 0) + 1
    other = theirs.get((entry.begin, entry.end, entry.unwind))
    if other is None or other.unwind_info is None:
        return "LIEF has no such entry"
    if lief_view(other.unwind_info) != our_view(info):
        return f"{our_view(info)} here, {lief_view(other.unwind_info)} in LIEF"
    return None
