# SPDX-License-Identifier: Apache-2.0
"""Reads FPO_DATA records of a PDB and writes them as `STACK WIN` lines, with `STACK SEH` for exception handlers.

Follows `FPO_DATA` in winnt.h and, for the flags of FrameData records, `FRAMEDATA` in cvinfo.h.

symbolic could write these lines, but reads the bits of FPO_DATA wrongly, as LLVM does. It takes bit 10 for "uses ebp",
but that is bit 12, and bit 10 belongs to the number of saved registers. It also cuts the prologue's size to four bits.
Unwinding with such a record would give wrong frames, so the records are read here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from throwstack.pdb.dbi import DebugStream
from throwstack.pdb.msf import MsfFile
from throwstack.pdb.omap import Omap, read_streams

_RECORD = struct.Struct("<IIIHH")
_FRAME_DATA = struct.Struct("<II20xI")
_HAS_SEH = 1


def fpo_lines(pdb: Path, omap: Omap) -> Iterator[str]:
    """Yield a `STACK WIN` line for each FPO_DATA record, and a `STACK SEH` line for each function with a handler.

    `omap` translates the ranges of the records. A range that was split gets a line for each piece. Raises
    `throwstack.pdb.msf.NotAPdb` and `OSError`.
    """
    with MsfFile(pdb) as msf:
        records, frame_data = read_streams(msf, (DebugStream.FPO, DebugStream.FRAME_DATA))
    for begin, size, flags in _FRAME_DATA.iter_unpack(frame_data[: len(frame_data) // 32 * 32]):
        if flags & _HAS_SEH:
            for rva, length, _ in omap.pieces(begin, size):
                yield f"STACK SEH {rva:x} {length:x}"
    for begin, size, local, parameters, bits in _RECORD.iter_unpack(records[: len(records) // 16 * 16]):
        prologue, saved, has_seh, uses_bp, kind = bits & 0xFF, bits >> 8 & 7, bits >> 11 & 1, bits >> 12 & 1, bits >> 14
        for rva, length, offset in omap.pieces(begin, size):
            if has_seh:
                yield f"STACK SEH {rva:x} {length:x}"
            yield (
                f"STACK WIN {kind:x} {rva:x} {length:x} {max(0, prologue - offset):x} 0 {4 * parameters:x} "
                f"{4 * saved:x} {4 * local:x} 0 0 {uses_bp}"
            )


def frame_data_lines(lines: Iterable[str], omap: Omap) -> Iterator[str]:
    """Yield the FrameData records (`STACK WIN 4`) among `lines`, with their ranges translated by `omap`."""
    for line in lines:
        if not line.startswith("STACK WIN 4 "):
            continue
        words = line.split(" ", 6)
        begin, size, prologue = (int(word, 16) for word in words[3:6])
        for rva, length, offset in omap.pieces(begin, size):
            yield f"STACK WIN 4 {rva:x} {length:x} {max(0, prologue - offset):x} {words[6]}"
