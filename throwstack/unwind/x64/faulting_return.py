# SPDX-License-Identifier: Apache-2.0
"""Recognizes the return address that .NET's runtime pushes for managed code that has faulted.

When an instruction of managed code faults (a null reference, a division by zero), the runtime's vectored handler of
.NET Core 2.1 and 3.1 makes the thread go on in NakedThrowHelper, as if the instruction had called it: the address of
the instruction is pushed as return address. No call is before it, and it is not the one after the instruction. So the
frame there is one that was interrupted. On 3.1 NakedThrowHelper has no unwind data itself; it has only called another
function, so that the pushed address is on top of its stack.
"""

from __future__ import annotations

from dataclasses import replace

from throwstack.core.frames import StackBounds
from throwstack.core.registers import Registers
from throwstack.images.image import ImageMap
from throwstack.unwind.code_outside import CodeOutside
from throwstack.unwind.walk import Step
from throwstack.unwind.x64.apply_plan import apply_plan
from throwstack.unwind.x64.unwind_plan import LEAF

NOTE = "its instruction faulted, and the runtime went on as if it had made a call"


def as_faulted(step: Step, callee_ip: int, images: ImageMap, outside: CodeOutside) -> Step | None:
    """Return the caller `step` as a frame whose instruction has faulted, or None if it cannot be one.

    The called code, at `callee_ip`, is in an image, and a source knows the function of the caller with its unwind data.
    """
    ip = step.registers.ip
    if images.find(callee_ip) is None or images.find(ip) is not None:
        return None
    known = outside.function(ip)
    if known is None or known.entry is None:
        return None
    return replace(step, is_interrupted=True, note=NOTE)


def faulted_caller(registers: Registers, stack: StackBounds, images: ImageMap, outside: CodeOutside) -> Step | None:
    """Return the caller, on top of the stack, of code in an image that has no unwind data; None if it cannot be one."""
    if not images.is_code(registers.ip - 1):
        return None
    step = apply_plan(LEAF, registers, stack, images.memory)
    return as_faulted(step, registers.ip, images, outside) if isinstance(step, Step) else None
