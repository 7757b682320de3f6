# SPDX-License-Identifier: Apache-2.0
"""Decides how certain it is that an address is in the function whose symbol is the nearest one before the address.

Exports and public symbols say where some functions start, and never where they end. So the nearest symbol before an
address may be that of another function: `DLL!Exported+0x9a0` is often in a function that is not exported. The image
helps. On x64 its RUNTIME_FUNCTION table has start and end of every function but leaf functions. On x86 the filling
between functions shows where one ended, and instructions that lead from the start to the address show that it has
not ended. If none of this decides it, the distance from the symbol does, and the name stays a guess.

Example: on Windows 7 x64 the nearest export before a frame of RtlDispatchException is RtlUnwindEx. RtlDispatchException
has a RUNTIME_FUNCTION of its own, so the name is doubtful.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum

import capstone

from throwstack.core.memory import MemoryUnreadable
from throwstack.core.registers import Arch
from throwstack.core.stop import Stop
from throwstack.images.function_table import RuntimeFunction
from throwstack.images.image import Headers, Image

MAX_OFFSET = 0x1FF
"""If the nearest export is further before an address than this, the address is taken to be in another function.

The distance decides only if the image does not. It was measured on six Windows kernels, whose symbol tables name every
function. Names that look exported were kept (one function in eight), the others were removed. The nearest name was then
the right one for 57 % of the addresses 0x40 to 0x7f after it, for 19 % at 0x100 to 0x1ff, for 7.5 % at 0x200 to 0x3ff
and for 0.8 % at 0x800 to 0xfff.
"""
_CHAINED = 0x4 << 3
_MAX_CHAIN = 32
_MAX_INSTRUCTION = 15
_FILLING = re.compile(rb"(?<![\xb8-\xbf\xcc])\xcc{3,}|[\x90\xcc]{5}\x8b\xff")
"""The filling between functions: int3, or room for a hot patch before `mov edi, edi`.

Four bytes CC after `mov reg` (B8 to BF) are not filling but a constant: `mov eax, 0CCCCCCCCh` is B8 CC CC CC CC. Code
that fills a debug build's locals has it.
"""
_DECODERS = {
    Arch.X86: capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32),
    Arch.X64: capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64),
}
_ENDS = frozenset({"ret", "retf", "jmp", "ljmp", "int3", "hlt", "ud2", "iretd"})
_FAST_FAIL = ("int", "0x29")
_JUMPS = frozenset({"jmp", "ljmp"})
_FILLS = re.compile(r"nop\b.*|int3 ?|lea (e\w\w), \[\1(\*1)?\]|xchg ax, ax")
"""Instructions that do nothing and fill the room between functions."""
_BETWEEN = re.compile(rf"{_FILLS.pattern}|mov edi, edi|mov ebp, esp")
"""These, one that leaves room for a hot patch, and the one that sets up a frame pointer."""
_BEGINNINGS = frozenset({"push", "sub"})
_BEGINS = re.compile(r"push [er](bp|bx|si|di)|sub [er]sp, .*|lea e\w\w, \[esp \+ \w+\]")
"""Instructions that begin a function, also one that aligns its stack pointer, but seldom a block inside a function."""
_ALIGNMENT = 16
_LONGEST_SPAN = 0x800
"""A conditional jump further than this from a function's start leads to its cold part, over other functions."""
_PROLOGUE = 0x10
"""How many bytes a function's own prologue has at most."""


class Certainty(Enum):
    """How certain it is that an address is in the function that it is named after."""

    CERTAIN = "certain"
    """The symbol table, the function table or the code says so."""
    LIKELY = "likely"
    """Nothing speaks against it, and the function starts a little before the address. Many such names are wrong."""
    DOUBTFUL = "doubtful"
    """The address seems to be in another function, which has no symbol."""


_BY_CODE = {True: Certainty.CERTAIN, False: Certainty.DOUBTFUL, None: None}
"""What follows from the answers of `_runs_on`."""


def certainty(image: Image, start: int, rva: int, *, is_sparse: bool, has_gaps: bool = False) -> Certainty:
    """Say how certain it is that RVA `rva` is in the function of `image` whose symbol is at RVA `start`.

    `is_sparse`: many functions of the image have no symbol, as in an export table. `has_gaps`: some symbols could not
    be read, so that one of these may be nearer to `rva`. Then only `start` itself is certain, unless the image's
    RUNTIME_FUNCTION table says that `rva` is in the same function.
    """
    if rva < start:
        return Certainty.DOUBTFUL
    headers = image.headers
    # An export can be a variable: ntdll exports `NlsAnsiCodePage`. It is in a data section and names no code after it.
    if headers is not None and headers.section_at(start) is not headers.section_at(rva):
        return Certainty.DOUBTFUL
    found = None if headers is None else _by_image(image, headers, start, rva, has_gaps=has_gaps)
    if found is Certainty.LIKELY and not is_sparse and not has_gaps:
        return Certainty.CERTAIN
    if found is not None:
        return found
    if rva == start or not (is_sparse or has_gaps):
        return Certainty.CERTAIN
    return Certainty.DOUBTFUL if has_gaps or rva - start > MAX_OFFSET else Certainty.LIKELY


def function_begin(image: Image, rva: int) -> tuple[int, int] | None:
    """Return two RVAs: where the RUNTIME_FUNCTION that covers `rva` begins, and where its function begins.

    The two differ if the entry is for a separate part of a function, such as the code that seldom runs ("cold"), which
    the linker puts far from the rest. The result is None if no entry covers `rva`, or if that cannot be read.
    """
    found = _nearest_function(image, rva)
    return None if found is None or rva >= found[2] else found[:2]


def _by_image(image: Image, headers: Headers, start: int, rva: int, *, has_gaps: bool) -> Certainty | None:
    """Return what the function table or the code of `image` says, or None if it does not decide."""
    if headers.arch.facts.has_function_table:
        return _by_function_table(image, start, rva, has_gaps=has_gaps)
    if rva - start > MAX_OFFSET:
        return None
    if _has_filling(image, start, rva):
        return Certainty.DOUBTFUL
    return None if has_gaps else _BY_CODE[_runs_on(image, Arch.X86, start, rva)]


def _by_function_table(image: Image, start: int, rva: int, *, has_gaps: bool) -> Certainty | None:
    found = _nearest_function(image, rva)
    if found is None:
        return None
    begin, function, end = found
    if rva < end and start in {begin, function}:
        return Certainty.CERTAIN
    if has_gaps and rva > start:
        return Certainty.DOUBTFUL
    if rva >= end:  # a leaf function has no entry, so that only its code says where it ends
        if start < end:
            return Certainty.DOUBTFUL
        return _BY_CODE[_runs_on(image, Arch.X64, start, rva)] or Certainty.LIKELY
    return Certainty.LIKELY if start > begin else Certainty.DOUBTFUL  # a label inside a function, or another function


def _has_filling(image: Image, start: int, rva: int) -> bool:
    return _FILLING.search(image.memory.read_available(image.base + start, rva - start)) is not None


def _runs_on(image: Image, arch: Arch, start: int, rva: int) -> bool | None:
    """Say whether the code from RVA `start` on reaches the instruction at `rva` before its function can have ended.

    False if the function has ended before, and None if that is not known. A function ends at a return or a jump. It can
    also end after a call, because some functions never return: then padding follows, or a prologue. None of this is an
    end where a conditional jump before it jumps over it. `rva` may be inside the instruction, because a return address
    is looked up one byte earlier, in its call.

    Measured on calls in libstdc++ of GCC 12 and in four DLLs of Wine 8, x86, with one name in eight kept: 637 addresses
    were reached, and the name was right for all of them. Of those not reached and near a name, one name in eight was.
    Another measurement, in the same kind of DLLs: 4502 calls were after the end of the named function. Of these 4320
    were in a function whose name had been left out, and 182 in one that, where looked at, has no name.
    """
    if rva == start:
        return True
    code = image.memory.read_available(image.base + start, rva - start + _MAX_INSTRUCTION)
    furthest = start
    is_after_call = may_have_ended = has_cold_part = False
    instructions = iter(_DECODERS[arch].disasm_lite(code, start))
    for address, size, mnemonic, operand in instructions:
        operation = mnemonic.rpartition(" ")[2]  # `bnd jmp`, `repz ret`
        may_begin = address - start >= _PROLOGUE and _may_begin_function(operation, operand, address, is_after_call)
        may_have_ended |= furthest <= address and may_begin
        if address + size > rva:
            return True if address <= rva and not may_have_ended else None
        is_end = operation in _ENDS or (operation, operand) == _FAST_FAIL
        if is_end and furthest < address + size:
            may_go_on = operation in _JUMPS and _may_go_on(operand, start, address)
            return False if not (may_go_on or has_cold_part) and _another_begins(instructions, rva) else None
        if operation[0] == "j" and not is_end and operand.startswith("0x"):
            target = int(operand, 16)
            has_cold_part |= target - start >= _LONGEST_SPAN
            furthest = max(furthest, target if target - start < _LONGEST_SPAN else 0)
        is_after_call = operation == "call"
    return None


def _may_go_on(operand: str, start: int, address: int) -> bool:
    """Say whether a function that begins at `start` may go on after its jump at `address`.

    It may after a jump to a place a little further on, as into a loop at its end, and after one by a table.
    """
    return not operand.startswith("0x") or address < int(operand, 16) < start + _LONGEST_SPAN


def _another_begins(instructions: Iterator[tuple[int, int, str, str]], rva: int) -> bool:
    """Say whether instructions, those after the end of a function, fill the room up to the next function, before `rva`.

    Example: GCC's `jmp` back to the head of a loop, `lea esi, [esi]` twice, and a function at the next multiple of 16.
    """
    is_filled = False
    for address, _, mnemonic, operand in instructions:
        if not _FILLS.fullmatch(f"{mnemonic} {operand}"):
            begins = _BEGINS.fullmatch(f"{mnemonic} {operand}") is not None
            return begins and is_filled and not address % _ALIGNMENT and address <= rva
        is_filled = True
    return False


def _may_begin_function(operation: str, operand: str, address: int, is_after_call: bool) -> bool:
    """Say whether an instruction at `address` can be padding before a function, or the beginning of one."""
    if _BETWEEN.fullmatch(f"{operation} {operand}"):
        return True
    return is_after_call and not address % _ALIGNMENT and operation in _BEGINNINGS


def _nearest_function(image: Image, rva: int) -> tuple[int, int, int] | None:
    """Return where the last RUNTIME_FUNCTION at or before `rva` begins, where its function begins, and where it ends.

    If the table begins after `rva`, all three are 0. The result is None if the table cannot be read.
    """
    table = image.function_table
    entry = None if table is None else table.nearest(rva)
    if table is None or isinstance(entry, Stop):
        return None
    if entry is None:
        return 0, 0, 0
    try:
        return entry.begin, _primary_begin(image, entry), entry.end
    except MemoryUnreadable:
        return None


def _primary_begin(image: Image, entry: RuntimeFunction) -> int:
    """Return the RVA where the function of `entry` begins.

    `entry` may be for a separate part of the function, and then leads to the function's first entry.
    """
    memory, base = image.memory, image.base
    for _ in range(_MAX_CHAIN):
        unwind = entry.unwind
        if unwind & 1:  # points to another entry
            entry = RuntimeFunction.read(memory, base + unwind - 1)
            continue
        if not memory.u8(base + unwind) & _CHAINED:
            break
        entry = RuntimeFunction.read(memory, base + unwind + 4 + (memory.u8(base + unwind + 2) + 1 & ~1) * 2)
    return entry.begin
