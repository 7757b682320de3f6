# SPDX-License-Identifier: Apache-2.0
"""JIT-compiled methods in the memory of a forged .NET process, and walks over frames that a test lays down."""

from __future__ import annotations

import struct

from tests.support.managed_heap import ForgedRuntime
from throwstack.core.frames import End, Frame, Trust, Walk
from throwstack.core.registers import Arch, Registers
from throwstack.managed.process_code import ManagedCode

CODE, HEADER = 0x78000000, 0x79000000
_PUSH_RBX = bytes.fromhex("01 01 01 00 01 30 00 00")
"""UNWIND_INFO of `push rbx`."""
_SIZE = 0x80


def compile_method(process: ForgedRuntime, method_desc: int, number: int = 0) -> int:
    """Lay out the code of a method on x64 and return its start. Methods with other numbers are elsewhere."""
    start, header = CODE + 0x1000 * number + 0x20, HEADER + 0x100 * number
    process.place(start - 8, struct.pack("<Q", header) + b"\x53" + b"\x90" * (_SIZE - 1) + _PUSH_RBX)
    rva = start - CODE
    process.place(header, struct.pack("<QQQQIIII", 0, 0, header, method_desc, 1, rva, rva + _SIZE, rva + _SIZE))
    return start


def managed_code(process: ForgedRuntime) -> ManagedCode:
    """Return the managed code of the process as it is now."""
    return ManagedCode(process.memory, process.images, None, lambda: process.threads)


def walk_of(*frames: tuple[int, int]) -> Walk:
    """Return a whole walk with frames (ip, sp), innermost first; the first was interrupted."""
    made = [
        Frame(
            Registers.named(Arch.X64, {"rip": ip, "rsp": sp}),
            sp,
            None,
            None,
            Trust.CFI if index else Trust.CONTEXT,
            is_interrupted=not index,
        )
        for index, (ip, sp) in enumerate(frames)
    ]
    return Walk(tuple(made), End.THREAD_START)
