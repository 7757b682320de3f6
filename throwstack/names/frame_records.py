# SPDX-License-Identifier: Apache-2.0
"""Records of a PDB that describe the frames of x86 functions: FrameData ("new FPO") and FPO_DATA.

The fields are those of the PDB's own structures (`IDiaFrameData`, `FPO_DATA` in winnt.h).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from throwstack.images.image import Image


@dataclass(frozen=True, slots=True)
class FrameData:
    """A record of a PDB: the code range that it covers, and the layout of the frame there. All sizes are in bytes.

    A FrameData record has a `program`, which is an expression in postfix notation that computes the caller's registers
    (`$T0 .raSearch = $eip $T0 ^ = …`). The `program` of an older FPO_DATA record is "": its layout follows from the
    sizes and from `uses_base_pointer`.
    """

    rva: int
    size: int
    prologue_size: int
    parameters_size: int
    saved_registers_size: int
    locals_size: int
    program: str
    uses_base_pointer: bool
    has_seh: bool = False
    """The function registers an exception handler."""
    is_non_fpo: bool = False
    """This is an FPO_DATA record of the kind FRAME_NONFPO: the function has an ordinary frame with a frame pointer."""
    has_eh: bool = False
    """The function handles C++ exceptions (a FrameData record's flag; FPO_DATA does not say)."""
    is_function_start: bool = False
    """The range begins where a function begins (a FrameData record's flag; FPO_DATA does not say)."""
    removed: int | None = None
    """How many bytes of arguments the function removes when it returns; None if the record does not say, as PDBs'."""


def annotation(data: FrameData) -> str:
    """Return `data` as WinDbg's `kv` prints it, for example `FPO: [4,20,4]`.

    The figures are the sizes of parameters, locals and saved registers, in words of 4 bytes.
    """
    if data.has_seh:
        return "FPO: [SEH]"
    if data.is_non_fpo:
        return "FPO: [Non-Fpo]"
    figures = f"[{data.parameters_size // 4},{data.locals_size // 4},{data.saved_registers_size // 4}]"
    return f"FPO: [Uses EBP] {figures}" if data.uses_base_pointer else f"FPO: {figures}"


class FrameDataSource(Protocol):
    """Finds the frame record of a PDB that covers an address of an image."""

    def frame_data(self, image: Image, rva: int) -> FrameData | None:
        """Return the record with the innermost range that covers `rva` in `image`, or None."""
        ...
