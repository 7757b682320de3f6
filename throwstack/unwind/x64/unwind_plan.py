# SPDX-License-Identifier: Apache-2.0
"""Compiles unwind codes for one address into a plan: where the frame keeps each saved register and the return address.

Every place is an offset from a register as it is in the frame (rsp or a frame register), because everything that a
prologue does is of fixed size. Follows the documented unwind procedure. Two points are easily missed:

- The displacement of SAVE_NONVOL counts from rsp as it is in the frame, or from the frame register less its offset once
  that is set. It does not count from the rsp that undoing the codes before it has led to.
- A prologue can itself call (`mov eax, 5000h; call __chkstk; sub rsp, rax`). So in a frame that has called, too, a code
  holds only if the return address is past it.
"""

from __future__ import annotations

from dataclasses import dataclass

from throwstack.core.registers import SP
from throwstack.core.stop import Stop, corrupt
from throwstack.unwind.x64.functions import Function, Part
from throwstack.unwind.x64.unwind_info import CHAININFO, UnwindOp

RegisterOffset = tuple[int, int]
"""A register number and an offset from its value in bytes."""


@dataclass(frozen=True, slots=True)
class UnwindPlan:
    """How to find the caller of a frame.

    `saves` gives (register, anchor register, offset) of each nonvolatile register saved on the stack, `result` the
    place of the return address; its caller's rsp is 8 more. With `is_machine_frame`, `result` is the place of what
    the processor pushed when it was interrupted: rip, cs, eflags, rsp, ss.
    """

    saves: tuple[tuple[int, int, int], ...]
    result: RegisterOffset
    is_machine_frame: bool = False
    note: str = ""


LEAF = UnwindPlan((), (SP, 0))
"""A function without unwind data touches neither the stack nor a nonvolatile register."""


def compile_codes(function: Function, rva: int) -> UnwindPlan | Stop:
    """Return the plan that undoes the codes of `function` which hold at `rva`."""
    frame = _frame_base(function.parts[0], rva)
    at: RegisterOffset = (SP, 0)
    saves: dict[int, RegisterOffset] = {}
    held = [code for part in function.parts for code in part.info.codes if code.offset <= part.position(rva)]
    is_machine_frame = bool(held) and held[-1].op is UnwindOp.PUSH_MACHFRAME
    for code in held:
        match code.op:
            case UnwindOp.PUSH_NONVOL:
                saves[code.register] = at
                at = (at[0], at[1] + 8)
            case UnwindOp.ALLOC_LARGE | UnwindOp.ALLOC_SMALL:
                at = (at[0], at[1] + code.value)
            case UnwindOp.SET_FPREG if code.register not in saves:
                at = (code.register, -code.value)
            case UnwindOp.SAVE_NONVOL | UnwindOp.SAVE_NONVOL_FAR:
                saves[code.register] = (frame[0], frame[1] + code.value)
            case UnwindOp.PUSH_MACHFRAME if code is held[-1]:
                at = (at[0], at[1] + 8 * code.value)  # over the error code
            case UnwindOp.SET_FPREG | UnwindOp.PUSH_MACHFRAME:
                return corrupt(f"{code.op.name} out of place at {function.base + rva:#x}")
            case _:
                pass  # XMM registers are not carried.
    return UnwindPlan(tuple((register, *place) for register, place in saves.items()), at, is_machine_frame)


def _frame_base(part: Part, rva: int) -> RegisterOffset:
    """Return the base from which SAVE_NONVOL's displacements count at `rva`."""
    info = part.info
    if info.frame_register:
        is_set = part.position(rva) >= info.prologue_size or bool(info.flags & CHAININFO)
        if is_set or any(code.op is UnwindOp.SET_FPREG and code.offset <= part.position(rva) for code in info.codes):
            return info.frame_register, -info.frame_offset
    return SP, 0
