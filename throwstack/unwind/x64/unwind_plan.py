# SPDX-License-Identifier: Apache-2.0
"""Compiles unwind codes for one address into a plan: where the frame keeps each saved register and the return address.

Everything that a prologue does is of fixed size. So the plan gives each stack slot as an offset from the value that a
register (rsp or the frame register) has in the frame. The module follows the documented unwind procedure. Two points of
this procedure are easily missed:

- The displacement of SAVE_NONVOL is relative to the frame's rsp or, once the frame register is set, to the frame
  register less its offset. It is not relative to the rsp that results from undoing the codes before SAVE_NONVOL.
- A prologue can itself call a function (`mov eax, 5000h; call __chkstk; sub rsp, rax`). So even in a frame that has
  made a call, an unwind code holds only if the return address is past the instruction that the code describes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from throwstack.core.registers import SP
from throwstack.core.stop import Stop, corrupt
from throwstack.unwind.x64.functions import Function, Part
from throwstack.unwind.x64.unwind_info import CHAININFO, UnwindOp

RegisterOffset = tuple[int, int]
"""A register number and an offset from its value in bytes."""


@dataclass(frozen=True, slots=True)
class UnwindPlan:
    """How to find the caller of a frame.

    `saves` has a triple (register, anchor register, offset) for each nonvolatile register that is saved on the stack:
    its slot is at the anchor register's value plus the offset. `result` gives the slot of the return address in the
    same way, as (anchor register, offset); the caller's rsp is 8 above that slot. If `is_machine_frame` is True, the
    stack has instead, from that slot on, the rip, cs, eflags, rsp and ss that the processor pushed when it was
    interrupted. `note` is a remark to show with the caller's frame. `rule` says what the plan was made from, for the
    trace of walks.
    """

    saves: tuple[tuple[int, int, int], ...]
    result: RegisterOffset
    is_machine_frame: bool = False
    note: str = ""
    rule: str = field(default="unwind codes", compare=False)


LEAF = UnwindPlan((), (SP, 0), rule="leaf function")
"""The plan for a leaf function: it changes neither rsp nor a nonvolatile register, so rsp is at the return address."""


def compile_codes(function: Function, rva: int) -> UnwindPlan | Stop:
    """Return the plan that undoes the unwind codes of `function` whose instructions have run at `rva`."""
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
    """Return the base to which the displacement of SAVE_NONVOL is added at `rva`: rsp, or the frame register if set."""
    info = part.info
    if info.frame_register:
        is_set = part.position(rva) >= info.prologue_size or bool(info.flags & CHAININFO)
        if is_set or any(code.op is UnwindOp.SET_FPREG and code.offset <= part.position(rva) for code in info.codes):
            return info.frame_register, -info.frame_offset
    return SP, 0
