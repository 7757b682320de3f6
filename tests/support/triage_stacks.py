# SPDX-License-Identifier: Apache-2.0
"""Stacks for triage, laid out word by word: modules, functions, and a thread that waits in the filter."""

from __future__ import annotations

from collections.abc import Mapping

from tests.forge.stacks import Label, Stack
from tests.support.targets import make_target
from tests.support.x86_saved import put_context, put_record
from throwstack.core.frames import End, Frame, StackBounds, Trust, Walk
from throwstack.core.registers import Arch, Registers
from throwstack.images.modules import Module
from throwstack.stuck.triage import Triage
from throwstack.unwind.target import Target, ThreadStack

LIMIT, BASE = 0x045B8000, 0x045C0000
SP = LIMIT + 0x1000
KERNEL32 = Module("kernel32.dll", r"C:\WINDOWS\system32\kernel32.dll", 0x77E40000, 0x100000)
NTDLL = Module("ntdll.dll", r"C:\WINDOWS\system32\ntdll.dll", 0x7C800000, 0xC0000)
MSCOREE = Module("mscoree.dll", r"C:\WINDOWS\system32\mscoree.dll", 0x79000000, 0x46000)
SYMBOLS = {
    "kernel32.dll": {"UnhandledExceptionFilter": 0x3608D, "RaiseException": 0xBE94, "Sleep": 0x1000},
    "ntdll.dll": {"ZwWaitForSingleObject": 0x27CFB, "RtlRaiseException": 0x285FF},
    "mscoree.dll": {"CorExitProcess": 0x4F65},
}
FILTER = KERNEL32.base + 0x3608D
IN_FILTER = FILTER + 0x12A
IN_WAIT, IN_SLEEP, IN_EXIT = NTDLL.base + 0x27D07, KERNEL32.base + 0x1020, MSCOREE.base + 0x4FAB
FILTER_EBP = 0x045BA77C


Place = int | tuple[int, int]
"""Where a walk may start: ip, or ip and sp."""


class Walks:
    """An unwinder that knows one walk for each place it may start from."""

    def __init__(self, walks: Mapping[Place, Walk]) -> None:
        self.walks = walks

    def walk(self, registers: Registers, stack: StackBounds, *, trust: Trust = Trust.CONTEXT) -> Walk:
        known = self.walks.get((registers.ip, registers.sp), self.walks.get(registers.ip))
        return known or Walk((), End.NO_RETURN_ADDRESS)


def registers(ip: int, sp: int) -> Registers:
    return Registers.named(Arch.X86, {"eip": ip, "esp": sp})


def frame(ip: int, sp: int, child_ebp: int) -> Frame:
    return Frame(registers(ip, sp), child_ebp, 0, child_ebp + 4, Trust.FRAME_POINTER)


OUTERMOST = frame(IN_SLEEP, BASE - 0x40, BASE - 0x14)


def walk(*frames: Frame, end: End = End.THREAD_START) -> Walk:
    return Walk(frames, end)


WAITING = frame(IN_WAIT, SP, SP + 0x10)
IN_A_SLEEP = frame(IN_SLEEP, SP + 0x20, SP + 0x40)


def target_of(memory: Mapping[int, bytes], walks: Mapping[Place, Walk] | None = None) -> Target:
    made = make_target(Arch.X86, [KERNEL32, NTDLL, MSCOREE], memory, SYMBOLS, walk())
    return Target(made.arch, made.memory, made.images, made.symbols, Walks(walks or {}))


def stack_of(*, sp: int | None = SP, missing: str = "", exception_list: int | None = None) -> ThreadStack:
    bounds = StackBounds(LIMIT, BASE)
    return ThreadStack(bounds, None if sp is None else registers(IN_WAIT, sp), missing, exception_list)


def is_suspect(stack: Stack, **where: int | None) -> bool:
    return Triage(target_of({LIMIT: stack.data()})).look_at(stack_of(**where)).is_suspect


def crashed() -> tuple[Stack, Label]:
    """The thread of the reference case: UnhandledExceptionFilter with its argument, record and CONTEXT."""
    stack, pointers, record, saved = Stack(LIMIT, BASE), Label("pointers"), Label("record"), Label("context")
    stack.at(FILTER_EBP - 0x30).d32(IN_FILTER)
    stack.at(FILTER_EBP).d32(0x045BA7AC, 0x77E792A3, pointers)
    stack.at(0x045BA7A4).mark(pointers).d32(record, saved)
    put_context(stack, 0x045BA888, saved)
    put_record(stack, 0x045BAB68, record)
    return stack, saved


IN_THE_FILTER = frame(IN_FILTER, FILTER_EBP - 0x2C, FILTER_EBP)
