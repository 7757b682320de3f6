# SPDX-License-Identifier: Apache-2.0
"""FPO_DATA records of a PDB, written as `STACK WIN` lines, and which functions register exception handlers.

Follows `FPO_DATA` in winnt.h and, for the flags of FrameData records, `FRAMEDATA` in cvinfo.h. symbolic takes
FPO_DATA's bit for "uses ebp" from another place of that structure (bit 10, a bit of the count of saved registers,
instead of bit 12) and cuts the prologue's size to four bits, as LLVM does; a frame laid out by such a record would be
wrong, so the records are read here.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path

from throwstack.pdb.msf import DBI_STREAM, MsfFile

_MAX_STREAM = 256 << 20
_DBI_SIZES = struct.Struct("<iiiiiIii")
_DBI_HEADER_SIZE = 64
_FPO_STREAM, _OMAP_FROM_SOURCE_STREAM, _FRAME_DATA_STREAM = 0, 4, 9
_RECORD = struct.Struct("<IIIHH")
_FRAME_DATA = struct.Struct("<II20xI")
_HAS_SEH = 1
_MAX_PIECES = 256


def fpo_lines(pdb: Path) -> Iterator[str]:
    """Yield a `STACK WIN` line for each FPO_DATA record, and `STACK SEH` lines.

    Raises `throwstack.pdb.msf.NotAPdb` and `OSError`.
    """
    with pdb.open("rb") as file:
        msf = MsfFile(file)
        dbi = msf.stream(DBI_STREAM, _MAX_STREAM)
        if len(dbi) < _DBI_HEADER_SIZE:
            return
        *sizes, _, debug_size, edit_size = _DBI_SIZES.unpack_from(dbi, 24)
        start = _DBI_HEADER_SIZE + sum(sizes) + edit_size
        if start < 0 or debug_size < 0:
            return
        words = (
            struct.unpack_from(f"<{len(dbi[start : start + debug_size]) // 2}H", dbi, start) if start < len(dbi) else ()
        )
        records, original, frame_data = (
            msf.stream(words[index], _MAX_STREAM) if index < len(words) else b""
            for index in (_FPO_STREAM, _OMAP_FROM_SOURCE_STREAM, _FRAME_DATA_STREAM)
        )
    omap = _Omap(original)
    for begin, size, flags in _FRAME_DATA.iter_unpack(frame_data[: len(frame_data) // 32 * 32]):
        if flags & _HAS_SEH:
            for rva, length in omap.pieces(begin, size):
                yield f"STACK SEH {rva:x} {length:x}"
    for begin, size, local, parameters, bits in _RECORD.iter_unpack(records[: len(records) // 16 * 16]):
        prologue, saved, has_seh, uses_bp, kind = bits & 0xFF, bits >> 8 & 7, bits >> 11 & 1, bits >> 12 & 1, bits >> 14
        for rva, length in omap.pieces(begin, size):
            if has_seh:
                yield f"STACK SEH {rva:x} {length:x}"
            yield (
                f"STACK WIN {kind:x} {rva:x} {length:x} {prologue:x} 0 {4 * parameters:x} {4 * saved:x} {4 * local:x} "
                f"0 0 {uses_bp}"
            )


class _Omap:
    """Where code went when the linked image was rearranged: (original RVA, RVA or 0) for the start of each piece."""

    def __init__(self, data: bytes) -> None:
        pairs = sorted(struct.iter_unpack("<II", data[: len(data) // 8 * 8]))
        self._from = [pair[0] for pair in pairs]
        self._to = [pair[1] for pair in pairs]

    def pieces(self, rva: int, size: int) -> Iterator[tuple[int, int]]:
        """Yield RVA and size of each piece that the range `rva`, `size` of the original image has become."""
        if not self._from:
            yield rva, size
            return
        end = rva + size
        index = bisect_right(self._from, rva) - 1
        for _ in range(_MAX_PIECES):
            if rva >= end or index >= len(self._from):
                return
            following = self._from[index + 1] if index + 1 < len(self._from) else end
            if index >= 0 and self._to[index]:
                yield self._to[index] + rva - self._from[index], min(following, end) - rva
            rva = following
            index += 1
