# SPDX-License-Identifier: Apache-2.0
"""Decodes the header of x86 GC info, which says what frame a managed method has.

The runtime keeps GC info for each managed method, JIT-compiled or precompiled. On x86, where there is no other unwind
data, its header says how large the method is, which registers the prologue saves, and whether ebp is a frame pointer.
The format is that of dotnet/coreclr 2.1 and 3.1 and dotnet/runtime, src/coreclr/inc/gcinfotypes.h (`InfoHdr`) and
gcdecoder.cpp: the method's size as a number, one of 128 frequent headers, and then bytes that change it.
"""

from __future__ import annotations

from dataclasses import dataclass

from throwstack.core.memory import Memory
from throwstack.names.frame_records import FrameData

_MAX_HEADER = 160
"""The most bytes of a header that are read: some 10 are usual, and each epilogue has one more."""
_MAX_METHOD = 1 << 24
_MAX_WORDS = 1 << 22
"""The most words of a frame, and of the arguments: sixty changes could make numbers of 250 bits."""
_MAX_CHANGES = 64
_MORE = 0x80

_FREQUENT = bytes.fromhex(
    """
    0001010000000000 0001090000000000 0001020000000000 0001030000000000 0003090001000000 0003090001000100
    0003090002000000 0003090002000100 0003090002000200 0003090003000000 0003090004000000 0003090004000100
    0100000000010001 0100000001010001 0102010000010001 0102210000000000 0102090000010000 0102490000000000
    0102290000000000 0102220000000000 0102230000000000 0104290001000000 0104290001000100 0104290002000000
    0104290002000200 0104220001000000 0203210000010001 0203610000000000 0203310000000000 0203310200000000
    0203290000010000 0203290000010001 0203690000000000 0203390000000000 0203320000000000 0203330000000000
    0205310001000000 0205310002000000 0205390001000000 0205390001000100 0205390002000000 0205390002000100
    0205390002000200 0206f90200010001 0207f11100000001 0207f91100010001 0304310000010000 0304710000000000
    0304390000010000 0304790000000000 0304320000010000 0304720000000000 0306710001000000 0306710002000000
    0306790001000000 0306790001000100 0306790002000000 0306790002000200 0306720001000000 0308f10200090201
    0405710000010000 0405f10000000000 0405790000010000 0405f90000000000 0405f20000000000 0407f10001000000
    0407f10002000000 0407f90001000000 0407f90001000100 0407f90002000000 0504790200000000 0506f10000010000
    0506390000020000 0506390000040000 0506f90000010000 0506f90000010001 0506f90001010001 0506f90002010000
    0508f90001010000 0600f00100000000 0600f00300000000 0604810100020001 0604890100020001 0606b10100010000
    0606b90100010000 0607790000020000 0704710200000000 0705a10100030001 0705a10100050001 0708f10000030001
    0708f90000020000 0708f90000020001 0708f20000030001 070af10002060101 070af90001020000 070af90001020101
    070af90002020000 070af90002030001 0803290000010100 0806b90100020000 0904390000010100 0907f90100020000
    0907f91100000001 0a05290000040100 0a05790000010100 0b06390000040100 0c05a90900010000 0d08f10200090001
    0d08f90000020100 0d0af10202060101 0e07f90300010001 1007f11100040001 1007f91100000001 1007f91100010001
    1007f91100030000 1007f91100040000 1007f91100040001 1007f91100050001 1007f91100060001 1007f21100040001
    1009f91101040101 1009f91102040101 1307f91300050001 1807f91100050001 2d09f90101000000 3307f101000d0001
    3307f90100010001 3307f901000b0000

    """
)
"""The 128 frequent headers, 8 bytes each:

    0 size of the prologue in bytes      4 arguments on the stack that the method removes, in words
    1 size of an epilogue in bytes       5 size of the frame without saved registers, in words
    2 bits 0-2: number of epilogues; 3: the epilogue is at the end; 4-7: edi, esi, ebx, ebp are saved
    3 bit 0: ebp is the frame pointer; 1: interruptible; 2: aligned to 8 bytes; 3: security; 4: has handlers;
      5: allocates on the stack; 6: edit and continue; 7: variable arguments
    6 variables that are not tracked     7: a table of variables follows
"""
_ARGUMENTS, _PROLOGUE, _EPILOGUE, _EPILOGUES, _UNTRACKED, _SAVED, _FLAGS = 0x08, 0x11, 0x22, 0x2D, 0x37, 0x3B, 0x3F
"""Where each kind of change begins; below the first, a byte is the frame's size. Registers and flags are flipped."""
_TABLE, _UNTRACKED_FOLLOWS, _VARARGS, _COOKIE, _SYNCHRONIZED = 0x46, 0x47, 0x48, 0x4A, 0x4B
_REVERSE_CALL, _RETURN_KIND, _APPENDED = 0x4E, 0x4F, 0x50
_FOLLOWS = -1

_SAVED_ORDER = ("ebp", "ebx", "esi", "edi")
"""The saved registers from the lowest address on: edi is pushed first. As a frame pointer, ebp is before all."""


@dataclass(frozen=True, slots=True)
class GcHeader:
    """The header of a method's GC info. Sizes are in bytes.

    `saved` are the registers that the prologue saves, in the order of their slots from the lowest address on; with a
    frame pointer, without ebp, from the slot nearest to it on: edi, esi, ebx. `frame_size` is without these slots, and
    `removed` what the method's `ret` removes besides the return address. `epilogues` are offsets from the method's
    start, each of `epilogue_size` bytes.
    """

    method_size: int
    prologue_size: int
    epilogue_size: int
    epilogues: tuple[int, ...]
    saved: tuple[str, ...]
    has_frame_pointer: bool
    is_aligned: bool
    frame_size: int
    removed: int

    def is_in_body(self, offset: int) -> bool:
        """Say whether the whole frame is there at `offset` from the method's start: not in prologue or epilogue."""
        if not self.prologue_size <= offset < self.method_size:
            return False
        return not any(start < offset < start + self.epilogue_size for start in self.epilogues)


def decode_gc_header(memory: Memory, address: int) -> GcHeader | None:
    """Decode the GC info at `address`; None if it is absent, or if no compiler writes such a header."""
    try:
        return _Decoder(memory.read_available(address, _MAX_HEADER)).header()
    except IndexError:
        return None


def frame_of(header: GcHeader, rva: int = 0) -> FrameData:
    """Return the frame in the body of a method at `rva` as a FrameData record: with a program that finds the caller.

    Arguments of an outer call may be on the stack already (`f(a, g())`). GC info has their size in a table that is not
    read here, so a frame without frame pointer is then looked for by other rules.
    """
    size = 4 * len(header.saved)
    if header.has_frame_pointer or header.is_aligned:
        program = "$T0 $ebp = $eip $T0 4 + ^ = $esp $T0 8 + = $ebp $T0 ^ ="
        slots = [] if header.is_aligned else [(name, -4 * at) for at, name in enumerate(header.saved, 1)]
    else:
        program = f"$T0 $esp {header.frame_size + size} + = $eip $T0 ^ = $esp $T0 4 + ="
        slots = [(name, 4 * at - size) for at, name in enumerate(header.saved)]
    for name, offset in slots:
        program += f" ${name} $T0 {offset} + ^ ="
    return FrameData(
        rva=rva,
        size=header.method_size,
        prologue_size=header.prologue_size,
        parameters_size=header.removed,
        saved_registers_size=size,
        locals_size=header.frame_size,
        program=program,
        uses_base_pointer=False,
        removed=header.removed,
    )


class _Decoder:
    """Decodes one header. An IndexError means that its bytes end too early."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._appended = 0

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _number(self) -> int:
        """Read an unsigned number: 7 bits a byte, the high ones first, bit 7 says that more follow."""
        byte = self._byte()
        value = byte & 0x7F
        for _ in range(4):
            if not byte & _MORE:
                break
            byte = self._byte()
            value = value << 7 | byte & 0x7F
        return value

    def header(self) -> GcHeader | None:
        size = self._number()
        byte = self._byte()
        first = _FREQUENT[8 * (byte & 0x7F) : 8 * (byte & 0x7F) + 8]
        self._prologue, self._epilogue = first[0], first[1]
        self._count, self._at_end, self._saved = first[2] & 7, first[2] >> 3 & 1, first[2] >> 4
        self._flags = first[3]
        self._arguments, self._frame, self._untracked, self._has_table = first[4:8]
        self._follow: set[int] = set()
        for _ in range(_MAX_CHANGES):
            if not byte & _MORE:
                break
            byte = self._byte()
            if not self._change(byte & 0x7F):
                return None
        return self._checked(size)

    def _change(self, code: int) -> bool:
        """Apply one byte that changes the header; False if there is no such change."""
        if code >= _APPENDED:
            self._append(code)
        elif code < _ARGUMENTS:
            self._frame = code
        elif code < _PROLOGUE:
            self._arguments = code - _ARGUMENTS
        elif code < _EPILOGUE:
            self._prologue = code - _PROLOGUE
        elif code < _EPILOGUES:
            self._epilogue = code - _EPILOGUE
        elif code < _UNTRACKED:
            self._count, self._at_end = (code - _EPILOGUES) >> 1, (code - _EPILOGUES) & 1
        elif code < _SAVED:
            self._untracked = code - _UNTRACKED
        elif code < _FLAGS:
            self._saved ^= 1 << (code - _SAVED)
        else:
            return self._flip(code)
        return True

    def _append(self, code: int) -> None:
        if code < 0x60:
            self._frame = self._frame << 4 | code & 0xF
        elif code < 0x70:
            self._arguments = self._arguments << 4 | code & 0xF
        elif code < 0x78:
            self._prologue = self._prologue << 3 | code & 7
        else:
            self._epilogue = self._epilogue << 3 | code & 7

    def _flip(self, code: int) -> bool:
        if code < _TABLE:
            self._flags ^= 1 << (code - _FLAGS)
        elif code == _TABLE:
            self._has_table ^= 1
        elif code == _UNTRACKED_FOLLOWS:
            self._untracked = _FOLLOWS
        elif code == _VARARGS:
            self._flags ^= 0x80
        elif code == _RETURN_KIND:
            self._byte()  # the kind of the return value
        else:
            self._follow ^= {code}
        return True

    def _checked(self, size: int) -> GcHeader | None:
        """Return the header, with the epilogues that follow it; None if it contradicts itself."""
        for present in (self._untracked == _FOLLOWS, self._has_table, _COOKIE in self._follow):
            if present:
                self._number()
        for _ in range(2 * (_SYNCHRONIZED in self._follow) + (_REVERSE_CALL in self._follow)):
            self._number()
        has_frame_pointer, is_aligned = bool(self._flags & 1), bool(self._flags & 4)
        is_wrong = (has_frame_pointer or is_aligned) and not self._saved & 8
        if not 0 < size < _MAX_METHOD or self._prologue + self._count * self._epilogue > size or is_wrong:
            return None
        if max(self._frame, self._arguments) > _MAX_WORDS:
            return None
        if (has_frame_pointer and is_aligned) or self._count > 4 or (self._at_end and self._count != 1):
            return None
        starts = [size - self._epilogue] if self._at_end else []
        for _ in range(0 if self._at_end else self._count):
            starts.append(self._number() + (starts[-1] if starts else 0))
        saved = tuple(name for bit, name in zip((8, 4, 2, 1), _SAVED_ORDER, strict=True) if self._saved & bit)
        if has_frame_pointer or is_aligned:
            saved = tuple(reversed(saved[1:]))
        removed = 0 if self._flags & 0x80 else 4 * self._arguments
        return GcHeader(
            size,
            self._prologue,
            self._epilogue,
            tuple(starts),
            saved,
            has_frame_pointer,
            is_aligned,
            4 * self._frame,
            removed,
        )
