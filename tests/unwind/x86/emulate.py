# SPDX-License-Identifier: Apache-2.0
"""Runs a program one instruction at a time and keeps the truth about its stack: what each call put where.

The truth comes from watching calls and returns in an emulator; nothing here unwinds.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import unicorn
from unicorn import x86_const as uc

from tests.unwind.x86.machine import (
    BASE,
    DATA,
    EXPORTS,
    STACK_BASE,
    STACK_LIMIT,
    TEXT,
    TEXT_SIZE,
    export_page,
    header_page,
)
from tests.unwind.x86.program import Program
from throwstack.core.memory import PAGE_SIZE
from throwstack.core.registers import Registers

_GPR = (
    *(uc.UC_X86_REG_EAX, uc.UC_X86_REG_ECX, uc.UC_X86_REG_EDX, uc.UC_X86_REG_EBX),
    *(uc.UC_X86_REG_ESP, uc.UC_X86_REG_EBP, uc.UC_X86_REG_ESI, uc.UC_X86_REG_EDI),
)
_TEB = 0x7FFD0000
_GDT = 0x7FFC0000


@dataclass(frozen=True)
class Activation:
    """A call that has not returned: the slot of its return address, the address, and the caller's registers.

    `callee` is the function called, `popped` the bytes of arguments that it will remove.
    """

    slot: int
    return_address: int
    gpr: tuple[int, ...]
    callee: int
    popped: int


class Machine:
    """An emulated thread of a program; also the `PageSource` of its memory as it is."""

    def __init__(self, program: Program, exports: dict[str, int]) -> None:
        self.program = program
        self.emulator = emulator = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_32)
        self.static = {BASE: header_page(), EXPORTS: export_page(exports)}
        code = program.code.ljust(TEXT_SIZE, b"\xcc")
        for at in range(0, TEXT_SIZE, PAGE_SIZE):
            self.static[TEXT + at] = code[at : at + PAGE_SIZE]
        self.static[DATA] = program.data
        for at, page in self.static.items():
            emulator.mem_map(at, PAGE_SIZE)
            emulator.mem_write(at, page)
        emulator.mem_map(STACK_LIMIT, STACK_BASE - STACK_LIMIT)
        emulator.mem_map(_TEB, PAGE_SIZE)
        emulator.mem_map(_GDT, PAGE_SIZE)
        emulator.mem_write(_TEB, struct.pack("<I", 0xFFFFFFFF))
        self._set_segments()
        self.stack: list[Activation] = []
        self.sp = STACK_BASE - 0x20
        emulator.reg_write(uc.UC_X86_REG_ESP, self.sp)
        for register in (uc.UC_X86_REG_EBP, uc.UC_X86_REG_EBX, uc.UC_X86_REG_ESI, uc.UC_X86_REG_EDI):
            emulator.reg_write(register, 0)
        self.ip = program.labels["main"]

    def _set_segments(self) -> None:
        def descriptor(base: int, access: int) -> bytes:
            limit = 0xFFFFF
            return struct.pack(
                "<HHBBBB",
                *(limit & 0xFFFF, base & 0xFFFF, base >> 16 & 0xFF, access, 0xC0 | limit >> 16, base >> 24),
            )

        table = bytes(8) + descriptor(0, 0x9B) + descriptor(0, 0x93) + descriptor(_TEB, 0x93)
        self.emulator.mem_write(_GDT, table)
        self.emulator.reg_write(uc.UC_X86_REG_GDTR, (0, _GDT, len(table) - 1, 0))
        self.emulator.reg_write(uc.UC_X86_REG_CS, 8)
        for register in (uc.UC_X86_REG_DS, uc.UC_X86_REG_ES, uc.UC_X86_REG_SS):
            self.emulator.reg_write(register, 16)
        self.emulator.reg_write(uc.UC_X86_REG_FS, 24)

    def page(self, address: int) -> bytes | None:
        if STACK_LIMIT <= address < STACK_BASE:
            return bytes(self.emulator.mem_read(address, PAGE_SIZE))
        return self.static.get(address)

    def registers(self) -> Registers:
        return Registers(self.ip, self.gpr())

    def gpr(self) -> tuple[int, ...]:
        return tuple(self.emulator.reg_read(register) for register in _GPR)

    def run(self, limit: int) -> Iterator[Registers]:
        """Yield the registers before each instruction, up to `limit` of them or the end of the program."""
        for _ in range(limit):
            if self.ip == self.program.labels["done"]:
                return
            yield self.registers()
            self._step()

    def _step(self) -> None:
        code = bytes(self.emulator.mem_read(self.ip, 8))
        gpr = self.gpr()
        self.emulator.emu_start(self.ip, 0, count=1)
        ip = self.emulator.reg_read(uc.UC_X86_REG_EIP)
        if code[0] == 0xE8 or (code[0] == 0xFF and code[1] >> 3 & 7 == 2):
            slot = self.emulator.reg_read(uc.UC_X86_REG_ESP)
            return_address = struct.unpack("<I", self.emulator.mem_read(slot, 4))[0]
            self.stack.append(Activation(slot, return_address, gpr, ip, self.program.popped_at(self._behind(ip))))
        elif code[0] in {0xC2, 0xC3}:
            self._check(self.stack.pop(), ip)
        self.ip = ip

    def _check(self, left: Activation, ip: int) -> None:
        """Programs keep the calling convention: else they, not the unwinder, would be wrong."""
        if self.program.is_helper(left.callee):
            return
        gpr = self.gpr()
        assert ip == left.return_address
        assert gpr[4] == left.slot + 4 + left.popped
        assert [gpr[n] for n in (3, 5, 6, 7)] == [left.gpr[n] for n in (3, 5, 6, 7)], hex(left.callee)

    def _behind(self, ip: int) -> int:
        code = bytes(self.emulator.mem_read(ip, 5))
        return ip + 5 + struct.unpack("<i", code[1:])[0] if code[0] == 0xE9 else ip
