# SPDX-License-Identifier: Apache-2.0
"""Encodings of the x64 instructions that prologues and epilogues are made of (Intel SDM, volume 2)."""

from __future__ import annotations

from tests.forge.code import REGISTERS_64, dword


def move_immediate(name: str, value: int) -> bytes:
    """Return `xor r32,r32`, `mov r32,imm32` or `mov r64,imm64`."""
    number = REGISTERS_64.index(name)
    high, low = number >> 3, number & 7
    if value == 0:
        return (b"\x45" if high else b"") + bytes((0x33, 0xC0 | low * 9))
    if value < 1 << 32:
        return (b"\x41" if high else b"") + bytes((0xB8 | low,)) + dword(value)
    return bytes((0x48 | high, 0xB8 | low)) + value.to_bytes(8, "little")


def _stack_operand(number: int, offset: int) -> bytes:
    if -128 <= offset < 128:
        return bytes((0x44 | (number & 7) << 3, 0x24)) + offset.to_bytes(1, "little", signed=True)
    return bytes((0x84 | (number & 7) << 3, 0x24)) + offset.to_bytes(4, "little", signed=True)


def _with_stack(opcode: int, name: str, offset: int) -> bytes:
    number = REGISTERS_64.index(name)
    return bytes((0x48 | (number >> 3) << 2, opcode)) + _stack_operand(number, offset)


def move_to_stack(name: str, offset: int) -> bytes:
    return _with_stack(0x89, name, offset)


def move_from_stack(name: str, offset: int) -> bytes:
    return _with_stack(0x8B, name, offset)


def lea_from_stack(name: str, offset: int) -> bytes:
    return _with_stack(0x8D, name, offset)


def lea_stack_from(name: str, offset: int) -> bytes:
    """Return `lea rsp,[name+offset]`."""
    number = REGISTERS_64.index(name)
    return bytes((0x48 | number >> 3, 0x8D, 0xA0 | number & 7)) + offset.to_bytes(4, "little", signed=True)


def move_xmm(opcode: int, number: int, offset: int) -> bytes:
    """Return `movaps` between an xmm register and [rsp+offset]: 29 stores, 28 loads."""
    return (b"\x44" if number > 7 else b"") + bytes((0x0F, opcode)) + _stack_operand(number, offset)
