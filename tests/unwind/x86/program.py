# SPDX-License-Identifier: Apache-2.0
"""What a generated x86 program is: its functions, how each has its frame and is called, and what its PDB would say."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from tests.unwind.x86.machine import BASE
from throwstack.names.frame_records import FrameData


class Kind(Enum):
    FRAME_POINTER = "frame pointer"
    FPO = "no frame pointer"
    FPO_BP = "no frame pointer, ebp a general register"
    ALLOCA = "frame pointer and alloca"
    PROBE = "no frame pointer, a large frame"
    SEH = "__SEH_prolog"
    SEH4 = "__SEH_prolog4"
    EH = "__EH_prolog"
    REALIGNED = "realigned, as clang does"
    REALIGNED_BX = "realigned, as VC does"


class Convention(Enum):
    CDECL = "cdecl"
    STDCALL = "stdcall"


@dataclass
class Function:
    name: str
    kind: Kind
    convention: Convention
    arguments: int
    """Number of 4-byte arguments."""
    via: str = "direct"
    """How it is called: direct, import, register, thunk or virtual."""
    steps: list[tuple[int, int, int, str]] = field(default_factory=list)
    """Address, bytes of saved registers, bytes of locals, program."""
    prologue_end: int = 0
    end: int = 0
    start: int = 0

    @property
    def popped(self) -> int:
        return 4 * self.arguments if self.convention is Convention.STDCALL else 0


@dataclass
class Program:
    code: bytes
    data: bytes
    labels: dict[str, int]
    functions: list[Function]

    @property
    def records(self) -> list[FrameData]:
        """What the PDB of the program would hold."""
        return [
            FrameData(
                rva=address - BASE,
                size=function.end - address,
                prologue_size=max(function.prologue_end - address, 0),
                parameters_size=4 * function.arguments,
                saved_registers_size=saved,
                locals_size=local,
                program=program,
                uses_base_pointer="$ebp" in program,
            )
            for function in self.functions
            for address, saved, local, program in function.steps
        ]

    def popped_at(self, address: int) -> int:
        """Bytes of arguments removed by the function that begins at `address`."""
        return next((function.popped for function in self.functions if function.start == address), 0)

    def is_helper(self, address: int) -> bool:
        """Say whether `address` is in one of the runtime's helpers, which come last."""
        return address >= self.labels["helpers"]
