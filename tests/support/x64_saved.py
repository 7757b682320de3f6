# SPDX-License-Identifier: Apache-2.0
"""Writes EXCEPTION_RECORDs and CONTEXTs onto x64 stacks, makes the frames of walks over them, and searches these."""

from __future__ import annotations

import struct

from tests.forge.stacks import Stack
from tests.support.context_records import x64_context
from tests.support.targets import make_target
from throwstack.core.frames import End, Frame, StackBounds, Trust, Walk
from throwstack.core.registers import Arch, Registers
from throwstack.dispatch.saved_exception import SavedException
from throwstack.dispatch.search import SearchStart, exceptions_in_flight
from throwstack.images.modules import Module

LIMIT, BASE = 0x1F_FFF0_0000, 0x1F_FFF1_0000
NTDLL = Module("ntdll.dll", r"C:\Windows\System32\ntdll.dll", 0x7FFA_1000_0000, 0x20_0000)
APP = Module("app.exe", r"C:\app.exe", 0x7FF6_0000_0000, 0x10000)
SYMBOLS = {"ntdll.dll": {"KiUserExceptionDispatch": 0xA0F90, "RtlRaiseException": 0x4000, "ZwX": 0xB0000}}
FAULT = APP.base + 0x1234


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


def of_ntdll(rva: int, sp: int, return_address: int = 0) -> Frame:
    return frame(NTDLL.base + rva, sp, return_address, sp + 0x100)


def search(stack: Stack, *frames: Frame, low: int = LIMIT) -> tuple[SavedException, ...]:
    target = make_target(Arch.X64, [NTDLL, APP], {LIMIT: stack.data()}, SYMBOLS, Walk(frames, End.THREAD_START))
    return exceptions_in_flight(target, StackBounds(LIMIT, BASE), SearchStart(frames, low)).exceptions
