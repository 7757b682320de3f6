# SPDX-License-Identifier: Apache-2.0
"""Exception and context records as Windows writes them (winnt.h)."""

from __future__ import annotations

import struct

from tests.forge.code import REGISTERS_64

_ORDER_X86 = (
    *("gs", "fs", "es", "ds", "edi", "esi", "ebx", "edx"),
    *("ecx", "eax", "ebp", "eip", "cs", "eflags", "esp", "ss"),
)
_ORDER_X64 = (*REGISTERS_64, "rip")


def context_x86(registers: dict[str, int], flags: int) -> bytes:
    """Return an x86 CONTEXT (0x2CC bytes, winnt.h)."""
    data = bytearray(0x2CC)
    struct.pack_into("<I", data, 0, flags)
    struct.pack_into("<III", data, 0x1C, 0x027F, 0, 0xFFFF)  # the FPU as it starts
    struct.pack_into("<16I", data, 0x8C, *(registers[name] for name in _ORDER_X86))
    return bytes(data)


def cpu_area(registers: dict[str, int], flags: int, version: tuple[int, int, int]) -> bytes:
    """Return a WOW64_CPURESERVED {flags, machine} with its x86 CONTEXT, as the 64-bit Windows `version` writes it.

    Windows 7 leaves the machine 0; later systems write IMAGE_FILE_MACHINE_I386.
    """
    return struct.pack("<HH", 0, 0x14C if version >= (6, 2) else 0) + context_x86(registers, flags)


def context_x64(registers: dict[str, int], flags: int) -> bytes:
    """Return an x64 CONTEXT (0x4D0 bytes, winnt.h)."""
    data = bytearray(0x4D0)
    struct.pack_into("<II", data, 0x30, flags, 0x1F80)
    struct.pack_into("<6H", data, 0x38, 0x33, 0x2B, 0x2B, 0x53, 0x2B, 0x2B)
    struct.pack_into("<I", data, 0x44, registers.get("eflags", 0x246))
    struct.pack_into("<17Q", data, 0x78, *(registers.get(name, 0) for name in _ORDER_X64))
    struct.pack_into("<H", data, 0x100, 0x27F)
    struct.pack_into("<I", data, 0x118, 0x1F80)
    for number in range(6, 16):
        struct.pack_into("<Q", data, 0x1A0 + 16 * number, number)
    return bytes(data)


def record_x64(code: int, flags: int, address: int, parameters: tuple[int, ...]) -> bytes:
    """Return an x64 EXCEPTION_RECORD (0x98 bytes)."""
    return struct.pack(
        "<IIQQII15Q", code, flags, 0, address, len(parameters), 0, *parameters, *(0,) * (15 - len(parameters))
    )
