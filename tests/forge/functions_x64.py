# SPDX-License-Identifier: Apache-2.0
"""Synthesises x64 functions together with their RUNTIME_FUNCTION and UNWIND_INFO.

The forms of prologue are those of Microsoft's compilers: registers saved in the caller's home space, pushes, a fixed
allocation (small, large, or probed with __chkstk), a frame register, saves by mov, xmm saves, and chained parts whose
code is elsewhere. Unwind codes follow the x64 exception handling documentation (versions 1 and 2).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from tests.forge.code import REGISTERS_64, CodeError, Emitter, dword, rel32
from tests.forge.code_x64 import (
    lea_from_stack,
    lea_stack_from,
    move_from_stack,
    move_immediate,
    move_to_stack,
    move_xmm,
)
from tests.forge.images import ImageBuilder

NONVOLATILE = ("rbx", "rbp", "rsi", "rdi", "r12", "r13", "r14", "r15")
PUSH_NONVOL, ALLOC_LARGE, ALLOC_SMALL, SET_FPREG, SAVE_NONVOL, EPILOG, SAVE_XMM128, PUSH_MACHFRAME = (
    *(0, 1, 2, 3, 4),
    *(6, 8, 10),
)
CHAININFO = 4


@dataclass(frozen=True)
class Frame:
    """How a function's frame is laid out. Offsets of `saves`, `xmm` and the frame register are from rsp after it."""

    pushes: tuple[str, ...] = ()
    allocation: int = 0
    homes: dict[str, int] = field(default_factory=dict)
    """Registers saved in the caller's home space: 8, 16, 24 or 32 above rsp at entry."""
    saves: dict[str, int] = field(default_factory=dict)
    xmm: dict[int, int] = field(default_factory=dict)
    frame_register: tuple[str, int] | None = None
    """Register and offset, 0 to 240 in steps of 16."""
    dynamic: int = 0
    """Bytes that the body allocates besides (alloca); needs a frame register."""

    @property
    def size(self) -> int:
        """Return the bytes from the return address's slot down to rsp after the prologue."""
        return 8 * len(self.pushes) + self.allocation


@dataclass(frozen=True)
class Call:
    """A call that ends at `returns_to`. `sets` loads nonvolatile registers before it (the values go into the code).

    `stack_args` are the words at [rsp+20h] and up. `code` replaces the generated instructions before the call. `via`:
    `direct`, a register, the address of a slot, or the call instruction's own bytes.
    """

    returns_to: int
    target: int = 0
    via: str | int | bytes = "direct"
    sets: dict[str, int] = field(default_factory=dict)
    stack_args: tuple[int, ...] = ()
    code: bytes = b""

    def emit(self, code: Emitter) -> None:
        """Append the call."""
        body = b"".join(move_immediate(name, value) for name, value in self.sets.items()) + self.code
        for index, value in enumerate(self.stack_args):
            # mov rax,value; mov [rsp+20h+8*i],rax
            body += move_immediate("rax", value) + b"\x48\x89\x44\x24" + bytes((0x20 + 8 * index,))
        if self.via == "direct":
            call = b"\xe8" + rel32(self.returns_to, self.target)
        elif isinstance(self.via, int):
            call = b"\xff\x15" + rel32(self.returns_to, self.via)
        elif isinstance(self.via, bytes):
            call = self.via
        else:
            call = b"\xff\xd0"
            body += move_immediate("rax", self.target)
        code.pad_to(self.returns_to - len(call) - len(body)).emit(body, call)


@dataclass(frozen=True)
class Function:
    """A function of an image. `cold` is (start, calls) of a part that is elsewhere, reached by a jump.

    `codes` with `code` give a function as it is, in hex: hand-written assembly. `version` 2 adds epilogue codes.
    """

    name: str
    start: int
    frame: Frame = field(default_factory=Frame)
    calls: tuple[Call, ...] = ()
    cold: tuple[int, tuple[Call, ...]] | None = None
    version: int = 1
    is_leaf: bool = False
    code: bytes = b""
    codes: bytes | None = None
    handler: tuple[int, tuple[int, ...]] | None = None
    """Exception handler and the words of its data, addresses all: they become RVAs."""

    def put(self, image: ImageBuilder, chkstk: int = 0, *, exported: bool = False) -> Function:
        """Put code, unwind data and name into `image`; return the function."""
        image.name_function(self.name, self.start, exported=exported)
        if self.codes is not None:
            code = Emitter(self.start).emit(self.code)
            image.unwind[self.start] = (code.here, self.codes)
            image.code(self.start, bytes(code.data))
            return self
        code = Emitter(self.start)
        codes = self._prologue(code, chkstk)
        prologue_size = code.here - self.start
        if self.frame.dynamic:
            code.emit(b"\x48\x81\xec", dword(self.frame.dynamic))  # alloca
        if self.is_leaf:
            code.emit(self.code)
        if self.cold is not None:
            self._put_cold(image, code)
        for call in self.calls:
            call.emit(code)
        tail = self._epilogue(code)
        image.code(self.start, bytes(code.data))
        if not self.is_leaf:
            epilogues = [(tail, EPILOG | 1 << 4), (0, EPILOG)] if self.version == 2 else []
            register = self.frame.frame_register
            number = REGISTERS_64.index(register[0]) | register[1] // 16 << 4 if register else 0
            info = unwind_info(self.version, prologue_size, number, codes, epilogues)
            if self.handler is not None:
                routine, words = self.handler
                # UNW_FLAG_EHANDLER | UNW_FLAG_UHANDLER
                info = bytes((info[0] | 3 << 3,)) + info[1:] + dword(routine - image.base)
                info += dword(len(words) // 4) + b"".join(dword(word - image.base) for word in words)
            image.unwind[self.start] = (code.here, info)
        return self

    def _put_cold(self, image: ImageBuilder, code: Emitter) -> None:
        assert self.cold is not None
        start, calls = self.cold
        code.jump(start)
        far = Emitter(start)
        for call in calls:
            call.emit(far)
        far.jump(code.here)
        image.code(start, bytes(far.data))
        # The parent is named by its start; the image builder fills in the rest of its RUNTIME_FUNCTION.
        info = struct.pack("<BBBB", 1 | CHAININFO << 3, 0, 0, 0) + struct.pack("<III", self.start - image.base, 0, 0)
        image.unwind[start] = (far.here, info)

    def _prologue(self, code: Emitter, chkstk: int) -> list[tuple[int, int, tuple[int, ...]]]:
        """Append the prologue; return its unwind codes in order: (end of instruction, op | info << 4, operands)."""
        frame = self.frame
        codes: list[tuple[int, int, tuple[int, ...]]] = []

        def note(op: int, info: int, *operands: int) -> None:
            codes.append((code.here - self.start, op | info << 4, operands))

        for name, offset in frame.homes.items():
            code.emit(move_to_stack(name, offset))
        for name in frame.pushes:
            number = REGISTERS_64.index(name)
            code.emit(b"\x41" if number > 7 else b"", bytes((0x50 | number & 7,)))
            note(PUSH_NONVOL, number)
        if frame.allocation:
            code.emit(*_allocation(code, frame.allocation, chkstk))
            note(*_allocation_code(frame.allocation))
        for name, offset in frame.homes.items():
            note(SAVE_NONVOL, REGISTERS_64.index(name), (frame.size + offset) // 8)
        if frame.frame_register is not None:
            code.emit(lea_from_stack(*frame.frame_register))
            note(SET_FPREG, 0)
        for name, offset in frame.saves.items():
            code.emit(move_to_stack(name, offset))
            note(SAVE_NONVOL, REGISTERS_64.index(name), offset // 8)
        for number, offset in frame.xmm.items():
            code.emit(move_xmm(0x29, number, offset))
            note(SAVE_XMM128, number, offset // 16)
        return codes

    def _epilogue(self, code: Emitter) -> int:
        """Append the epilogue; return the size of its last part, the pops and the return."""
        frame = self.frame
        if frame.frame_register is not None:
            name, offset = frame.frame_register
            code.emit(lea_stack_from(name, -offset))
        for number, offset in frame.xmm.items():
            code.emit(move_xmm(0x28, number, offset))
        for name, offset in frame.saves.items():
            code.emit(move_from_stack(name, offset))
        for name, offset in frame.homes.items():
            code.emit(move_from_stack(name, frame.size + offset))
        size = frame.allocation
        if size:
            code.emit(b"\x48\x83\xc4" + bytes((size,)) if size < 0x80 else b"\x48\x81\xc4" + dword(size))
        before = code.here
        for name in reversed(frame.pushes):
            number = REGISTERS_64.index(name)
            code.emit(b"\x41" if number > 7 else b"", bytes((0x58 | number & 7,)))
        code.emit("c3")
        return code.here - before


def _allocation(code: Emitter, size: int, chkstk: int) -> tuple[bytes, ...]:
    """Return `sub rsp,size`, from a page on `mov eax,size; call __chkstk; sub rsp,rax`."""
    if size >= 0x1000:
        return b"\xb8", dword(size), b"\xe8", rel32(code.here + 10, chkstk), b"\x48\x2b\xe0"
    return (b"\x48\x83\xec", bytes((size,))) if size < 0x80 else (b"\x48\x81\xec", dword(size))


def _allocation_code(size: int) -> tuple[int, ...]:
    """Return operation, info and operands of the unwind code of an allocation."""
    if size > 0x7FFF8:
        return ALLOC_LARGE, 1, size & 0xFFFF, size >> 16
    return (ALLOC_LARGE, 0, size // 8) if size > 0x80 else (ALLOC_SMALL, size // 8 - 1)


def unwind_info(
    version: int,
    prologue_size: int,
    frame: int,
    codes: list[tuple[int, int, tuple[int, ...]]],
    epilogues: list[tuple[int, int]] | None = None,
) -> bytes:
    """Return an UNWIND_INFO. `codes` are in order of execution; they are stored last first."""
    slots = b"".join(bytes(pair) for pair in epilogues or [])
    for end, operation, operands in reversed(codes):
        slots += bytes((end, operation)) + b"".join(struct.pack("<H", operand) for operand in operands)
    if prologue_size > 255 or len(slots) > 510:
        message = "a prologue that is too long for its unwind data"
        raise CodeError(message)
    count = len(slots) // 2
    return struct.pack("<BBBB", version, prologue_size, count, frame) + slots + bytes(2 * (count % 2))


CHKSTK = "4c8d5c2408c3"
"""A stack probe's place holder: lea r11,[rsp+8]; ret. The pages below are there in a dump."""


def add_chkstk(image: ImageBuilder) -> int:
    """Put __chkstk into `image`; return its address."""
    code = bytes.fromhex(CHKSTK)
    return image.name_function("__chkstk", image.code(image.place_code(len(code)), code))
