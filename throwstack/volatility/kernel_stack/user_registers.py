# SPDX-License-Identifier: Apache-2.0
"""Finds user-mode registers that no trap frame holds, by unwinding the kernel stack.

On x64 the trap frame of a system call does not hold r12 to r15; the trap frame of a fault or an interrupt does not hold
rbx, rsi and rdi either. The kernel's functions save these registers on the kernel stack, as any function saves its
caller's nonvolatile registers. So they are recovered by unwinding the kernel stack, from where the thread was switched
out to the trap frame.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import cached_property
from itertools import islice

from volatility3.framework import interfaces
from volatility3.plugins.windows import modules

from throwstack.core.frames import StackBounds
from throwstack.core.registers import X64, Registers
from throwstack.images.image import ImageMap
from throwstack.images.modules import Module, ModuleMap
from throwstack.unwind import x64
from throwstack.unwind.walk import Step
from throwstack.volatility.memory.guarded import guarded_objects
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.objects.switch_frame import read_switch_frame
from throwstack.volatility.objects.threads import Thread
from throwstack.volatility.objects.trap_frame import TrapFrame

log = logging.getLogger(__name__)

_MAX_MODULES = 2048
_MAX_KERNEL_STACK = 1 << 20


class KernelStacks:
    """Reads the kernel's images, and the user-mode registers that are saved on its stacks."""

    def __init__(self, machine: Machine) -> None:
        """Keep `machine`, the kernel of which is meant; the kernel's module list is read on first use."""
        self._machine = machine

    @cached_property
    def images(self) -> ImageMap:
        """Return the images of the kernel and its drivers."""
        return ImageMap(self._machine.memory, ModuleMap(self._modules()), self._machine.images)

    @cached_property
    def _unwinder(self) -> x64.Unwinder:
        return self.unwinder_of(self.images)

    def unwinder_of(self, images: ImageMap) -> x64.Unwinder:
        """Return an unwinder for x64 kernel code.

        `images` are the kernel's images as the processes of a session see them.
        """
        machine = self._machine
        inverted = x64.InvertedTable(machine.memory, lambda: machine.symbol("PsInvertedFunctionTable"))
        return x64.Unwinder(images, inverted=inverted)

    def _modules(self) -> list[Module]:
        found: list[Module] = []
        machine = self._machine
        breaks_off = guarded_objects(lambda reason: log.info("the kernel's module list breaks off: %s", reason))
        of_one = guarded_objects(lambda reason: log.info("what the kernel says of a module is lost: %s", reason))

        def name(item: interfaces.objects.ObjectInterface, member: str) -> str:
            with of_one:
                return str(getattr(item, member).get_string())
            return ""

        with breaks_off:
            listed = modules.Modules.list_modules(machine.context, machine.kernel_name)
            for item in breaks_off.each(islice(listed, _MAX_MODULES)):
                with of_one:
                    base, size = machine.canonical(int(item.DllBase)), int(item.SizeOfImage)
                    path = name(item, "FullDllName")
                    file_name = name(item, "BaseDllName") or path.rpartition("\\")[2] or f"image{base:x}"
                    found.append(Module(file_name, path, base, size))
        return found

    def user_registers(self, thread: Thread, frame: TrapFrame) -> Registers:
        """Return the registers of `frame`, with missing nonvolatile registers taken from the kernel stack, if possible.

        `frame` is the trap frame of `thread`. A register that it lacks remains unknown if unwinding the kernel stack
        does not arrive at this trap frame, or if the thread was running: the kernel stack of a running thread has
        changed since the thread was last switched out.
        """
        registers = frame.registers
        if not self._machine.is_64bit or not thread.kernel_stack or thread.is_running:
            return registers
        found = self._walk_to(thread, frame)
        if found is None or found.ip != registers.ip or found.sp != registers.sp:
            return registers
        gpr = list(registers.gpr)
        for index in X64.nonvolatile:
            if gpr[index] is None:
                gpr[index] = found.gpr[index]
        return replace(registers, gpr=tuple(gpr))

    def _walk_to(self, thread: Thread, frame: TrapFrame) -> Registers | None:
        pointer = thread.kernel_stack
        if not pointer < frame.address < pointer + _MAX_KERNEL_STACK:
            return None
        start = read_switch_frame(self._machine, pointer)
        if start is None:
            return None
        bounds = StackBounds(pointer & -0x1000, thread.initial_stack)
        step = self._unwinder.step_beyond(start.registers, bounds, frame.address)
        return step.registers if isinstance(step, Step) and step.is_interrupted else None
