# SPDX-License-Identifier: Apache-2.0
"""A small x86 assembler: bytes with labels, enough to write the functions of these tests down.

Encodings follow the Intel SDM, volume 2.
"""

from __future__ import annotations

import struct

EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI = range(8)


def push(register: int) -> bytes:
    return bytes([0x50 + register])


def pop(register: int) -> bytes:
    return bytes([0x58 + register])


def push_value(value: int) -> bytes:
    return bytes([0x6A, value]) if value < 0x80 else b"\x68" + struct.pack("<I", value & 0xFFFFFFFF)


def mov(to: int, source: int) -> bytes:
    return bytes([0x8B, 0xC0 | to << 3 | source])


def mov_value(register: int, value: int) -> bytes:
    return bytes([0xB8 + register]) + struct.pack("<I", value & 0xFFFFFFFF)


def _memory(field: int, base: int, displacement: int) -> bytes:
    sib = b"\x24" if base == ESP else b""
    return bytes([0x80 | field << 3 | base]) + sib + struct.pack("<i", displacement)


def load(register: int, base: int, displacement: int) -> bytes:
    """`mov register, [base+displacement]`."""
    return b"\x8b" + _memory(register, base, displacement)


def store(base: int, displacement: int, register: int) -> bytes:
    """`mov [base+displacement], register`."""
    return b"\x89" + _memory(register, base, displacement)


def lea(register: int, base: int, displacement: int) -> bytes:
    return b"\x8d" + _memory(register, base, displacement)


def _arithmetic(field: int, register: int, value: int) -> bytes:
    if -0x80 <= value < 0x80:
        return bytes([0x83, 0xC0 | field << 3 | register, value & 0xFF])
    return bytes([0x81, 0xC0 | field << 3 | register]) + struct.pack("<I", value & 0xFFFFFFFF)


def add(register: int, value: int) -> bytes:
    return _arithmetic(0, register, value)


def sub(register: int, value: int) -> bytes:
    return _arithmetic(5, register, value)


def and_(register: int, value: int) -> bytes:
    return _arithmetic(4, register, value)


def ret(popped: int = 0) -> bytes:
    return b"\xc2" + struct.pack("<H", popped) if popped else b"\xc3"


LEAVE = b"\xc9"
JE, JNE, JB, JL = 0x84, 0x85, 0x82, 0x8C


class Assembler:
    """Collects code from `origin` on; labels may be used before they are set."""

    def __init__(self, origin: int) -> None:
        self.origin = origin
        self.code = bytearray()
        self.labels: dict[str, int] = {}
        self._fixups: list[tuple[int, str, bool]] = []

    @property
    def here(self) -> int:
        return self.origin + len(self.code)

    def emit(self, *parts: bytes | str) -> Assembler:
        """Append bytes, or hex digits."""
        for part in parts:
            self.code += bytes.fromhex(part) if isinstance(part, str) else part
        return self

    def label(self, name: str) -> Assembler:
        assert name not in self.labels
        self.labels[name] = self.here
        return self

    def align(self, to: int = 16, filler: bytes = b"\xcc") -> Assembler:
        while self.here % to:
            self.code += filler
        return self

    def absolute(self, opcode: bytes | str, name: str) -> Assembler:
        """Append an opcode and the address of a label."""
        self.emit(opcode)
        self._fixups.append((len(self.code), name, False))
        return self.emit(bytes(4))

    def _relative(self, opcode: bytes, name: str) -> Assembler:
        self.emit(opcode)
        self._fixups.append((len(self.code), name, True))
        return self.emit(bytes(4))

    def call(self, name: str) -> Assembler:
        return self._relative(b"\xe8", name)

    def jump(self, name: str) -> Assembler:
        return self._relative(b"\xe9", name)

    def branch(self, condition: int, name: str) -> Assembler:
        return self._relative(bytes([0x0F, condition]), name)

    def finish(self) -> bytes:
        code = bytearray(self.code)
        for at, name, is_relative in self._fixups:
            target = self.labels[name] - (self.origin + at + 4 if is_relative else 0)
            struct.pack_into("<I", code, at, target & 0xFFFFFFFF)
        return bytes(code)
