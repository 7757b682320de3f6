# SPDX-License-Identifier: Apache-2.0
"""Generated programs run in an emulator: unwinding at every instruction gives the callers' registers exactly.

What is expected comes from the run itself: at each call the registers are noted, and the return address that it
pushed. The unwinder sees the memory as it is at that instruction, and the registers.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unwind.x64.generated import NONVOLATILE, Program, Shape, build, shapes
from throwstack.core.frames import End, StackBounds, Trust
from throwstack.core.memory import Memory
from throwstack.core.registers import Registers
from throwstack.images.image import ImageMap
from throwstack.images.modules import Module, ModuleMap
from throwstack.unwind.x64 import Unwinder

unicorn = pytest.importorskip("unicorn")
from unicorn import x86_const  # noqa: E402 - only where there is an emulator

BASE = 0x7FF600000000
STACK = StackBounds(0x200000, 0xE00000)
_NAMES = ("RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI", *(f"R{number}" for number in range(8, 16)))
_GPR = [getattr(x86_const, f"UC_X86_REG_{name}") for name in _NAMES]
_START = {register: 0x1111111111111111 * (number + 1) for number, register in enumerate(NONVOLATILE)}
_MAX_STEPS = 4000


class LiveMemory(Memory):
    """The emulator's memory, never cached."""

    def __init__(self, emulator: unicorn.Uc) -> None:
        super().__init__(self)
        self._emulator = emulator

    def page(self, address: int) -> bytes | None:
        try:
            return bytes(self._emulator.mem_read(address, 0x1000))
        except unicorn.UcError:
            return None


class Run:
    """A program in the emulator, with the stack of callers as the run itself shows it."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.emulator = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        self.emulator.mem_map(BASE, len(program.image))
        self.emulator.mem_write(BASE, program.image)
        self.emulator.mem_map(STACK.limit, STACK.base - STACK.limit)
        self.sp = STACK.base - 0x28
        for register, value in _START.items():
            self.emulator.reg_write(_GPR[register], value)
        self.emulator.reg_write(_GPR[4], self.sp)
        self.callers: list[Registers] = []
        self.calling: Registers | None = None
        module = Module("made.exe", "", BASE, len(program.image))
        self.unwinder = Unwinder(ImageMap(LiveMemory(self.emulator), ModuleMap([module])))
        self.steps = 0
        self.failure: str | None = None

    def registers(self, ip: int) -> Registers:
        return Registers(ip, tuple(self.emulator.reg_read(number) for number in _GPR))

    def observe(self, emulator: unicorn.Uc, address: int, *_: object) -> None:
        now = self.registers(address)
        self.steps += 1
        if self.calling is not None:
            self.callers.append(self.calling)
            self.calling = None
        elif self.callers and address == self.callers[-1].ip and now.sp == self.callers[-1].sp:
            # Back from a call: the program itself must have kept what the callee has to keep.
            returned = self.callers.pop()
            if [now.gpr[r] for r in NONVOLATILE] != [returned.gpr[r] for r in NONVOLATILE]:
                self.failure = f"the program is wrong at {address:#x}"
        self.failure = self.failure or self.check(now)
        if self.failure is not None or self.steps > _MAX_STEPS:
            emulator.emu_stop()
        if address - BASE in self.program.calls:
            self.calling = Registers(BASE + self.program.calls[address - BASE], now.gpr)

    def check(self, now: Registers) -> str | None:
        walk = self.unwinder.walk(now, STACK)
        where = f"at {now.ip - BASE:#x}"
        if walk.end is not End.THREAD_START:
            return f"{where}: {walk.end} {walk.detail}"
        found = [(f.ip, f.sp, [f.registers.gpr[r] for r in NONVOLATILE]) for f in walk.frames]
        expected = [(r.ip, r.sp, [r.gpr[n] for n in NONVOLATILE]) for r in [now, *reversed(self.callers)]]
        if found != expected:
            return f"{where}: {found} but it was {expected}"
        trusts = {frame.trust for frame in walk.frames[1:]}
        return None if trusts <= {Trust.CFI} else f"{where}: {trusts}"

    def run(self) -> None:
        self.emulator.hook_add(unicorn.UC_HOOK_CODE, self.observe)
        self.emulator.emu_start(BASE + self.program.entry, 0)


@given(st.lists(shapes, min_size=1, max_size=4))
@settings(max_examples=120, deadline=None, derandomize=True)
def test_every_instruction_of_generated_functions(functions: list[Shape]) -> None:
    run = Run(build(functions, BASE))
    try:
        run.run()
    except unicorn.UcError as error:
        # main returns to address 0, where there is nothing.
        assert error.errno == unicorn.UC_ERR_FETCH_UNMAPPED  # noqa: PT017 - the emulator ends in no other way
    assert run.failure is None
    assert run.steps < _MAX_STEPS
    assert not run.callers
