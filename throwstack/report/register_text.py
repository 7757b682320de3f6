# SPDX-License-Identifier: Apache-2.0
"""Registers and the instruction at ip as WinDbg's `.cxr` and `r` print them."""

from __future__ import annotations

from collections.abc import Mapping

import capstone

from throwstack.core.contexts import Context
from throwstack.core.memory import Memory
from throwstack.core.registers import Arch, Registers

_SELECTORS = ("cs", "ss", "ds", "es", "fs", "gs")
_SELECTORS_AND_FLAGS = frozenset({*_SELECTORS, "efl"})
_ORDER = {
    Arch.X86: ("eax", "ebx", "ecx", "edx", "esi", "edi", "eip", "esp", "ebp"),
    Arch.X64: (
        *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rip", "rsp", "rbp"),
        *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
    ),
}
_MODES = {Arch.X86: capstone.CS_MODE_32, Arch.X64: capstone.CS_MODE_64}

_FLAGS = (
    (11, "ov", "nv"),
    (10, "dn", "up"),
    (9, "ei", "di"),
    (7, "ng", "pl"),
    (6, "zr", "nz"),
    (4, "ac", "na"),
    (2, "pe", "po"),
    (0, "cy", "nc"),
)
"""A bit of EFLAGS, what WinDbg prints if it is set, and what WinDbg prints if it is clear."""

_MAX_INSTRUCTION = 15


def format_flags(eflags: int) -> str:
    """Return `iopl=0 nv up ei pl nz na pe nc` for 0x206."""
    words = (on if eflags >> bit & 1 else off for bit, on, off in _FLAGS)
    return " ".join((f"iopl={eflags >> 12 & 3}", *words))


def context_values(context: Context) -> dict[str, int]:
    """Return all registers of a saved CONTEXT by name: the general ones, `eip` or `rip`, selectors, `efl`."""
    segments = {"cs": context.cs, "ss": context.ss, "ds": context.ds, "es": context.es, "fs": context.fs}
    return {
        **register_values(context.arch, context.registers),
        **segments,
        "gs": context.gs,
        "efl": context.eflags,
    }


def register_values(arch: Arch, registers: Registers) -> dict[str, int]:
    """Return the known registers of a frame by name, in WinDbg's order."""
    values = dict(zip(arch.register_names, registers.gpr, strict=True))
    values[arch.facts.ip_name] = registers.ip
    return {name: value for name in _ORDER[arch] if (value := values[name]) is not None}


def format_registers(values: Mapping[str, int]) -> str:
    """Return the registers of `context_values` or `register_values` on one line, as WinDbg prints them."""
    width = 16 if "rip" in values else 8
    general = [f"{name}={value:0{width}x}" for name, value in values.items() if name not in _SELECTORS_AND_FLAGS]
    if "efl" not in values:
        return " ".join(general)
    selectors = [f"{name}={values[name]:04x}" for name in _SELECTORS]
    return " ".join([*general, format_flags(values["efl"]), *selectors, f"efl={values['efl']:08x}"])


def format_instruction(memory: Memory, arch: Arch, address: int, cs: int | None = None) -> str | None:
    """Return the instruction at `address`, `001b:77e4bee7 5e pop esi`, or None if the code is not readable.

    Without `cs` the selector is left out. Bytes that are no instruction are shown as `???`.
    """
    code = memory.read_available(address, _MAX_INSTRUCTION)
    if not code:
        return None
    where = f"{address:0{arch.pointer_size * 2}x}"
    if cs is not None:
        where = f"{cs:04x}:{where}"
    for _, size, mnemonic, operands in capstone.Cs(capstone.CS_ARCH_X86, _MODES[arch]).disasm_lite(
        code, address, count=1
    ):
        return f"{where} {code[:size].hex()} {mnemonic} {operands}".rstrip()
    return f"{where} {code[:1].hex()} ???" if len(code) == _MAX_INSTRUCTION else None
