# SPDX-License-Identifier: Apache-2.0
"""Applies an unwind plan to a frame: reads the caller's registers from the stack slots that the plan names."""

from __future__ import annotations

from throwstack.core.frames import End, StackBounds, Trust
from throwstack.core.memory import Memory, MemoryUnreadable
from throwstack.core.registers import X64, Registers
from throwstack.core.stop import Stop, unreadable
from throwstack.unwind.walk import Step
from throwstack.unwind.x64.unwind_plan import UnwindPlan

_MACHINE_FRAME_RSP = 24


def apply_plan(
    plan: UnwindPlan,
    registers: Registers,
    bounds: StackBounds,
    memory: Memory,
    interrupted: Registers | None = None,
) -> Step | Stop:
    """Return the caller that `plan` gives for the frame with `registers`; whether it can be one is not checked.

    The slots must be in `bounds`. If the frame is the exception dispatcher's, `interrupted` are the registers in the
    exception's CONTEXT, else None. If `plan` gives the same ip and sp as `interrupted`, the caller gets the registers
    of `interrupted`: they are complete, and the code at their ip was interrupted.
    """
    gpr, u64 = registers.gpr, memory.u64
    limit, last = bounds.limit, bounds.base - 8
    anchor, offset = plan.result
    start = gpr[anchor]
    if start is None:
        return Stop(End.UNKNOWN_REGISTER, f"{X64.register_names[anchor]} at {registers.ip:#x}")
    slot = start + offset
    if not limit <= slot <= last:
        return Stop(End.STACK_BOUND, f"return address would be at {slot:#x}")
    try:
        ip = u64(slot)
        sp = u64(slot + _MACHINE_FRAME_RSP) if plan.is_machine_frame else slot + 8
    except MemoryUnreadable as error:
        return unreadable(error.address, "return address")
    if interrupted is not None and (ip, sp) == (interrupted.ip, interrupted.sp):
        return Step(interrupted, slot, Trust.CFI, is_interrupted=True, note=plan.note)
    # rbx, rsp, rbp, rsi, rdi and r12 to r15 are the caller's; of the others nothing is known after a call.
    new = [None, None, None, gpr[3], sp, gpr[5], gpr[6], gpr[7], None, None, None, None, *gpr[12:]]
    for register, anchor, offset in plan.saves:
        start = gpr[anchor]
        value = None
        if start is not None and limit <= (saved := start + offset) <= last:
            try:
                value = u64(saved)
            except MemoryUnreadable:
                value = None
        new[register] = value
    return Step(Registers(ip, tuple(new)), slot, Trust.CFI, plan.is_machine_frame, plan.note)
