# SPDX-License-Identifier: Apache-2.0
"""Writes EXCEPTION_RECORDs and CONTEXTs onto x64 stacks, and makes the frames of walks over them."""

from __future__ import annotations

import struct

from tests.forge.stacks import Stack
from tests.support.context_records import x64_context
from throwstack.core.frames import Frame, Trust
from throwstack.core.registers import Arch, Registers


def put_context(
    stack: Stack, address: int, *, rip: int, rsp: int, flags: int = 0x10005F, cs: int = 0x33, eflags: int = 0x246
) -> None:
    """Write a CONTEXT; the members that are not given are those of `x64_context`."""
    data = bytearray(x64_context(flags, cs))
    struct.pack_into("<I", data, 0x44, eflags)
    struct.pack_into("<Q", data, 0x98, rsp)
    struct.pack_into("<Q", data, 0xF8, rip)
    stack.at(address).raw(bytes(data))


def put_record(
    stack: Stack,
    address: int,
    *,
    code: int = 0xC0000005,
    ip: int,
    flags: int = 0,
    nested: int = 0,
    parameters: tuple[int, ...] = (),
) -> None:
    """Write an EXCEPTION_RECORD that names the instruction `ip`."""
    stack.at(address).d32(code, flags).d64(nested, ip).d32(len(parameters), 0).d64(*parameters)


def frame(
    ip: int, sp: int, return_address: int = 0, return_slot: int | None = None, trust: Trust = Trust.CFI, **gpr: int
) -> Frame:
    """Return a frame of x64; the registers that are not given are unknown."""
    registers = Registers.named(Arch.X64, {"rip": ip, "rsp": sp, **gpr})
    return Frame(registers, sp, return_address, return_slot, trust)
