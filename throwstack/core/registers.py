# SPDX-License-Identifier: Apache-2.0
"""The registers that a stack walk carries from frame to frame, and what differs between x86 and x64.

General registers are numbered as x86 and x64 instructions encode them, so that a register number in an unwind code or
an instruction is an index: 0 ax, 1 cx, 2 dx, 3 bx, 4 sp, 5 bp, 6 si, 7 di, then r8 to r15. A register whose value is
not known at a frame is None. Code that needs the value then reports that it is unknown, and never uses a stale value.

The facts come from Microsoft's calling conventions and from winnt.h (CONTEXT, EXCEPTION_RECORD).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

AX = 0
CX = 1
SP = 4
BP = 5


@dataclass(frozen=True, slots=True)
class ArchFacts:
    """What the calling conventions and winnt.h fix for an architecture. Sizes and offsets are in bytes.

    `nonvolatile` has the numbers of the registers that a function must preserve for its caller. If `arguments_on_stack`
    is True, a caller pushes the arguments of a function; if it is False, the first arguments are in registers. If
    `has_exception_list` is True, a function with an exception handler links a registration on its stack into a chain
    that begins at fs:[0]. If `has_function_table` is True, an image lists its functions in RUNTIME_FUNCTIONs (.pdata).

    `context_size` and `context_alignment` are those of a CONTEXT. `context_flags_at` and `context_ip_at` are the
    offsets of ContextFlags and of the instruction pointer in it, and `context_flag` is the architecture's bit in
    ContextFlags. `user_selectors` are the pairs (cs, ss) with which user-mode code runs. `record_head` unpacks the
    fixed part of an EXCEPTION_RECORD: code, flags, address of the next record, address of the instruction, number of
    parameters. `record_address_at` is the offset of the address of the instruction in the record.
    """

    pointer_size: int
    register_names: tuple[str, ...]
    ip_name: str
    nonvolatile: tuple[int, ...]
    arguments_on_stack: bool
    has_exception_list: bool
    has_function_table: bool
    context_size: int
    context_alignment: int
    context_flags_at: int
    context_ip_at: int
    context_flag: int
    user_selectors: frozenset[tuple[int, int]]
    record_head: struct.Struct
    record_address_at: int

    @property
    def sp_name(self) -> str:
        """Return the name of the stack pointer: esp or rsp."""
        return self.register_names[SP]


X86 = ArchFacts(
    pointer_size=4,
    register_names=("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"),
    ip_name="eip",
    nonvolatile=(3, 5, 6, 7),
    arguments_on_stack=True,
    has_exception_list=True,
    has_function_table=False,
    context_size=0x2CC,
    context_alignment=4,
    context_flags_at=0,
    context_ip_at=0xB8,
    context_flag=0x00010000,
    user_selectors=frozenset({(0x1B, 0x23), (0x23, 0x2B)}),  # 32-bit Windows, WoW64
    record_head=struct.Struct("<5I"),
    record_address_at=0xC,
)
X64 = ArchFacts(
    pointer_size=8,
    register_names=(
        *("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"),
        *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
    ),
    ip_name="rip",
    nonvolatile=(3, 5, 6, 7, 12, 13, 14, 15),
    arguments_on_stack=False,
    has_exception_list=False,
    has_function_table=True,
    context_size=0x4D0,
    context_alignment=16,
    context_flags_at=0x30,
    context_ip_at=0xF8,
    context_flag=0x00100000,
    user_selectors=frozenset({(0x33, 0x2B)}),
    record_head=struct.Struct("<IIQQI4x"),
    record_address_at=0x10,
)


class Arch(Enum):
    """The architecture of the code that uses a stack. For a 32-bit stack of a WoW64 process it is `X86`.

    `facts` describes the architecture. Its members `pointer_size` and `register_names` are also attributes of `Arch`.
    """

    X86 = "x86"
    X64 = "x64"

    facts: ArchFacts
    pointer_size: int
    register_names: tuple[str, ...]

    def __init__(self, value: str) -> None:
        self.facts = X86 if value == "x86" else X64
        self.pointer_size = self.facts.pointer_size
        self.register_names = self.facts.register_names

    @classmethod
    def of(cls, *, is_64bit: bool) -> Arch:
        """Return the architecture of a 64-bit or a 32-bit Windows."""
        return cls.X64 if is_64bit else cls.X86


@dataclass(frozen=True, slots=True)
class Registers:
    """The instruction pointer and the general registers `gpr` (8 on x86, 16 on x64); an unknown register is None."""

    ip: int
    gpr: tuple[int | None, ...]

    @property
    def sp(self) -> int:
        """Return the stack pointer, which is known at every frame; raises ValueError if it is not known."""
        value = self.gpr[SP]
        if value is None:
            message = "a frame without a stack pointer"
            raise ValueError(message)
        return value

    @property
    def bp(self) -> int | None:
        """Return ebp or rbp, or None if it is not known."""
        return self.gpr[BP]

    @classmethod
    def named(cls, arch: Arch, values: Mapping[str, int]) -> Registers:
        """Make registers from `values` by name (`rip`, `rsp`, …); a general register without a value is unknown."""
        return cls(values[arch.facts.ip_name], tuple(values.get(name) for name in arch.register_names))
