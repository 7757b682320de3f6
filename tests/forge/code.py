# SPDX-License-Identifier: Apache-2.0
"""Writes machine code at given addresses: an emitter, and the encodings that x86 and x64 functions share.

Encodings follow the Intel SDM, volume 2. There is no assembler here, only what forged functions are made of.
"""

from __future__ import annotations

from collections.abc import Mapping

REGISTERS_32 = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
REGISTERS_64 = (
    *("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"),
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
)

# Fillers of one to five bytes that change nothing that matters: nop, mov edi,edi, lea ecx,[ecx+0] and so on.
_FILLERS = {1: "90", 2: "8bff", 3: "8d4900", 4: "8d642400", 5: "0f1f440000"}


class CodeError(Exception):
    """The code does not fit where the description wants it."""


class Emitter:
    """Collects code from `address` on."""

    def __init__(self, address: int) -> None:
        """Start empty."""
        self.address = address
        self.data = bytearray()

    @property
    def here(self) -> int:
        """Return the address of the next byte."""
        return self.address + len(self.data)

    def emit(self, *parts: bytes | str) -> Emitter:
        """Append bytes, or hex digits."""
        for part in parts:
            self.data += bytes.fromhex(part) if isinstance(part, str) else part
        return self

    def call(self, target: int) -> Emitter:
        """Append `call rel32`."""
        return self.emit(b"\xe8", rel32(self.here + 5, target))

    def jump(self, target: int) -> Emitter:
        """Append `jmp rel32`."""
        return self.emit(b"\xe9", rel32(self.here + 5, target))

    def pad_to(self, address: int) -> Emitter:
        """Fill up to `address` with instructions that do nothing."""
        room = address - self.here
        if room < 0:
            message = f"code at {self.address:#x} is {-room} bytes too long to reach {address:#x}"
            raise CodeError(message)
        while room:
            size = min(room, 5)
            self.emit(_FILLERS[size])
            room -= size
        return self


def rel32(end: int, target: int) -> bytes:
    """Return the displacement from the instruction's end; -+2 GB."""
    return (target - end).to_bytes(4, "little", signed=True)


def dword(value: int) -> bytes:
    """Return a 32-bit immediate or address."""
    return (value & 0xFFFFFFFF).to_bytes(4, "little")


def push_value(value: int) -> bytes:
    """Return `push imm8` where the sign extension allows it, otherwise `push imm32`."""
    signed = value - (1 << 32) if value & 0x80000000 else value
    return b"\x6a" + signed.to_bytes(1, "little", signed=True) if -128 <= signed < 128 else b"\x68" + dword(value)


def set_register_32(register: str, value: int) -> bytes:
    """Return `xor r,r` or `mov r,imm32`."""
    number = REGISTERS_32.index(register)
    return bytes((0x33, 0xC0 | number * 9)) if value == 0 else bytes((0xB8 | number,)) + dword(value)


def merge(base: int, pieces: Mapping[int, bytes], *, what: str) -> dict[int, bytes]:
    """Check that pieces of code or data do not overlap; return them by offset from `base`."""
    result: dict[int, bytes] = {}
    end = base
    for address in sorted(pieces):
        if address < end:
            message = f"{what}: {address:#x} overlaps what ends at {end:#x}"
            raise CodeError(message)
        result[address - base] = pieces[address]
        end = address + len(pieces[address])
    return result
