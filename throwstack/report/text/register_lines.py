# SPDX-License-Identifier: Apache-2.0
"""Registers and the instruction of a frame as `.cxr` of WinDbg shows them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from throwstack.report.frame_report import FrameReport
from throwstack.report.register_text import format_flags
from throwstack.report.text.text_lines import Line, Tone

_X86 = (("eax", "ebx", "ecx", "edx", "esi", "edi"), ("eip", "esp", "ebp"))
_X64 = (
    ("rax", "rbx", "rcx"),
    ("rdx", "rsi", "rdi"),
    ("rip", "rsp", "rbp"),
    (" r8", " r9", "r10"),
    ("r11", "r12", "r13"),
    ("r14", "r15"),
)
_SELECTORS = ("cs", "ss", "ds", "es", "fs", "gs")
_BYTES, _MNEMONIC = 16, 8
_BACKTICK_AT = 8


def register_lines(frame: FrameReport) -> Iterator[Line]:
    """Yield the registers of `frame`, as far as they are known, and its instruction."""
    registers = frame.registers
    is_64bit = "rip" in registers
    for names in _X64 if is_64bit else _X86:
        values = ((name, registers.get(name.strip())) for name in names)
        known = [f"{name}={value:0{16 if is_64bit else 8}x}" for name, value in values if value is not None]
        last = not is_64bit and names is _X86[-1] and "efl" in registers
        if known:
            yield Line("  " + " ".join([*known, _flags(registers)] if last else known))
    if is_64bit and "efl" in registers:
        yield Line(f"  {_flags(registers)}")
    if "efl" in registers:
        selectors = "  ".join(f"{name}={registers[name]:04x}" for name in _SELECTORS if name in registers)
        yield Line(f"  {selectors}             efl={registers['efl']:08x}")
    if frame.instruction:
        yield Line(f"  {frame.name}:", Tone.PLAIN)
        yield Line(f"  {instruction(frame.instruction)}")


def _flags(registers: Mapping[str, int]) -> str:
    level, _, rest = format_flags(registers["efl"]).partition(" ")
    return f"{level}         {rest}"


def instruction(text: str) -> str:
    """Return `001b:77e4bee7 5e              pop     esi` for `001b:77e4bee7 5e pop esi`.

    An address of 16 digits gets its backtick.
    """
    where, _, rest = text.partition(" ")
    code, _, rest = rest.partition(" ")
    mnemonic, _, operands = rest.partition(" ")
    selector, colon, place = where.rpartition(":")
    if len(place) > _BACKTICK_AT:
        place = f"{place[:_BACKTICK_AT]}`{place[_BACKTICK_AT:]}"
    return f"{selector}{colon}{place} {code:<{_BYTES - 1}} {mnemonic:<{_MNEMONIC - 1}} {operands}".rstrip()
