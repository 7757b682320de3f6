# SPDX-License-Identifier: Apache-2.0
"""The registers a stack walk carries from frame to frame.

General registers stand in the order in which x86 and x64 instructions encode them, so that an unwind code's or a
decoder's register number is an index: 0 ax, 1 cx, 2 dx, 3 bx, 4 sp, 5 bp, 6 si, 7 di, then r8 to r15. A register
whose value is not known at a frame is None: a rule that needs it must say so rather than use a stale value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

SP = 4
BP = 5

X86_NAMES = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
X64_NAMES = (
    *("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"),
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
)
X86_NONVOLATILE = (3, 5, 6, 7)
X64_NONVOLATILE = (3, 5, 6, 7, 12, 13, 14, 15)


class Arch(Enum):
    """The instruction set that a stack belongs to. A 32-bit stack of a WoW64 process is `X86`."""

    X86 = "x86"
    X64 = "x64"

    @property
    def pointer_size(self) -> int:
        """Return the size of a pointer in bytes: 4 or 8."""
        return 4 if self is Arch.X86 else 8

    @property
    def register_names(self) -> tuple[str, ...]:
        """Return the names of the general registers, in encoding order."""
        return X86_NAMES if self is Arch.X86 else X64_NAMES


@dataclass(frozen=True, slots=True)
class Registers:
    """Instruction pointer and general registers (8 on x86, 16 on x64); None where a value is unknown."""

    ip: int
    gpr: tuple[int | None, ...]

    @property
    def sp(self) -> int:
        """Return the stack pointer, which is known at every frame."""
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
        """Build from names (`eip`/`rip`, `esp`, …); what is not named is unknown."""
        ip = values["eip" if arch is Arch.X86 else "rip"]
        return cls(ip, tuple(values.get(name) for name in arch.register_names))
