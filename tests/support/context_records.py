# SPDX-License-Identifier: Apache-2.0
"""CONTEXT records laid out member by member, as winnt.h declares them."""

from __future__ import annotations

import struct

from throwstack.core.registers import X64


def x86_context(flags: int = 0x10007, cs: int = 0x1B, ss: int = 0x23) -> bytes:
    """CONTEXT of winnt.h for x86: debug registers and floating point state come before the segments."""
    return b"".join(
        (
            struct.pack("<I", flags),
            bytes(6 * 4),
            bytes(112),
            struct.pack("<4I", 0, 0x3B, 0x23, 0x23),  # gs fs es ds
            struct.pack("<6I", 0xD1, 0x51, 0xB0, 0xD0, 0xC0, 0xA0),  # edi esi ebx edx ecx eax
            struct.pack("<6I", 0xEB, 0x77E4BEE7, cs, 0x206, 0x45BAB64, ss),  # ebp eip cs eflags esp ss
            bytes(512),
        )
    )


def x64_context(flags: int = 0x10005F, cs: int = 0x33, ss: int = 0x2B) -> bytes:
    """CONTEXT of winnt.h for AMD64, up to the floating point state."""
    head = b"".join(
        (
            bytes(6 * 8),  # P1Home to P6Home
            struct.pack("<2I", flags, 0x1F80),
            struct.pack("<6HI", cs, 0x2B, 0x2B, 0x53, 0x2B, ss, 0x246),  # cs ds es fs gs ss eflags
            bytes(6 * 8),  # debug registers
            struct.pack("<8Q", 0xA, 0xC, 0xD, 0xB, 0x7000, 0xBB, 0x51, 0xD1),  # rax rcx rdx rbx rsp rbp rsi rdi
            struct.pack("<8Q", *range(8, 16)),
            struct.pack("<Q", 0x7FF612345678),
        )
    )
    return head + bytes(X64.context_size - len(head))
