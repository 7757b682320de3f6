# SPDX-License-Identifier: Apache-2.0
"""What a PDB says of the frames of x86 functions, whoever reads it: FrameData ("new FPO") and FPO_DATA records.

The fields are those of the PDB's own structures (`IDiaFrameData`, `FPO_DATA` in winnt.h).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from throwstack.images.image import Image


@dataclass(frozen=True, slots=True)
class FrameData:
    """One record: the code range it covers and how the frame is laid out there. All sizes in bytes.

    `program` is the postfix program of a FrameData record (`$T0 .raSearch = $eip $T0 ^ = …`), or "" for an old
    FPO_DATA record, whose layout follows from the sizes and `uses_base_pointer`.
    """

    rva: int
    size: int
    prologue_size: int
    parameters_size: int
    saved_registers_size: int
    locals_size: int
    max_stack_size: int
    program: str
    uses_base_pointer: bool
    has_seh: bool = False
    """The function registers an exception handler."""
    is_non_fpo: bool = False
    """An FPO_DATA record that says of the function that it has an ordinary frame, FRAME_NONFPO."""


def annotation(data: FrameData) -> str:
    """Return a record as WinDbg's `kv` prints it: `FPO: [4,20,4]` (words of parameters, locals, saved registers)."""
    if data.has_seh:
        return "FPO: [SEH]"
    if data.is_non_fpo:
        return "FPO: [Non-Fpo]"
    figures = f"[{data.parameters_size // 4},{data.locals_size // 4},{data.saved_registers_size // 4}]"
    return f"FPO: [Uses EBP] {figures}" if data.uses_base_pointer else f"FPO: {figures}"


class FrameDataSource(Protocol):
    """Gives the record that covers an address of an image."""

    def frame_data(self, image: Image, rva: int) -> FrameData | None:
        """Return the innermost record that covers `rva` in `image`, or None."""
        ...
