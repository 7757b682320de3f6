# SPDX-License-Identifier: Apache-2.0
"""Stacks full of words that look right: return addresses, pointers into the stack, CONTEXT records."""

from __future__ import annotations

import random
import struct

from tests.support.context_records import x64_context, x86_context
from tests.support.targets import make_target
from throwstack.core.frames import Frame, StackBounds, Trust, Walk
from throwstack.core.registers import Arch, Registers
from throwstack.dispatch.search import MAX_NESTED, FoundExceptions
from throwstack.images.modules import Module
from throwstack.unwind.target import Target

LIMIT, BASE = 0x045B8000, 0x045BC000
NTDLL = Module("ntdll.dll", r"C:\WINDOWS\system32\ntdll.dll", 0x7C800000, 0xC0000)
KERNEL32 = Module("kernel32.dll", r"C:\WINDOWS\system32\kernel32.dll", 0x77E40000, 0x100000)
SYMBOLS = {
    "ntdll.dll": {
        "KiUserExceptionDispatcher": 0x1000,
        "RtlRaiseException": 0x2000,
        "RtlDispatchException": 0x3000,
        "__report_gsfailure": 0x4000,
        "GS_ExceptionRecord": 0x50000,
        "GS_ContextRecord": 0x50800,
        "RtlUnwindEx": 0x5000,
        "RtlRaiseStatus": 0x6000,
    },
    "kernel32.dll": {"UnhandledExceptionFilter": 0x1000, "RaiseFailFastException": 0x2000, "RaiseException": 0x3000},
}
RAISE_STATUS, FAIL_FAST = NTDLL.base + 0x6010, KERNEL32.base + 0x2010
CODE = [
    *(NTDLL.base + 0x1000 * page + 0x10 for page in range(1, 7)),
    *(KERNEL32.base + 0x1000 * page + 0x10 for page in range(1, 4)),
]


def target_of(arch: Arch, data: bytes, walk: Walk) -> Target:
    return make_target(arch, [NTDLL, KERNEL32], {LIMIT: data, NTDLL.base + 0x50000: data[:0x1000]}, SYMBOLS, walk)


def hostile(arch: Arch, seed: int) -> bytes:
    """A stack of plausible words, with CONTEXTs among them whose ip and sp are as plausible."""
    rng = random.Random(seed)
    size = arch.pointer_size
    words = (
        lambda: rng.randrange(LIMIT, BASE, 4),
        lambda: rng.randrange(LIMIT, BASE, 16),
        lambda: rng.choice(CODE),
        lambda: rng.choice((0xC0000005, 0xE06D7363, 0x10007, 0x10005F, 0, 15, 1 << 31)),
        lambda: rng.getrandbits(8 * size),
    )
    count = (BASE - LIMIT) // size
    data = bytearray(struct.pack(f"<{count}{'Q' if size == 8 else 'I'}", *(rng.choice(words)() for _ in range(count))))
    for _ in range(rng.randrange(6)):
        at = rng.randrange(0, BASE - LIMIT - 0x500, 16)
        context = bytearray(x64_context(0x10005F) if arch is Arch.X64 else x86_context(flags=0x10007))
        ip, sp = (0xF8, 0x98) if arch is Arch.X64 else (0xB8, 0xC4)
        context[ip : ip + size] = rng.choice(CODE).to_bytes(size, "little")
        context[sp : sp + size] = rng.randrange(LIMIT, BASE + 8, size).to_bytes(size, "little")
        data[at : at + len(context)] = context
    return bytes(data)


def frames(arch: Arch, seed: int) -> tuple[Frame, ...]:
    rng = random.Random(seed)
    found = []
    for sp in sorted(rng.sample(range(LIMIT, BASE, 16), rng.randrange(8))):
        names = arch.register_names
        values = {name: rng.choice((None, rng.randrange(LIMIT, BASE, 8))) for name in names}
        ip = rng.choice(CODE)
        gpr = tuple(sp if index == 4 else values[name] for index, name in enumerate(names))
        found.append(Frame(Registers(ip, gpr), sp + 8, rng.choice((*CODE, 0, None)), sp + 12, rng.choice(list(Trust))))
    return tuple(found)


def check(target: Target, found: FoundExceptions) -> None:
    stack = StackBounds(LIMIT, BASE)
    assert len(found.exceptions) <= MAX_NESTED
    sps = [item.context.registers.sp for item in found.exceptions]
    assert sps == sorted(set(sps))
    for item in found.exceptions:
        sp = item.context.registers.sp
        assert stack.contains(sp) or sp == BASE
        assert item.context.has_plausible_flags
        assert item.context.has_user_selectors
        assert item.record.code
        assert target.images.is_code(item.context.registers.ip) or item.record.address == item.context.registers.ip
        if stack.contains(item.context.address):
            captured_itself = item.context.arch is Arch.X64 and item.context.registers.ip in {RAISE_STATUS, FAIL_FAST}
            assert item.context.address < sp + (0x1000 if captured_itself else 0)
