# SPDX-License-Identifier: Apache-2.0
"""Generated programs: functions of every legal form of prologue and epilogue, as machine code with its unwind data.

A `Shape` describes one function. Each function of a program calls the next one, tail-calls it, or is the last.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum

from hypothesis import strategies as st

from tests.unwind.x64 import assembler as asm
from tests.unwind.x64.assembler import R12, R13, R14, R15, RAX, RBP, RBX, RDI, RSI, RSP, Assembler, ImageBuilder

NONVOLATILE = (RBX, RBP, RSI, RDI, R12, R13, R14, R15)
_HOME = 32
_XMM = (6, 7, 15)


class Ending(Enum):
    """How an epilogue ends. The jumps are tail calls to the next function."""

    RET = "ret"
    REP_RET = "rep ret"
    JUMP = "jmp"
    JUMP_THROUGH_SLOT = "jmp [slot]"
    JUMP_REGISTER = "rex.w jmp rax"


class Split(Enum):
    """The part of a function that is not in its main range."""

    NONE = "none"
    CHAINED = "chained part that saves more registers and jumps back"
    CHAINED_END = "chained part with an epilogue of its own"
    COLD = "cold part as GCC makes it: an entry of its own, its codes at offset 0"


@dataclass(frozen=True)
class Shape:
    """One function. Register numbers index `NONVOLATILE`; sizes are in bytes."""

    pushed: tuple[int, ...]
    homed: int
    moved: int
    xmm: int
    allocation: int
    is_far: bool
    has_frame_register: bool
    frame_offset: int
    probes: bool
    dynamic: int
    split: Split
    releases_by_lea: bool
    ending: Ending
    version: int
    has_switch: bool


shapes = st.builds(
    Shape,
    pushed=st.permutations(range(8)).flatmap(lambda order: st.integers(0, 5).map(lambda count: tuple(order[:count]))),
    homed=st.integers(0, 2),
    moved=st.integers(0, 2),
    xmm=st.integers(0, 3),
    allocation=st.sampled_from([0, 8, 0x28, 0x80, 0x88, 0x1000, 0x7FFF8, 0x80000, 0x90008]),
    is_far=st.booleans(),
    has_frame_register=st.booleans(),
    frame_offset=st.sampled_from([0, 0x10, 0x20, 0x80, 0xF0]),
    probes=st.booleans(),
    dynamic=st.sampled_from([0, 0x30, 0x2000]),
    split=st.sampled_from(Split),
    releases_by_lea=st.booleans(),
    ending=st.sampled_from(Ending),
    version=st.sampled_from([1, 1, 2]),
    has_switch=st.booleans(),
)


@dataclass
class Program:
    """The image, where it starts, and the return address of each call instruction by its address (RVAs)."""

    image: bytes
    entry: int
    calls: dict[int, int]


def build(functions: list[Shape], base: int) -> Program:
    """Assemble a `main` that calls the first function, and the functions after it."""
    code = Assembler()
    pending: list[tuple[_Function, _Written]] = []
    for number, shape in enumerate(functions):
        function = _Function(code, shape, number, is_last=number == len(functions) - 1)
        pending.append((function, function.write()))
    main = code.here
    code.sub_rsp(0x28)
    main_body = code.here
    code.call("f0")
    code.nop()
    code.add_rsp(0x28)
    code.ret()
    main_end = code.here
    code.align()
    code.label("leaf")
    code.mov(RAX, 0x1122334455667788)
    code.nop()
    code.ret()
    code.align()
    for number in range(len(functions)):
        code.label(f"slot{number}")
        code.emit(struct.pack("<Q", base + code.labels[f"f{number}"]))
    builder = ImageBuilder(code.assemble())
    builder.add(main, main_end, asm.unwind_info([asm.alloc(main_body - main, 0x28)], main_body - main))
    for function, written in pending:
        function.add_entries(builder, written)
    return Program(builder.build(), main, code.calls)


@dataclass
class _Written:
    """What a function's code came to: offsets are from `begin`, the rest are RVAs."""

    begin: int
    end: int
    prologue_size: int
    codes: list[bytes]
    epilogues: list[tuple[int, int]]
    part: tuple[int, int] | None = None
    part_prologue_size: int = 0
    part_codes: list[bytes] | None = None


class _Function:
    def __init__(self, code: Assembler, shape: Shape, number: int, *, is_last: bool) -> None:
        self.code = code
        self.shape = shape
        self.name = f"f{number}"
        self.next = None if is_last else f"f{number + 1}"
        self.next_slot = f"slot{number + 1}"
        self.pushed = [NONVOLATILE[index] for index in shape.pushed]
        rest = [register for register in NONVOLATILE if register not in self.pushed]
        self.homed, rest = rest[: shape.homed], rest[shape.homed :]
        self.moved, self.free = rest[: shape.moved], rest[shape.moved :]
        self.is_split = shape.split is not Split.NONE
        self.part_saved = self.free[:2] if shape.split in (Split.CHAINED, Split.CHAINED_END) else []
        self.frame_register = self.pushed[0] if shape.has_frame_register and self.pushed else None
        # From the bottom: the callee's home space, saved registers, XMM registers, locals.
        self.slots = {register: _HOME + 8 * index for index, register in enumerate([*self.moved, *self.part_saved])}
        xmm_start = _HOME + 8 * len(self.slots) + 15 & ~15
        self.xmm_slots = {register: xmm_start + 16 * index for index, register in enumerate(_XMM[: shape.xmm])}
        needed = xmm_start + 16 * shape.xmm
        self.allocation = max(shape.allocation, needed)
        if not self.moved and not self.part_saved and not shape.xmm and not shape.dynamic and shape.allocation == 0:
            self.allocation = 0  # nothing but pushes
        self.frame_offset = min(shape.frame_offset, self.allocation & ~15)
        self.dynamic = shape.dynamic if self.frame_register is not None else 0

    @property
    def has_frame(self) -> bool:
        return bool(self.pushed or self.allocation or self.homed)

    def write(self) -> _Written:
        code = self.code
        code.align()
        code.label(self.name)
        begin = code.here
        codes = self._prologue(begin)
        prologue_size = code.here - begin
        self._clobber([*self.pushed, *self.moved, *self.homed])
        if self.dynamic:
            code.mov_eax(self.dynamic)
            code.sub_rsp_rax()
        code.call("leaf")
        if self.next is not None and self.shape.ending in (Ending.RET, Ending.REP_RET):
            code.call(self.next)
        if self.shape.has_switch:
            # A jump within the function, as a switch does it.
            code.lea_label(RAX, f"{self.name}.case")
            code.jmp_rax(is_tail_call=False)
            code.emit(0xCC)
            code.label(f"{self.name}.case")
        if self.is_split:
            code.jmp(f"{self.name}.part")
            code.label(f"{self.name}.back")
        epilogues = [self._epilogue()]
        written = _Written(begin, code.here, prologue_size, codes, epilogues)
        code.align()
        if self.is_split:
            self._write_part(written)
        return written

    def _prologue(self, begin: int) -> list[bytes]:
        """Write the prologue; return its codes in the order in which they are undone."""
        code, shape = self.code, self.shape
        codes: list[bytes] = []
        above = 8 * len(self.pushed) + self.allocation + 8
        for index, register in enumerate(self.homed):
            code.store(RSP, 8 + 8 * index, register)
        for register in self.pushed:
            code.push(register)
            codes.insert(0, asm.push_nonvol(code.here - begin, register))
        if self.allocation:
            if shape.probes:
                code.mov_eax(self.allocation)
                code.call("leaf")
                code.mov_eax(self.allocation)
                code.sub_rsp_rax()
            else:
                code.sub_rsp(self.allocation)
            codes.insert(0, asm.alloc(code.here - begin, self.allocation))
        if self.frame_register is not None:
            code.lea(self.frame_register, RSP, self.frame_offset)
            codes.insert(0, asm.set_fpreg(code.here - begin))
        for register in self.moved:
            code.store(RSP, self.slots[register], register)
            codes.insert(0, asm.save_nonvol(code.here - begin, register, self.slots[register], far=shape.is_far))
        for register, slot in self.xmm_slots.items():
            code.store_xmm(RSP, slot, register)
            codes.insert(0, asm.save_xmm128(code.here - begin, register, slot, far=shape.is_far))
        # A register in home space was stored first but is only said to be once rsp is where offsets count from.
        for index, register in enumerate(self.homed):
            codes.insert(0, asm.save_nonvol(code.here - begin, register, above + 8 * index))
        return codes

    def _clobber(self, registers: list[int]) -> None:
        for register in registers:
            if register != self.frame_register:
                self.code.mov(register, 0xDEAD0000 + register)

    def _base(self) -> tuple[int, int]:
        """Return a register, and the offset from it of the frame's base, that holds in the body."""
        return (self.frame_register, -self.frame_offset) if self.frame_register is not None else (RSP, 0)

    def _epilogue(self) -> tuple[int, int]:
        """Write an epilogue; return the RVA of its first pop and its size from there."""
        code, ending = self.code, self.shape.ending
        base, offset = self._base()
        above = 8 * len(self.pushed) + self.allocation + 8
        for register in self.moved:
            code.load(register, base, offset + self.slots[register])
        for index, register in enumerate(self.homed):
            code.load(register, base, offset + above + 8 * index)
        if ending is Ending.JUMP_REGISTER and self.next is not None:
            code.lea_label(RAX, self.next)
        if self.frame_register is not None and (self.dynamic or self.shape.releases_by_lea):
            code.lea(RSP, base, offset + self.allocation)
        elif self.allocation:
            code.add_rsp(self.allocation)
        start = code.here
        for register in reversed(self.pushed):
            code.pop(register)
        self._end()
        return start, code.here - start

    def _end(self) -> None:
        code, ending = self.code, self.shape.ending
        if self.next is None or ending is Ending.RET:
            code.ret()
        elif ending is Ending.REP_RET:
            code.rep_ret()
        elif ending is Ending.JUMP:
            code.jmp(self.next)
        elif ending is Ending.JUMP_THROUGH_SLOT:
            code.jmp_slot(self.next_slot)
        else:
            # With the epilogue's place on record, the prefix is not needed (ntdll has such a function).
            code.jmp_rax(is_tail_call=self.shape.version == 1)

    def _write_part(self, written: _Written) -> None:
        code, shape = self.code, self.shape
        code.label(f"{self.name}.part")
        begin = code.here
        codes: list[bytes] = []
        base, offset = self._base()
        for register in self.part_saved:
            code.store(base, offset + self.slots[register], register)
            codes.insert(0, asm.save_nonvol(code.here - begin, register, self.slots[register], far=shape.is_far))
        written.part_prologue_size = code.here - begin
        self._clobber(self.part_saved)
        code.call("leaf")
        for register in self.part_saved:
            code.load(register, base, offset + self.slots[register])
        if shape.split is Split.CHAINED_END:
            self._epilogue()
        else:
            code.jmp(f"{self.name}.back")
        written.part = (begin, code.here)
        written.part_codes = codes
        code.align()

    def add_entries(self, builder: ImageBuilder, written: _Written) -> None:
        frame = {"frame_register": self.frame_register or 0, "frame_offset": self.frame_offset}
        if self.frame_register is None:
            frame = {}
        marks = []
        if self.shape.version == 2:
            (start, size), *_ = written.epilogues
            marks = [asm.epilog(size, [], is_at_end=start + size == written.end)]
        info = asm.unwind_info([*marks, *written.codes], written.prologue_size, version=self.shape.version, **frame)
        primary = builder.add(written.begin, written.end, info)
        if written.part is None:
            return
        if self.shape.split is Split.COLD:
            codes = [bytes([0]) + code[1:] for code in written.codes]
            builder.add(*written.part, asm.unwind_info(codes, 0, **frame))
        else:
            codes = written.part_codes or []
            builder.add(*written.part, asm.unwind_info(codes, written.part_prologue_size, chained=primary, **frame))
