# SPDX-License-Identifier: Apache-2.0
"""Decodes UNWIND_INFO, which records what a function's prologue did to the stack and the nonvolatile registers.

Version 1 follows "x64 exception handling" in Microsoft's documentation. Version 2 adds UWOP_EPILOG, which is not
documented there; it is decoded in the form that LLVM writes and that Windows' own binaries have (see
`EpilogueRanges`). Version 3 is announced as experimental and is not decoded.

Codes 6 and 7 of version 1 once saved the lower half of an XMM register. Windows skips them with their operands: one and
two further slots. Version 2 has taken code 6 for UWOP_EPILOG, and code 7 (UWOP_SPARE_CODE) is skipped as in version 1.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from throwstack.core.memory import Memory
from throwstack.core.registers import SP
from throwstack.core.stop import Stop, corrupt
from throwstack.images.function_table import RuntimeFunction

CHAININFO = 4


class UnwindOp(IntEnum):
    """The operations of unwind codes (UNWIND_OP_CODES)."""

    PUSH_NONVOL = 0
    ALLOC_LARGE = 1
    ALLOC_SMALL = 2
    SET_FPREG = 3
    SAVE_NONVOL = 4
    SAVE_NONVOL_FAR = 5
    EPILOG = 6
    """Of version 2; in version 1, `SPARE`."""
    SPARE = 7
    SAVE_XMM128 = 8
    SAVE_XMM128_FAR = 9
    PUSH_MACHFRAME = 10


@dataclass(frozen=True, slots=True)
class UnwindCode:
    """One unwind code with its operands.

    `offset` is where the instruction that the code describes ends, in bytes from the function's start. `register` is
    the number of a general register or, for SAVE_XMM128, of an XMM register. `value` is in bytes; depending on `op` it
    is the size of an allocation, the displacement of a save from the frame's base, or the offset of SET_FPREG. For
    PUSH_MACHFRAME, `value` is 1 if the processor pushed an error code, else 0.
    """

    offset: int
    op: UnwindOp
    register: int = 0
    value: int = 0


@dataclass(frozen=True, slots=True)
class EpilogueRanges:
    """The epilogues of a function with version 2 unwind information.

    Each epilogue is `size` bytes long. `distances` has, for each, the bytes from its start to the function's end. In
    Microsoft's binaries an epilogue starts with its first pop (or the return); an `add rsp, constant` before that is
    not included. The first EPILOG code has the size; bit 0 of its operand says whether the function ends with an
    epilogue. Each further EPILOG code is a 12-bit distance, or 0 as padding to an even number of slots.
    """

    size: int
    distances: tuple[int, ...]

    def covers(self, distance: int) -> bool:
        """Say whether the instruction `distance` bytes before the function's end is in an epilogue."""
        return any(start - self.size < distance <= start for start in self.distances)


@dataclass(frozen=True, slots=True)
class UnwindInfo:
    """A decoded UNWIND_INFO.

    `frame_register` is the number of the frame register, 0 if there is none; `frame_offset` is its offset in bytes.
    `codes` are the unwind codes without EPILOG and SPARE, in the order in which an unwinder undoes them. `epilogues` is
    None for version 1, which does not record epilogues. `chained` is the entry whose prologue ran before the prologue
    of this one, None if this entry is not chained.
    """

    version: int
    flags: int
    prologue_size: int
    frame_register: int
    frame_offset: int
    codes: tuple[UnwindCode, ...]
    epilogues: EpilogueRanges | None = None
    chained: RuntimeFunction | None = None


def decode(memory: Memory, address: int) -> UnwindInfo | Stop:
    """Decode the UNWIND_INFO at `address`; a `Stop` if it is corrupt. Raises MemoryUnreadable."""
    head, prologue_size, count, frame = memory.read(address, 4)
    version, flags = head & 7, head >> 3
    if version not in (1, 2):
        return corrupt(f"unwind information of version {version} at {address:#x}")
    raw = memory.read(address + 4, 2 * count)
    codes = _decode_codes(raw, version, frame, address)
    if isinstance(codes, Stop):
        return codes
    chained = None
    if flags & CHAININFO:
        # The entry follows the codes, whose number is rounded up to an even one.
        chained = RuntimeFunction.read(memory, address + 4 + 2 * (count + count % 2))
        if not chained.is_plausible:
            return corrupt(f"chained entry that cannot be one in the unwind information at {address:#x}")
    plain = tuple(code for code in codes if code.op not in (UnwindOp.EPILOG, UnwindOp.SPARE))
    epilogues = _epilogues(codes) if version == 2 else None
    return UnwindInfo(version, flags, prologue_size, frame & 15, (frame >> 4) * 16, plain, epilogues, chained)


_OPERANDS = {
    UnwindOp.ALLOC_LARGE: 1,
    UnwindOp.SAVE_NONVOL: 1,
    UnwindOp.SAVE_NONVOL_FAR: 2,
    UnwindOp.SPARE: 2,
    UnwindOp.SAVE_XMM128: 1,
    UnwindOp.SAVE_XMM128_FAR: 2,
}
"""How many further slots a code has as its operand, if any. ALLOC_LARGE has a second form."""
_UNITS = {UnwindOp.ALLOC_LARGE: 8, UnwindOp.SAVE_NONVOL: 8, UnwindOp.SAVE_XMM128: 16}
"""What one of an operand means in bytes, if not a byte."""
_NAMES_GENERAL_REGISTER = (UnwindOp.PUSH_NONVOL, UnwindOp.SAVE_NONVOL, UnwindOp.SAVE_NONVOL_FAR)
_HAS_TWO_FORMS = (UnwindOp.ALLOC_LARGE, UnwindOp.PUSH_MACHFRAME)
_VALUES = frozenset(UnwindOp)


def _decode_codes(raw: bytes, version: int, frame: int, address: int) -> list[UnwindCode] | Stop:
    """Return the unwind codes in the 16-bit slots `raw` of the UNWIND_INFO at `address`; a `Stop` if one is not valid.

    `frame` is the header's byte with the frame register (low 4 bits) and its offset (high 4 bits).
    """

    def wrong(what: str) -> Stop:
        return corrupt(f"{what} in the unwind information at {address:#x}")

    codes: list[UnwindCode] = []
    slots = struct.unpack(f"<{len(raw) // 2}H", raw)
    index = 0
    while index < len(slots):
        offset, number, info = slots[index] & 0xFF, slots[index] >> 8 & 15, slots[index] >> 12
        if number not in _VALUES:
            return wrong(f"code {number}, which there is not")
        op = UnwindOp(number)
        extra, unit = _OPERANDS.get(op, 0), _UNITS.get(op, 1)
        if op is UnwindOp.EPILOG and version == 1:
            op, extra = UnwindOp.SPARE, 1
        if op in _HAS_TWO_FORMS and info > 1:
            return wrong(f"{op.name} of form {info}")
        if op is UnwindOp.ALLOC_LARGE and info:
            extra, unit = 2, 1
        operands = slots[index + 1 : index + 1 + extra]
        if len(operands) < extra:
            return wrong(f"{op.name} without its operand")
        value = sum(part << 16 * position for position, part in enumerate(operands)) * unit
        code = _code(UnwindCode(offset, op, info, value), frame)
        if code is None:
            return wrong(f"{op.name} on a register that cannot be")
        codes.append(code)
        index += 1 + extra
    return codes


def _code(raw: UnwindCode, frame: int) -> UnwindCode | None:
    """Return the unwind code that `raw` means; None if it names a register that its operation cannot have.

    `raw.register` is the 4-bit operand in the code's own slot, and `raw.value` the value of its further slots. `frame`
    is the header's byte with the frame register (low 4 bits) and its offset (high 4 bits).
    """
    offset, op, info = raw.offset, raw.op, raw.register
    if op in _NAMES_GENERAL_REGISTER:
        return raw if info != SP else None
    if op is UnwindOp.SET_FPREG:
        # The register and its offset are in the header; the operand is reserved.
        return UnwindCode(offset, op, frame & 15, (frame >> 4) * 16) if frame & 15 not in (0, SP) else None
    if op is UnwindOp.ALLOC_SMALL:
        return UnwindCode(offset, op, 0, info * 8 + 8)
    if op is UnwindOp.ALLOC_LARGE:
        return UnwindCode(offset, op, 0, raw.value)
    return raw if op in (UnwindOp.SAVE_XMM128, UnwindOp.SAVE_XMM128_FAR) else UnwindCode(offset, op, 0, info)


def _epilogues(codes: list[UnwindCode]) -> EpilogueRanges:
    """Return the epilogues of a version 2 function by its EPILOG codes. Without any such code there is no epilogue."""
    marks = [code for code in codes if code.op is UnwindOp.EPILOG]
    if not marks:
        return EpilogueRanges(0, ())
    size = marks[0].offset
    distances = [size] if marks[0].value & 1 else []
    distances += [mark.offset | mark.value << 8 for mark in marks[1:]]
    return EpilogueRanges(size, tuple(distance for distance in distances if distance))
